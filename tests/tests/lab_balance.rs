//! Real MySQL through the VIP, in every mode and with both offload settings of the senders: exact shares, the client's
//! own address, big data both ways.

use lb_tests::checks::{Sessions, Setting, Share, both_ways, spread};
use lb_tests::lab::Offload;
use lb_userspace::control::protocol::{Mode, Status};

/// One mode, one offload setting: everything that a client can tell.
fn balances(mode: &str, offload: Offload) {
    let setting = Setting::of(mode, offload);
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let status: Status = d1.ctl(&["status"]).unwrap();
    let expected = match mode {
        "tc" => Mode::Tc,
        "xdp" => Mode::Xdp,
        "xdp-generic" => Mode::XdpGeneric,
        other => panic!("{other}"),
    };
    let modes: Vec<_> = status.interfaces.iter().map(|interface| (interface.name.as_str(), interface.mode)).collect();
    assert_eq!(modes, [("ext0", expected), ("int0", expected)], "the mode in use is the one that was asked for");

    // Two equal backends, round robin: exactly half each.
    spread(&lab, &setting.shares(&lab), 200, 5).unwrap();

    let mut sessions = Sessions::open(&lab, 7).unwrap();
    sessions.answer().unwrap();
    sessions.agree(&lab).unwrap();
    for transfer in both_ways(&lab, 64).unwrap() {
        assert_eq!(transfer.bytes, 64 << 20);
        println!("{mode}, offload {}: {} MiB in {:?}", offload.name(), transfer.bytes >> 20, transfer.elapsed);
    }

    // Another scheduler with the next start; what is open stays open.
    d1.stop_agent().unwrap();
    d1.start_agent(&setting.agent(&lab).weights("wrr", &[3, 1])).unwrap();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    spread(&lab, &[Share::new(rs1, 3), Share::new(rs2, 1)], 200, 5).unwrap();

    // Another weight while it runs.
    d1.set_weight(Share::new(rs2, 0).address(), 4).unwrap();
    spread(&lab, &[Share::new(rs1, 3), Share::new(rs2, 4)], 210, 5).unwrap();
    sessions.answer().unwrap();
    sessions.agree(&lab).unwrap();
}

#[test]
fn tc_balances_exactly_with_checksum_offload_on() {
    balances("tc", Offload::On);
}

#[test]
fn tc_balances_exactly_with_checksum_offload_off() {
    balances("tc", Offload::Off);
}

#[test]
fn xdp_balances_exactly_with_checksum_offload_off() {
    balances("xdp", Offload::Off);
}

/// XDP leaves packets with an unfinished checksum to the TC program behind it.
#[test]
fn xdp_balances_exactly_with_checksum_offload_on() {
    balances("xdp", Offload::On);
}

#[test]
fn generic_xdp_balances_exactly_with_checksum_offload_off() {
    balances("xdp-generic", Offload::Off);
}

#[test]
fn generic_xdp_balances_exactly_with_checksum_offload_on() {
    balances("xdp-generic", Offload::On);
}

//! The host firewall of a director drops by policy, at input and forward. Balanced traffic passes without a rule, and no
//! packet of it ever gets up to the firewall.

use lb_tests::checks::{Setting, behind_firewall, both_ways, spread};
use lb_tests::lab::{Offload, addr};

fn passes_the_firewall(mode: &str, offload: Offload) {
    // On from before the agent's start: the first packets and the first ARP exchange count too.
    let setting = Setting { firewall: true, ..Setting::of(mode, offload) };
    let lab = setting.up().unwrap();
    spread(&lab, &setting.shares(&lab), 200, 5).unwrap();
    both_ways(&lab, 64).unwrap();
    assert_eq!(lab.d1().firewall_drops().unwrap(), 0, "packets of the service went up to the firewall");

    // The same firewall does refuse what the kernel would route or take in.
    let past = std::net::SocketAddrV4::new(lab.servers()[0].address(), addr::MYSQL_PORT);
    assert_eq!(lab.client().many_connections_to(past, 1, 1, 1).unwrap().failed_connections, 1);
    assert!(lab.d1().firewall_drops().unwrap() > 0);
}

#[test]
fn balanced_traffic_passes_a_host_firewall_that_drops_everything_tc() {
    passes_the_firewall("tc", Offload::On);
}

#[test]
fn balanced_traffic_passes_a_host_firewall_that_drops_everything_xdp() {
    passes_the_firewall("xdp", Offload::Off);
}

#[test]
fn a_firewall_switched_on_under_open_sessions_does_not_disturb_them() {
    let setting = Setting::of("tc", Offload::On);
    let lab = setting.up().unwrap();
    let mut sessions = lb_tests::checks::Sessions::open(&lab, 4).unwrap();
    behind_firewall(&lab, || {
        sessions.answer()?;
        spread(&lab, &setting.shares(&lab), 100, 5)
    })
    .unwrap();
    sessions.answer().unwrap();
}

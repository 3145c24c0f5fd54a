use super::*;
use crate::control::protocol::{BackendView, InterfaceView, Mode, TableView};

fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn status_fits_on_a_screen() {
    let interface = |name: &str, ifindex, mode, why: &str, attached_seconds| InterfaceView {
        name: name.to_owned(),
        ifindex,
        mode,
        why: why.to_owned(),
        link_id: 90,
        program_id: 151,
        attached_seconds,
    };
    let table = |name: &str, entries, capacity, bytes| TableView { name: name.to_owned(), entries, capacity, bytes };
    let status = Status {
        version: 1,
        agent_version: "0.1.0".to_owned(),
        abi: 1,
        pid: 4242,
        uptime_seconds: 11_520,
        config_path: "/etc/lb/lb.toml".into(),
        pin_dir: "/sys/fs/bpf/lb/v1".into(),
        interfaces: vec![
            interface("ext0", 3, Mode::Xdp, "the driver supports it", Some(1_051_200)),
            interface("int0", 12, Mode::XdpGeneric, "the config asks for it", None),
        ],
        tables: vec![table("conns", 3684, 200_000, 32 << 20), table("half_open", 0, 131_072, 20 << 20)],
        services: 1,
        backends: 2,
        backends_up: 1,
        events_lost: 0,
        warnings: vec!["LRO is on at ext0: ethtool -K ext0 lro off".to_owned()],
        checks: Vec::new(),
        vrrp: None,
        sync: None,
    };
    let expected = "\
lb-agent 0.1.0, pid 4242, up 3h12m, map layout 1, protocol 1
config    /etc/lb/lb.toml
pins      /sys/fs/bpf/lb/v1
services  1, backends 1 of 2 up
events    0 lost
role      alone: there is no [vrrp] in the config

INTERFACE  INDEX  MODE         LINK  PROGRAM  ATTACHED  WHY
ext0           3  xdp            90      151     12d4h  the driver supports it
int0          12  xdp-generic    90      151         -  the config asks for it

TABLE      ENTRIES  CAPACITY  USED    MEMORY
conns         3684    200000    1%  32.0 MiB
half_open        0    131072    0%  20.0 MiB

warning: LRO is on at ext0: ethtool -K ext0 lro off
";
    assert_eq!(printed(|out| super::status(out, &status)), expected);
}

#[test]
fn drops_come_with_their_remedies() {
    let drop = |reason: &str, count| DropView {
        reason: reason.to_owned(),
        count,
        explanation: "what it means".to_owned(),
        remedy: "what to do".to_owned(),
    };
    let list = [drop("no_backend", 0), drop("no_conn", 1234)];
    let some = "\
REASON   PACKETS  MEANING
no_conn     1234  what it means
                  -> what to do
";
    let all = "\
REASON      PACKETS  MEANING
no_backend        0  what it means
no_conn        1234  what it means
                     -> what to do
";
    assert_eq!(printed(|out| drops(out, &list, false)), some);
    assert_eq!(printed(|out| drops(out, &list, true)), all);
    assert_eq!(printed(|out| drops(out, &list[..1], false)), "no packet was dropped\n");
}

#[test]
fn a_change_tells_what_the_backend_is_now() {
    for (weight, state, active, expected) in [
        (3, BackendState::Up, 12, "mysql 192.168.80.167:3306: up, weight 3\n"),
        (0, BackendState::Up, 12, "mysql 192.168.80.167:3306: up, weight 0, 12 active conns left\n"),
        (0, BackendState::Draining, 1, "mysql 192.168.80.167:3306: draining, weight 0, 1 active conn left\n"),
        (0, BackendState::Draining, 0, "mysql 192.168.80.167:3306: draining, weight 0, 0 active conns left\n"),
    ] {
        let answer = BackendAnswer {
            service: "mysql".to_owned(),
            backend: BackendView {
                address: "192.168.80.167:3306".parse().unwrap(),
                forward: "Masq".to_owned(),
                weight,
                state,
                word: String::new(),
                active,
                inactive: 0,
                left: None,
                disagreement: None,
            },
        };
        assert_eq!(printed(|out| backend(out, &answer)), expected);
    }
}

use super::*;
use crate::control::protocol::{AlarmView, PeerView, TimerView, VipView};
use std::{collections::BTreeMap, net::Ipv4Addr};

fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn view() -> VrrpView {
    let vip =
        |address: &str, interface: &str, vrid| VipView { address: address.into(), interface: interface.into(), vrid };
    let transport = |interface: &str, vrid, heard_ms| TransportView {
        interface: interface.into(),
        vrid,
        link_up: true,
        sees: Some("heard".into()),
        peer: Some(Ipv4Addr::new(10, 80, 1, 242)),
        heard_ms: Some(heard_ms),
        heard_priority: Some(100),
        sent: 0,
        send_errors: 0,
        received: 1234,
        other_checksum: 0,
        ignored: BTreeMap::new(),
    };
    VrrpView {
        node: "d1".into(),
        role: "Backup".into(),
        since_ms: 185_999,
        cause: "handed over".into(),
        listening: false,
        priority: 101,
        version: 3,
        advert_ms: 100,
        peers: vec![PeerView { name: "d2".into(), priority: 100 }],
        vips: vec![vip("10.80.1.243/24", "ext0", 52), vip("192.168.80.111/24", "int0", 51)],
        answers_arp: false,
        transports: vec![transport("ext0", 52, 12), transport("int0", 51, 73_000)],
        heartbeat: None,
        waits_for: None,
        faults: Vec::new(),
        alarms: Vec::new(),
        timer: TimerView { realtime: true, locked: false, late: 0, worst_delay_us: 1042 },
    }
}

#[test]
fn a_healthy_backup_fits_into_a_few_lines() {
    let expected = "\
role      Backup for 3m5s: handed over
director  d1 (priority 101), beside d2 (priority 100); VRRP 3 every 100 ms
VIPs      10.80.1.243/24 on ext0 (VRID 52), 192.168.80.111/24 on int0 (VRID 51); ARP not answered here
sync      none
timer     real-time yes, memory locked no, late 0 times, at most 1.042 ms

PATH  VRID  LINK  SEES   PEER            HEARD  PRIORITY  SENT  RECEIVED  IGNORED
ext0    52  up    heard  10.80.1.242  12ms ago       100     0      1234  -
int0    51  up    heard  10.80.1.242     1m13s       100     0      1234  -
";
    assert_eq!(printed(|out| status(out, &view(), "none")), expected);
}

#[test]
fn what_is_wrong_has_a_line_of_its_own() {
    let mut view = view();
    view.role = "Fault".into();
    view.cause = "int0 down".into();
    view.heartbeat = Some("Active".into());
    view.waits_for = Some("bulk 3 of 7 (for 12s at most)".into());
    view.faults = vec!["int0 down".into()];
    view.alarms = vec![AlarmView { name: "heartbeat-lost".into(), text: "no heartbeat of the peer".into() }];
    view.transports.truncate(1);
    view.transports[0].link_up = false;
    (view.transports[0].sees, view.transports[0].peer, view.transports[0].heard_ms) = (None, None, None);
    view.transports[0].heard_priority = None;
    view.transports[0].ignored = [("auth_data".to_owned(), 3), ("ttl".to_owned(), 1)].into();
    let text = printed(|out| status(out, &view, "equal"));
    for line in [
        "role      Fault for 3m5s: int0 down\n",
        "sync      equal\nheartbeat of the peer: Active\n",
        "waits     bulk 3 of 7 (for 12s at most)\n",
        "fault     int0 down\n",
        "alarm     heartbeat-lost: no heartbeat of the peer\n",
        "ext0    52  down  -     -         -         -     0      1234  auth_data 3, ttl 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_failover_tells_who_and_how_long() {
    let step = |role: &str, peer, gap_us, conns| FailoverStep { role: role.into(), peer, gap_us, conns };
    let peer = Some(Ipv4Addr::new(10, 80, 1, 242));
    let answer =
        FailoverAnswer { steps: vec![step("Backup", peer, 1500, [40, 40]), step("Active", None, 62, [40, 41])] };
    let expected = "\
10.80.1.242 has taken over: 1.500 ms without an Active, 40 conns before, 40 after
this director has taken over from the peer: 0.062 ms without an Active, 40 conns before, 41 after
";
    assert_eq!(printed(|out| failover(out, &answer)), expected);
}

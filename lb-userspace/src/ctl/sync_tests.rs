use super::*;
use crate::control::protocol::{SafetyView, SyncCounters, SyncPeerView};
use lb_common::tcp::State;
use std::collections::BTreeMap;

fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn view() -> SyncView {
    SyncView {
        node: "d1".into(),
        path: "239.255.80.81:8848 on sync0".into(),
        protected: true,
        trouble: None,
        state: "equal".into(),
        bulk: None,
        safe: SafetyView { this: true, peer: true, answer: "d1 and d2 have the same 1000 conns".into() },
        conns: 1000,
        ends: 3,
        queued: 2,
        lag_us: 1250,
        under_way: 1,
        memory_bytes: 5 << 20,
        peer: Some(SyncPeerView {
            name: Some("d2".into()),
            number: 77,
            role: "Backup".into(),
            priority: 100,
            heard_ms: 12,
            conns: 1000,
            refused: 0,
            config_differs: false,
            equal_ms: Some(40),
            epoch: "00ff".into(),
        }),
        counters: SyncCounters { sent_frames: 9, sent_bytes: 2048, deltas: 7, missing: 2, ..SyncCounters::default() },
        refused: BTreeMap::new(),
        rejected: BTreeMap::new(),
    }
}

#[test]
fn a_healthy_pair_says_first_that_either_may_go() {
    let expected = "\
safe      yes: d1 and d2 have the same 1000 conns
path      239.255.80.81:8848 on sync0, protected
peer      d2 (number 77), Backup, priority 100, heard 12 ms ago
state     equal, last found equal: 40 ms ago
conns     1000 here, 1000 there, 0 not taken there
lag       1.2 ms: 2 changes wait, 1 frames not acknowledged, 3 ends to tell
sent      9 frames, 2.0 KiB: 7 changes, 0 in bulk, 0 ends
received  0 frames, 0 B: 0 conns taken over, 0 removed
losses    2 frames missed here, 0 there; 0 buckets repaired, 0 conns asked for
memory    5.0 MiB
";
    assert_eq!(printed(|out| peer(out, &view())), expected);
    assert_eq!(line(&view()), "equal with d2, 1000 conns here, 1000 there, lag 1.2 ms");
}

#[test]
fn what_is_wrong_is_said_where_it_counts() {
    let mut view = view();
    view.safe = SafetyView { this: false, peer: true, answer: "d2 lacks conns".into() };
    view.protected = false;
    (view.state, view.bulk) = ("bulk".into(), Some([400, 2000]));
    view.trouble = Some("sync0: No such device".into());
    view.refused = [("forged".to_owned(), 4), ("replayed".to_owned(), 1)].into();
    let text = printed(|out| peer(out, &view));
    for line in [
        "safe      only the peer: d2 lacks conns\n",
        "path      239.255.80.81:8848 on sync0, UNPROTECTED: insecure = true\n",
        "trouble   sync0: No such device\n",
        "state     bulk (400 of 2000), last found equal: 40 ms ago\n",
        "refused   frames: forged 4, replayed 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    view.peer = None;
    view.state = "no-peer".into();
    assert_eq!(line(&view), "no-peer: nobody answers on 239.255.80.81:8848 on sync0, 1000 conns here; UNPROTECTED");
}

#[test]
fn conns_that_differ_are_a_table() {
    let conn = DiffView {
        client: "10.80.1.1:40000".parse().unwrap(),
        vip: "10.80.1.243:3306".parse().unwrap(),
        destination: "192.168.80.167:3306".parse().unwrap(),
        state: State::Established,
        idle_seconds: 75,
        ended: false,
        why: "unknown".into(),
    };
    let text = printed(|out| diff(out, std::slice::from_ref(&conn), 1));
    assert_eq!(
        text,
        "\
HERE  AT THE PEER  STATE        CLIENT           VIRTUAL           DESTINATION           IDLE
open  unknown      ESTABLISHED  10.80.1.1:40000  10.80.1.243:3306  192.168.80.167:3306  1m15s
more may follow: --limit N shows more than 1
"
    );
    assert!(printed(|out| diff(out, &[], 10)).starts_with("no conn of this director differs"));
}

//! Who yields to whom: preemption and its gate, hand-over, equal priorities, strict mode.

use super::*;

#[test]
fn whatever_is_broken_releases_even_without_preemption() {
    for (break_it, mend_it, cause) in [
        (
            Input::Link { transport: EXT, up: false },
            Input::Link { transport: EXT, up: true },
            Cause::LinkDown { transport: EXT },
        ),
        (Input::Check { check: 0, ok: false }, Input::Check { check: 0, ok: true }, Cause::CheckFailed { check: 0 }),
        (Input::Check { check: 1, ok: false }, Input::Check { check: 1, ok: true }, Cause::CheckFailed { check: 1 }),
    ] {
        let mut rig = Rig::active(config());
        rig.give(break_it);
        assert_eq!((rig.role(), rig.cause()), (Role::Fault, cause));
        assert_eq!(rig.election.beat().role, PeerRole::Fault);
        rig.actions();
        rig.wait(ms(60_000));
        rig.hear(0, &[EXT, INT]);
        assert_eq!((rig.role(), rig.actions()), (Role::Fault, vec![]), "silence is no reason");
        rig.give(mend_it);
        assert_eq!(rig.actions(), [notify(Role::Backup, Cause::Recovered)]);
        rig.wait(DOWN);
        assert_eq!(rig.role(), Role::Active, "after it has listened");
    }
}

#[test]
fn nothing_moves_back_without_preemption() {
    let mut rig = Rig::backup(config());
    rig.peer_active(1, &[EXT, INT], ms(60_000));
    assert_eq!(rig.role(), Role::Backup);
}

#[test]
fn preemption_waits_for_the_gate_and_the_gate_has_a_bound() {
    let closed =
        |reason: &'static str| Input::Gate(GateState::Closed { reason: reason.into(), bound: Duration::from_secs(30) });
    let config = Config { preempt: AT_ONCE, ..config() };
    // Opened: the peer has the time it needs.
    let mut rig = Rig::backup(config.clone());
    rig.give(closed("bulk 10 of 100"));
    rig.peer_active(100, &[EXT, INT], ms(20_000));
    rig.give(closed("bulk 90 of 100"));
    let gate = rig.election.status(rig.now).gate.unwrap();
    assert_eq!((gate.reason.as_str(), gate.left), ("bulk 90 of 100", ms(10_000)));
    rig.give(Input::Gate(GateState::Open));
    assert_eq!(rig.role(), Role::Backup);
    rig.peer_active(100, &[EXT, INT], ms(1000));
    assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::Preempt));
    // Never opened.
    let mut rig = Rig::backup(config.clone());
    rig.give(closed("no bulk"));
    rig.peer_active(100, &[EXT, INT], ms(29_900));
    assert_eq!((rig.role(), rig.alarms()), (Role::Backup, vec![]));
    rig.peer_active(100, &[EXT, INT], ms(1000));
    assert!(rig.role() == Role::Active && rig.alarms().contains(&Alarm::Unsynced));
    // A peer that is gone needs no gate.
    let mut rig = Rig::backup(config);
    rig.give(closed("no bulk"));
    rig.wait(DOWN);
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_role_that_was_handed_over_is_not_taken_back() {
    let mut rig = Rig::active(Config { preempt: AT_ONCE, ..config() });
    rig.give(Input::HandOver);
    rig.peer_active(100, &[EXT, INT], ms(60_000));
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(DOWN);
    assert_eq!(rig.role(), Role::Active, "but nobody else wants it");
}

#[test]
fn strict_mode_waits_for_the_skew_time_on_every_transport() {
    let mut rig = Rig::backup(Config { mode: Mode::Strict, ..config() });
    rig.peer_active(101, &[EXT, INT], ms(1000));
    rig.hear(0, &[EXT]);
    rig.wait(ms(200));
    assert_eq!(rig.role(), Role::Backup, "int0 has not given up");
    rig.hear(0, &[INT]);
    rig.wait(ms(60));
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(ms(1));
    assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::PeerResigned));
}

#[test]
fn equal_priorities_are_decided_alike_on_all_transports() {
    // The peer's address is greater on ext0 and smaller on int0.
    let mut crossed = config();
    crossed.transports[INT].address = Ipv4Addr::new(192, 168, 80, 103);
    for (mode, first, after) in [
        (Mode::Pair, &[EXT, INT][..], Role::Backup),
        (Mode::Pair, &[INT, EXT], Role::Backup),
        (Mode::Strict, &[EXT, INT], Role::Backup),
        (Mode::Strict, &[INT], Role::Active),
    ] {
        let mut rig = Rig::active(Config { mode, ..crossed.clone() });
        rig.hear(101, first);
        assert_eq!(rig.role(), after, "{mode:?} {first:?}");
    }
    // A foreign peer that lost on int0 comes back first.
    let mut rig = Rig::active(Config { mode: Mode::Strict, ..crossed });
    rig.hear(101, &[INT, EXT]);
    rig.wait(DOWN + ms(99));
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(ms(1));
    assert_eq!(rig.role(), Role::Active);
    // Everywhere greater, everywhere smaller.
    let mut rig = Rig::active(config());
    rig.hear(101, &[INT]);
    assert_eq!(rig.role(), Role::Backup);
    let mut greater = config();
    greater.transports[EXT].address = Ipv4Addr::new(10, 80, 1, 250);
    let mut rig = Rig::active(greater);
    rig.hear(101, &[EXT, INT]);
    assert_eq!(rig.role(), Role::Active);
}

//! A director that has slept listens before it speaks.

use super::*;

#[test]
fn an_active_that_has_slept_listens_before_it_speaks() {
    // 300 ms after its last advert a peer may be Active.
    let mut rig = Rig::active(config());
    rig.wait(ms(1000));
    let due = rig.election.poll_timeout().unwrap();
    rig.now = due;
    rig.sleep(ms(200));
    rig.actions();
    rig.wait(Duration::ZERO);
    assert!(!rig.actions().contains(&CloseArpGate), "nobody can have taken over yet");

    rig.sleep(ms(30_000));
    rig.wait(Duration::ZERO);
    let actions = rig.actions();
    assert!(matches!(actions[..], [Action::Late { .. }, CloseArpGate]), "{actions:?}");
    assert_eq!(rig.election.beat().role, PeerRole::Backup);
    rig.wait(ms(160));
    assert_eq!(rig.actions(), []);
    rig.wait(ms(1));
    let [ext, int] = adverts(101);
    assert_eq!(rig.actions(), [OpenArpGate, ext, int, GratuitousArp { repeat: 5 }]);
}

#[test]
fn an_active_that_was_superseded_in_its_sleep_stays_backup() {
    let [ext, int] = adverts(0);
    for priority in [1, 101, 254] {
        let mut rig = Rig::active(config());
        rig.sleep(ms(30_000));
        // What the socket has kept comes before the tick.
        rig.hear(priority, &[INT]);
        let actions = rig.actions();
        let expected = [CloseArpGate, CloseArpGate, ext, int, RemoveVips, notify(Role::Backup, Cause::Superseded)];
        assert_eq!(actions[1..], expected, "{priority}");
    }
    // With preemption and the greater priority, it is as if it were told now.
    let mut rig = Rig::active(Config { preempt: AT_ONCE, ..config() });
    rig.sleep(ms(30_000));
    rig.hear(100, &[INT]);
    let [ext, int] = adverts(101);
    let actions = rig.actions();
    assert_eq!(actions[1..5], [CloseArpGate, OpenArpGate, ext, int]);
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_backup_that_has_slept_does_not_believe_in_silence() {
    let mut rig = Rig::backup(config());
    rig.peer_active(100, &[EXT, INT], ms(1000));
    rig.sleep(ms(30_000));
    rig.wait(ms(160));
    assert_eq!(rig.role(), Role::Backup);
    rig.peer_active(100, &[EXT, INT], ms(1000));
    assert_eq!(rig.role(), Role::Backup);
    // It listens for one interval and the skew time, no longer.
    rig.sleep(ms(30_000));
    rig.wait(ms(161));
    assert_eq!(rig.role(), Role::Active);
}

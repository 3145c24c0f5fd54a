//! What a Backup makes of silent paths, priority 0 and the heartbeat.

use super::*;

#[test]
fn one_silent_path_holds_and_names_itself() {
    for (alive, silent) in [(EXT, INT), (INT, EXT)] {
        let mut rig = Rig::backup(config());
        rig.peer_active(100, &[EXT, INT], ms(1000));
        rig.peer_active(100, &[alive], ms(60_000));
        let alarm = Alarm::AdvertPath { transport: silent };
        assert_eq!((rig.role(), rig.alarms()), (Role::Backup, vec![alarm]));
        assert!(alarm.describe(&config()).contains(["ext0", "int0"][silent]));
        assert_eq!(rig.actions(), [Action::Alarm { alarm, raised: true }]);
        // The path heals.
        rig.hear(100, &[silent]);
        assert_eq!(rig.actions(), [Action::Alarm { alarm, raised: false }]);
        // And then the peer dies.
        rig.wait(ms(1000));
        assert_eq!((rig.role(), rig.alarms()), (Role::Active, vec![]));
    }
}

#[test]
fn a_peer_that_dies_behind_a_broken_path_is_succeeded() {
    let mut rig = Rig::backup(config());
    rig.peer_active(100, &[EXT], ms(2000));
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(DOWN);
    assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::Silence));
}

#[test]
fn paths_that_fall_silent_one_after_the_other_raise_no_alarm() {
    let mut rig = Rig::backup(config());
    rig.peer_active(100, &[EXT, INT], ms(1000));
    rig.wait(ms(50));
    rig.hear(100, &[INT]);
    rig.wait(ms(1000));
    assert_eq!(rig.role(), Role::Active);
    assert!(!rig.actions().iter().any(|action| matches!(action, Action::Alarm { .. })));
}

#[test]
fn priority_0_on_one_transport_moves_all_vips_at_once() {
    for transport in [EXT, INT] {
        let mut rig = Rig::backup(config());
        rig.peer_active(101, &[EXT, INT], ms(1000));
        rig.hear(0, &[transport]);
        assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::PeerResigned));
    }
}

#[test]
fn an_advert_that_the_peer_sent_before_it_gave_up_does_no_harm_once() {
    let mut rig = Rig::backup(config());
    rig.peer_active(200, &[EXT, INT], ms(1000));
    rig.hear(0, &[EXT]);
    rig.actions();
    rig.hear(200, &[INT]);
    assert_eq!((rig.role(), rig.actions()), (Role::Active, vec![]));
    rig.hear(200, &[INT]);
    assert_eq!(rig.role(), Role::Backup, "a second one means it");
    // Where it did give up, there is none on its way.
    let mut rig = Rig::backup(config());
    rig.peer_active(200, &[EXT, INT], ms(1000));
    rig.hear(0, &[EXT]);
    rig.hear(200, &[EXT]);
    assert_eq!(rig.role(), Role::Backup);
}

#[test]
fn a_stranger_cannot_give_up_what_the_peer_has() {
    let mut rig = Rig::backup(config());
    rig.peer_active(101, &[EXT, INT], ms(1000));
    let stranger = Ipv4Addr::new(10, 80, 1, 9);
    let heard = Heard { source: stranger, priority: 0, interval: Interval::new(Version::V3, 10).unwrap() };
    rig.give(Input::Advert { transport: EXT, heard });
    assert_eq!(rig.role(), Role::Backup);
}

#[test]
fn the_heartbeat_makes_a_backup_faster() {
    let mut rig = Rig::backup(with_heartbeat());
    for _ in 0..20 {
        rig.hear(100, &[EXT, INT]);
        rig.beat(PeerRole::Active, 100);
        rig.wait(ms(50));
        rig.beat(PeerRole::Active, 100);
        rig.wait(ms(50));
    }
    // The last heartbeat was 50 ms ago, the last advert 100 ms ago.
    let crash = rig.now;
    while rig.role() == Role::Backup {
        rig.wait(ms(1));
    }
    assert_eq!(rig.cause(), Cause::HeartbeatLost);
    let took = rig.now - crash;
    assert!(took > ms(150) && took < ms(165), "{took:?}: 100 ms to the loss, 60.5 ms of skew");
}

#[test]
fn a_lost_sync_path_alone_moves_nothing() {
    let mut rig = Rig::backup(with_heartbeat());
    rig.beat(PeerRole::Active, 100);
    rig.peer_active(100, &[EXT, INT], ms(60_000));
    assert_eq!((rig.role(), rig.alarms()), (Role::Backup, vec![Alarm::Heartbeat]));
    rig.beat(PeerRole::Active, 100);
    assert_eq!(rig.alarms(), []);
}

#[test]
fn no_adverts_but_a_heartbeat_of_an_active_peer_hold_as_long_as_the_config_says() {
    let mut rig = Rig::backup(with_heartbeat());
    let beats = |rig: &mut Rig, time: Duration| {
        for _ in 0..time.as_millis() / 50 {
            rig.beat(PeerRole::Active, 100);
            rig.wait(ms(50));
        }
    };
    beats(&mut rig, ms(60_000));
    let paths = [EXT, INT].map(|transport| Alarm::AdvertPath { transport });
    assert_eq!((rig.role(), rig.alarms()), (Role::Backup, paths.to_vec()));

    let mut rig = Rig::backup(Config { hold_max: Some(ms(10_000)), ..with_heartbeat() });
    beats(&mut rig, ms(10_000));
    assert_eq!(rig.role(), Role::Backup);
    beats(&mut rig, ms(500));
    assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::HoldExpired));
}

#[test]
fn what_the_peer_says_on_the_sync_path_counts_at_once() {
    for role in [PeerRole::Fault, PeerRole::Leaving] {
        let mut rig = Rig::backup(with_heartbeat());
        rig.peer_active(254, &[EXT, INT], ms(1000));
        rig.beat(role, 254);
        assert_eq!((rig.role(), rig.cause()), (Role::Active, Cause::PeerFault));
        rig.give(Input::HandOver);
        assert_eq!(rig.role(), Role::Active, "there is nobody to hand over to");
    }
}

#[test]
fn two_actives_that_hear_only_their_heartbeats_agree() {
    for (priority, role) in [(100, Role::Active), (102, Role::Backup), (101, Role::Backup)] {
        let mut rig = Rig::active(with_heartbeat());
        rig.beat(PeerRole::Active, priority);
        assert_eq!(rig.role(), role, "{priority}");
        assert_eq!(rig.alarms().contains(&Alarm::TwoActives), role == Role::Active);
    }
}

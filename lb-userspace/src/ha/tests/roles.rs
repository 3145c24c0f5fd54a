//! How roles change: in which order, for which reason, and what the neighbours are told.

use super::*;

#[test]
fn taking_over_opens_the_gate_first_and_tells_the_neighbours_last() {
    let mut rig = Rig::backup(config());
    rig.wait(DOWN - Duration::from_micros(1));
    assert_eq!((rig.role(), rig.actions()), (Role::Backup, vec![]));
    rig.wait(Duration::from_micros(1));
    let [ext, int] = adverts(101);
    let expected = [OpenArpGate, AddVips, ext, int, GratuitousArp { repeat: 5 }, notify(Role::Active, Cause::Silence)];
    assert_eq!(rig.actions(), expected);
}

#[test]
fn a_start_removes_what_a_killed_agent_has_left() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.election.poll_timeout(), None, "nothing happens before the start");
    rig.give(Input::Start);
    assert_eq!(rig.actions(), [CloseArpGate, RemoveVips, notify(Role::Backup, Cause::Start)]);
    rig.give(Input::Start);
    assert_eq!(rig.actions(), []);
}

#[test]
fn giving_up_closes_the_gate_and_tells_the_peer_on_all_transports_in_the_same_tick() {
    let [ext, int] = adverts(0);
    for (input, cause) in [(Input::Stop, Cause::Stop), (Input::HandOver, Cause::HandOver)] {
        let mut rig = Rig::active(config());
        rig.give(input);
        assert_eq!(rig.actions(), [CloseArpGate, ext, int, RemoveVips, notify(Role::Backup, cause)]);
    }
    let mut rig = Rig::active(config());
    rig.link(INT, false);
    let cause = Cause::LinkDown { transport: INT };
    assert_eq!(rig.actions(), [CloseArpGate, ext, int, RemoveVips, notify(Role::Fault, cause)]);
}

#[test]
fn a_better_router_on_one_transport_takes_all_vips() {
    for transport in [EXT, INT] {
        let cause = Cause::Outranked { transport, by: PEER[transport], priority: 102 };
        let mut rig = Rig::active(config());
        rig.hear(102, &[transport]);
        let [ext, int] = adverts(0);
        let told = [CloseArpGate, ext, int, RemoveVips, notify(Role::Backup, cause)];
        assert_eq!(rig.actions(), told, "a peer learns that there were two");
        let mut rig = Rig::active(Config { mode: Mode::Strict, ..config() });
        rig.hear(102, &[transport]);
        assert_eq!(rig.actions(), [CloseArpGate, RemoveVips, notify(Role::Backup, cause)]);
    }
}

#[test]
fn a_peer_that_gives_way_makes_the_winner_tell_the_neighbours() {
    let mut rig = Rig::active(config());
    rig.wait(ms(10_000));
    rig.actions();
    rig.hear(0, &[EXT, INT]);
    let bursts = rig.actions().iter().filter(|action| matches!(action, GratuitousArp { .. })).count();
    assert_eq!(bursts, 2, "each segment after the other one's last frame there");
    // In a hand-over nobody was misled.
    let mut rig = Rig::backup(config());
    rig.peer_active(100, &[EXT, INT], ms(1000));
    rig.hear(0, &[EXT, INT]);
    let bursts = rig.actions().iter().filter(|action| matches!(action, GratuitousArp { .. })).count();
    assert_eq!((rig.role(), bursts), (Role::Active, 1));
}

#[test]
fn a_stopped_director_says_nothing_any_more() {
    let mut rig = Rig::active(config());
    rig.give(Input::Stop);
    rig.actions();
    rig.wait(ms(60_000));
    rig.hear(0, &[EXT, INT]);
    rig.link(EXT, false);
    assert_eq!((rig.actions(), rig.election.poll_timeout()), (vec![], None));
    assert_eq!(rig.election.beat().role, PeerRole::Leaving);
}

#[test]
fn two_faults_need_two_cures() {
    let mut rig = Rig::active(config());
    rig.link(EXT, false);
    rig.give(Input::Check { check: 1, ok: false });
    rig.link(EXT, true);
    assert_eq!(rig.role(), Role::Fault);
    assert_eq!(rig.election.status(rig.now).faults, [Cause::CheckFailed { check: 1 }]);
    assert_eq!(Cause::CheckFailed { check: 1 }.describe(&config()), "script ok.sh failed");
    rig.give(Input::Check { check: 1, ok: true });
    assert_eq!(rig.role(), Role::Backup);
}

#[test]
fn a_director_that_starts_broken_never_takes_part() {
    let mut rig = Rig::new(config());
    rig.link(INT, false);
    rig.give(Input::Start);
    assert_eq!((rig.role(), rig.cause()), (Role::Fault, Cause::LinkDown { transport: INT }));
    rig.wait(ms(60_000));
    assert_eq!(rig.role(), Role::Fault);
}

#[test]
fn the_winner_of_a_split_tells_the_neighbours_again() {
    let mut rig = Rig::active(config());
    rig.wait(ms(10_000));
    rig.actions();
    rig.hear(100, &[EXT]);
    let burst = GratuitousArp { repeat: 5 };
    let alarm = |raised| Action::Alarm { alarm: Alarm::TwoActives, raised };
    let answer = Action::SendAdvert { transport: EXT, priority: 101 };
    assert_eq!(rig.actions(), [burst, alarm(true), answer]);
    rig.wait(ms(100));
    rig.hear(100, &[EXT]);
    rig.wait(ms(299));
    assert!(!rig.actions().contains(&burst), "one burst while both are there");
    rig.wait(ms(1));
    let after: Vec<Action> = rig.actions();
    assert!(after.contains(&burst) && after.contains(&alarm(false)), "{after:?}");
    // Who has just believed the loser believes nobody else for a second.
    for pause in [1100, 3900] {
        rig.wait(ms(pause - 1));
        assert!(!rig.actions().contains(&burst));
        rig.wait(ms(1));
        assert!(rig.actions().contains(&burst));
    }
}

/// The conns of the other one are missing here: its packet path serves those that believed it better than this one.
#[test]
fn the_winner_of_two_actives_calls_the_neighbours_when_it_has_the_conns_of_the_other_one() {
    let burst = GratuitousArp { repeat: 5 };
    let closed = || Input::Gate(GateState::Closed { reason: "no session".into(), bound: ms(30_000) });
    let contested = || {
        let mut rig = Rig::active(config());
        rig.give(closed());
        rig.actions();
        rig.hear(100, &[EXT]);
        rig.hear(0, &[EXT, INT]);
        rig.wait(ms(200));
        assert!(!rig.actions().contains(&burst), "it lacks conns");
        rig
    };
    let mut rig = contested();
    rig.give(Input::Gate(GateState::Open));
    assert!(rig.actions().contains(&burst));
    let mut rig = contested();
    rig.wait(ms(799));
    assert!(!rig.actions().contains(&burst));
    rig.wait(ms(1));
    assert!(rig.actions().contains(&burst), "the wait has a bound");
    assert!(!rig.alarms().contains(&Alarm::Unsynced));
}

/// The neighbours stay with whom they believed last, while nobody knows whether there is another Active.
#[test]
fn an_active_that_has_lost_its_peer_calls_the_neighbours_no_more_until_it_is_back() {
    let closed = || Input::Gate(GateState::Closed { reason: "no session".into(), bound: ms(30_000) });
    let calls = |rig: &mut Rig, time| {
        rig.wait(time);
        rig.actions().iter().filter(|action| matches!(action, GratuitousArp { .. })).count()
    };
    let mut old = Rig::active(config());
    old.give(closed());
    assert_eq!(calls(&mut old, ms(60_000)), 0);
    old.give(Input::Gate(GateState::Open));
    assert_eq!(calls(&mut old, ms(30_000)), 3);
    let mut new = Rig::new(config());
    new.give(closed());
    new.give(Input::Start);
    assert_eq!(calls(&mut new, ms(1000)), 1, "it has just become Active");
    assert_eq!(calls(&mut new, ms(60_000)), 2, "and repeats its call");
}

#[test]
fn gratuitous_arp_is_repeated_after_1_1_and_5_s_and_refreshed_every_10_s() {
    let mut rig = Rig::active(config());
    let mut seen = Vec::new();
    let start = rig.now;
    for _ in 0..210 {
        rig.wait(ms(100));
        let arp = rig.actions().into_iter().filter_map(|action| match action {
            GratuitousArp { repeat } => Some(((rig.now - start).as_secs(), repeat)),
            _ => None,
        });
        seen.extend(arp);
    }
    assert_eq!(seen, [(0, 5), (4, 5), (9, 1), (19, 1)]);
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = with_heartbeat();
        change(&mut config);
        Election::new(config).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|c| c.transports.clear()), Some(ConfigError::NoTransport));
    assert_eq!(refused(|c| c.priority = 0), Some(ConfigError::PriorityZero));
    assert_eq!(refused(|c| c.priority = 255), Some(ConfigError::OwnerInPair));
    assert_eq!(refused(|c| c.transports[0].version = Version::V2), Some(ConfigError::Interval));
    assert_eq!(refused(|c| c.heartbeat.as_mut().unwrap().lost_after = 0), Some(ConfigError::Heartbeat));
    let owner = Config { mode: Mode::Strict, priority: 255, ..config() };
    let mut rig = Rig::new(owner);
    rig.give(Input::Start);
    assert_eq!(rig.role(), Role::Active, "RFC 9568 §6.4.1: an owner does not wait");
}

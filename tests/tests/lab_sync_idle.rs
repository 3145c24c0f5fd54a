//! Sessions that are silent for long, and a director that is not ready: with timeouts so short that seconds show what
//! hours do otherwise.

use std::thread;
use std::time::Duration;

use lb_tests::checks::Sessions;
use lb_tests::lab::{AgentOptions, Loss, Segment, SyncOptions, VrrpOptions, now, wait_for};
use lb_tests::survival::{Event, Fleet, Scene};
use lb_userspace::control::protocol::Status;

const LIMIT: Duration = Duration::from_secs(30);

fn short(agent: AgentOptions, sync: SyncOptions) -> (AgentOptions, SyncOptions) {
    let extra = "[timeouts]\nestablished = \"5s\"\n".to_owned();
    (AgentOptions { extra, ..agent }, sync.extra("refresh = \"500ms\""))
}

/// A conn is over after 5 s without a packet. Here some speak every 1.5 s for longer than that: their packets are seen by
/// the Active only, and the Backup must not take them for dead. Others are silent for longer than every other interval of
/// the protocol.
#[test]
fn sessions_that_only_the_active_sees_do_not_age_at_the_backup() {
    let scene = Scene::up(VrrpOptions::fast(), short).unwrap();
    let (lab, quiet) = (&scene.pair.lab, Duration::from_secs(2));
    let fleet = Fleet::open(lab, 40).unwrap();
    for event in [Event::Crash, Event::HandOver] {
        // Idle sessions speak in every census, the others in between.
        for _ in 0..2 {
            thread::sleep(quiet);
            let census = fleet.census(&fleet.roll(), now()).unwrap();
            assert_eq!((census.survived, census.wrong), (census.sessions, 0), "{:?}", census.errors);
        }
        thread::sleep(quiet);
        let census = scene.fail_over(event, &fleet).unwrap();
        assert_eq!((census.survived, census.sessions, census.wrong), (40, 40, 0), "{event}: {:?}", census.errors);
        scene.becomes_safe().unwrap();
    }
    fleet.settle(lab).unwrap();
}

/// A conn that is silent for too long ends on both directors, and does not come back.
#[test]
fn a_conn_that_is_over_is_over_on_both() {
    let scene = Scene::up(VrrpOptions::fast(), short).unwrap();
    let lab = &scene.pair.lab;
    let sessions = Sessions::open(lab, 10).unwrap();
    for director in lab.directors() {
        wait_for("ten conns on both", LIMIT, || Ok((director.peer()?.conns == 10).then_some(()))).unwrap();
    }
    for director in lab.directors() {
        wait_for("no conn on either", LIMIT, || Ok((director.peer()?.conns == 0).then_some(()))).unwrap();
    }
    scene.becomes_safe().unwrap();
    drop(sessions);
}

fn status(scene: &Scene, number: usize) -> Status {
    scene.pair.director(number).ctl(&["status"]).unwrap()
}

/// d1 is the better one and preempts. After a reboot it knows nothing, and says what it waits for.
#[test]
fn a_director_that_lacks_conns_does_not_preempt_and_says_why() {
    let scene = Scene::up(VrrpOptions::fast().preempt(), |agent, sync| (agent, sync)).unwrap();
    let lab = &scene.pair.lab;
    let mut sessions = Sessions::open(lab, 20).unwrap();
    scene.becomes_safe().unwrap();
    scene.pair.kill(0).unwrap();
    scene.pair.takes(1).unwrap();
    scene.pair.wipe(0).unwrap();

    let away = lab.lose_between_directors(Segment::Sync, Loss::All).unwrap();
    scene.pair.start(0).unwrap();
    // Many times as long as a director without this gate would wait.
    scene.pair.nothing_moves_for(Duration::from_secs(3)).unwrap();
    let vrrp = status(&scene, 0).vrrp.unwrap();
    assert_eq!((vrrp.role.as_str(), vrrp.priority), ("Backup", 101));
    let reason = vrrp.waits_for.expect("a reason");
    assert!(reason.contains("no session with the peer on the sync path") && reason.contains("at most"), "{reason}");
    let refused = scene.pair.director(1).lbctl(&["failover"]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("keeps its role") && said.contains("--force"), "{said}");
    let view = scene.pair.director(1).peer().unwrap();
    assert!(!view.safe.this && !view.safe.peer, "{}", view.safe.answer);

    away.end().unwrap();
    scene.pair.gets(0).unwrap();
    let status = status(&scene, 0);
    assert_eq!(status.vrrp.unwrap().cause, "the peer has a lower priority");
    assert!(status.tables.iter().any(|table| table.name == "conns" && table.entries >= 40), "{:?}", status.tables);
    sessions.answer().unwrap();
}

/// The wait has a bound: a director that cannot learn takes part all the same, and an alarm says so.
#[test]
fn a_director_that_cannot_learn_waits_no_longer_than_it_is_told_to() {
    let scene = Scene::up(VrrpOptions::fast().preempt(), |agent, sync| (agent, sync.extra("wait = \"2s\""))).unwrap();
    scene.pair.kill(0).unwrap();
    scene.pair.takes(1).unwrap();
    scene.pair.wipe(0).unwrap();
    let away = scene.pair.lab.lose_between_directors(Segment::Sync, Loss::All).unwrap();
    let started = now();
    scene.pair.start(0).unwrap();
    let took = scene.pair.gets(0).unwrap().saturating_duration_since(started);
    assert!(took >= Duration::from_secs(2), "it took over after {took:?}");
    let log = scene.pair.director(0).agent_log().unwrap();
    assert!(log.contains("unsynced"), "{log}");
    away.end().unwrap();
    scene.becomes_safe().unwrap();
}

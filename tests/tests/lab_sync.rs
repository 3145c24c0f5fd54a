//! Open MySQL sessions survive what happens to directors, and every answer is right: real servers, half of the sessions
//! idle, some with a query now and then, some with transactions. `LB_LONG=1` asks for a thousand sessions, ten failovers
//! in a row and longer disturbances.

use std::thread;

use lb_tests::lab::{Loss, Segment, SyncOptions, VrrpOptions};
use lb_tests::survival::{Event, Fleet, Report, Scene, Size};

/// Each director that goes comes back with nothing of what it knew: agent killed, programs and tables taken off. So
/// every failover but the first is a failback, too.
#[test]
fn open_sessions_survive_failovers_to_directors_that_have_just_lost_everything() {
    let size = Size::from_environment();
    let scene = Scene::up(VrrpOptions::fast(), |agent, sync| (agent, sync)).unwrap();
    let fleet = Fleet::open(&scene.pair.lab, size.sessions).unwrap();
    let mut report = Report::new("failover and failback");
    for number in 0..size.failovers {
        let event = Event::number(number);
        let from = scene.active().unwrap();
        let census = scene.fail_over(event, &fleet).unwrap_or_else(|error| panic!("{error:#}\n{}", report.text()));
        let back = if number == 0 { "" } else { ", back to a director that was wiped" };
        report.note(&format!("{:>2} {event} of d{}{back}", number + 1, from + 1), census);
    }
    scene.becomes_safe().unwrap();
    fleet.settle(&scene.pair.lab).unwrap();
    scene.pair.never_apart().unwrap();
    report.finish().unwrap();
}

/// The sync path is away, loses frames or jumbles them, while sessions come and go. When it is well again, either director
/// may go.
#[test]
fn open_sessions_survive_a_sync_path_that_is_away_or_loses_or_jumbles_frames_and_a_split() {
    let size = Size::from_environment();
    let scene = Scene::up(VrrpOptions::fast(), |agent, sync| (agent, sync)).unwrap();
    let lab = &scene.pair.lab;
    let mut fleet = Fleet::open(lab, size.sessions).unwrap();
    let mut report = Report::new("sync path and split");

    let census = scene.watch(&mut fleet, |scene, fleet| {
        let away = lab.lose_between_directors(Segment::Sync, Loss::All)?;
        let before = scene.pair.history()?.changes.len();
        fleet.renew_half()?;
        thread::sleep(size.outage);
        away.end()?;
        assert_eq!(scene.pair.history()?.changes.len(), before, "something moved:\n{}", scene.pair.told());
        scene.becomes_safe()
    });
    report.note("sync path away, half of the sessions renewed", census.unwrap());
    report.note("hand-over after that", scene.fail_over(Event::HandOver, &fleet).unwrap());

    for percent in [1, 10] {
        let lossy = lab.lose_between_directors(Segment::Sync, Loss::Percent(percent)).unwrap();
        fleet.renew_half().unwrap();
        let event = if percent == 1 { Event::Crash } else { Event::HandOver };
        let census = scene.fail_over(event, &fleet).unwrap_or_else(|error| panic!("{percent} %: {error:#}"));
        report.note(&format!("{event}, {percent} % loss on the sync path, half renewed"), census);
        scene.becomes_safe().unwrap();
        lossy.end().unwrap();
    }

    let jumble = lab.jumble_between_directors(Segment::Sync).unwrap();
    fleet.renew_half().unwrap();
    let census = scene.fail_over(Event::Crash, &fleet).unwrap_or_else(|error| panic!("jumbled: {error:#}"));
    report.note("kill -9, frames overtake each other and come twice, half renewed", census);
    scene.becomes_safe().unwrap();
    let jumbled = jumble.end().unwrap();
    assert!(jumbled.overtaken > 5 && jumbled.twice > 5, "{jumbled:?}");

    // The directors do not hear each other and both serve; everybody else hears both.
    let census = scene.watch(&mut fleet, |scene, fleet| {
        let active = scene.active()?;
        let cuts =
            [Segment::Client, Segment::Server].map(|segment| lab.lose_between_directors(segment, Loss::Multicast));
        let cut = lab.lose_between_directors(Segment::Sync, Loss::All)?;
        scene.pair.takes(1 - active)?;
        fleet.renew_half()?;
        thread::sleep(size.split);
        cuts.into_iter().try_for_each(|cut| cut?.end())?;
        cut.end()?;
        scene.active()?;
        scene.becomes_safe()
    });
    report.note("split of all segments, half renewed, and heal", census.unwrap());
    let last = scene.active().unwrap();
    scene.pair.answers_alone_soon(last).unwrap();
    report.note("hand-over after that", scene.fail_over(Event::HandOver, &fleet).unwrap());
    fleet.settle(lab).unwrap();
    report.finish().unwrap();
}

/// Without a group: a network between the directors that does not carry multicast.
#[test]
fn open_sessions_survive_with_connection_sync_over_unicast() {
    let size = Size::from_environment();
    let unicast = |agent, sync| (agent, SyncOptions { unicast: true, ..sync });
    let scene = Scene::up(VrrpOptions::fast(), unicast).unwrap();
    let _deaf = scene.pair.lab.lose_between_directors(Segment::Sync, Loss::Multicast).unwrap();
    let fleet = Fleet::open(&scene.pair.lab, size.sessions).unwrap();
    let mut report = Report::new("unicast");
    for event in [Event::Crash, Event::HandOver] {
        let census = scene.fail_over(event, &fleet).unwrap_or_else(|error| panic!("{error:#}\n{}", report.text()));
        report.note(&format!("{event}, sync over unicast"), census);
    }
    scene.becomes_safe().unwrap();
    fleet.settle(&scene.pair.lab).unwrap();
    report.finish().unwrap();
}

/// Without a key, because the config says so: it works, and nobody who looks can miss it.
#[test]
fn an_unprotected_sync_works_and_is_shown_as_such() {
    let open = |agent, sync| (agent, SyncOptions { key_file: None, ..sync });
    let scene = Scene::up(VrrpOptions::fast(), open).unwrap();
    let fleet = Fleet::open(&scene.pair.lab, 20).unwrap();
    let census = scene.fail_over(Event::Crash, &fleet).unwrap();
    assert_eq!((census.survived, census.sessions, census.wrong), (20, 20, 0), "{:?}", census.errors);
    scene.becomes_safe().unwrap();
    for director in scene.pair.lab.directors() {
        for question in ["status", "peer"] {
            let answer = director.lbctl(&[question]).unwrap();
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            assert!(text.contains("UNPROTECTED"), "{question}: {text}");
        }
        let log = director.agent_log().unwrap();
        assert!(log.contains("UNPROTECTED (insecure = true)"), "{log}");
    }
    fleet.settle(&scene.pair.lab).unwrap();
}

//! What a pair makes of a network that is broken in part. One silent path among living ones is a broken path, not a dead
//! peer: the roles stay, an alarm names the path, and it goes away with its cause. When all paths are cut, both serve,
//! and one gives way as soon as they hear of each other.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::checks::{Daemon, Pair, at_length};
use lb_tests::lab::{Disturbance, Host, Loss, Segment, VrrpOptions, Way, addr, now, wait_for};
use lb_userspace::control::protocol::Status;

const LIMIT: Duration = Duration::from_secs(20);

/// The alarms of a director: name and text.
fn alarms(pair: &Pair, number: usize) -> Result<Vec<(String, String)>> {
    let status: Status = pair.director(number).ctl(&["status"])?;
    let alarms = status.vrrp.context("an election")?.alarms;
    Ok(alarms.into_iter().map(|alarm| (alarm.name, alarm.text)).collect())
}

fn wait_for_alarm(pair: &Pair, number: usize, name: &str, about: &str) -> Result<()> {
    let mut seen = Vec::new();
    wait_for(&format!("alarm {name} about {about} at d{}", number + 1), LIMIT, || {
        seen = alarms(pair, number)?;
        Ok(seen.iter().any(|(known, text)| known == name && text.contains(about)).then_some(()))
    })
    .with_context(|| format!("{seen:?}"))
}

fn wait_for_no_alarm(pair: &Pair) -> Result<()> {
    for number in [0, 1] {
        wait_for("the end of all alarms", LIMIT, || Ok(alarms(pair, number)?.is_empty().then_some(())))
            .with_context(|| format!("d{}: {:?}", number + 1, alarms(pair, number)))?;
    }
    Ok(())
}

/// A path is broken in some way; d1 stays Active, d2 says what is wrong, and all is well when it is mended.
fn holds(pair: &Pair, what: &str, interface: &str, disturb: impl FnOnce() -> Result<Disturbance>) -> Result<()> {
    let changes = pair.history()?.changes.len();
    let broken = disturb()?;
    wait_for_alarm(pair, 1, "advert-path-broken", interface)?;
    pair.nothing_moves()?;
    broken.end()?;
    wait_for_no_alarm(pair)?;
    pair.answers_alone_soon(0)?;
    ensure!(pair.history()?.changes.len() == changes, "{what}: something moved:\n{}", pair.told());
    Ok(())
}

/// Whether a host of a segment gets an answer from the VIP there.
fn reaches(host: &Host, vip: &str) -> bool {
    host.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "1", vip]).unwrap().status.success()
}

#[test]
fn one_broken_path_moves_nothing_and_raises_an_alarm_that_names_it() {
    let pair = Pair::up([Daemon::Agent; 2], VrrpOptions::fast()).unwrap();
    let lab = &pair.lab;
    let (d1, d2, client2) = (lab.d1().host(), lab.d2().host(), lab.clients()[1].host());
    for (segment, interface) in [(Segment::Client, "ext0"), (Segment::Server, "int0")] {
        holds(&pair, "multicast is blocked", interface, || lab.lose_between_directors(segment, Loss::Multicast))
            .unwrap();
        holds(&pair, "the Active is not heard", interface, || lab.lose(d1, interface, Way::From, Loss::All)).unwrap();
        holds(&pair, "the Backup hears nothing", interface, || lab.lose(d2, interface, Way::To, Loss::All)).unwrap();
    }
    holds(&pair, "the switch splits", "ext0", || lab.split(Segment::Client, &[(d1, "ext0"), (client2, "eth0")]))
        .unwrap();
    assert_eq!(pair.history().unwrap().promotions(), 1, "{}", pair.told());
}

#[test]
fn cut_off_from_each_other_both_serve_and_one_gives_way_when_they_meet_again() {
    let pair = Pair::up([Daemon::Agent; 2], VrrpOptions::fast()).unwrap();
    let lab = &pair.lab;
    let (d1, client2, rs2) = (lab.d1().host(), lab.clients()[1].host(), lab.servers()[1].host());
    let cuts = [
        lab.split(Segment::Client, &[(d1, "ext0"), (client2, "eth0")]).unwrap(),
        lab.split(Segment::Server, &[(d1, "int0"), (rs2, "eth0")]).unwrap(),
        lab.split(Segment::Sync, &[(d1, "sync0")]).unwrap(),
    ];
    pair.takes(1).unwrap();
    thread::sleep(at_length(Duration::ZERO, Duration::from_secs(60)));
    // Each side has a client and a server that learn of the director on their side.
    let (vip, internal) = (addr::VIP.to_string(), addr::INTERNAL_VIP.to_string());
    let hosts = [(lab.client().host(), &vip), (client2, &vip), (lab.servers()[0].host(), &internal), (rs2, &internal)];
    for (host, vip) in hosts {
        assert!(reaches(host, vip), "{} during the split", host.name());
    }
    for cut in cuts {
        cut.end().unwrap();
    }
    let ended = now();
    let winner = wait_for("one Active", LIMIT, || pair.watch.active())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.told()));
    assert_eq!(winner, 0, "the higher priority");
    // The neighbours of the other side are told of the right director, long before their entry gets old.
    for (host, vip) in hosts {
        let expected = lab.d1().address(if *vip == addr::VIP.to_string() { Segment::Client } else { Segment::Server });
        let mac = addr::link(expected.unwrap()).map(|byte| format!("{byte:02x}")).join(":");
        // Linux believes no second answer within a second of the first (`locktime`): the repeated burst gets through.
        let knows = || host.check(&["ip", "neigh", "show", "to", vip]).map(|known| known.contains(&mac).then_some(()));
        wait_for(&format!("{mac} as {vip} at {}", host.name()), LIMIT, knows).unwrap();
        // The director may be looking for the host just then, as it did in vain before: its kernel asks once a second.
        let reached = || Ok(reaches(host, vip).then_some(()));
        wait_for(&format!("{} after the split", host.name()), LIMIT, reached).unwrap();
        println!("{} reaches {vip} {:?} after the cuts have ended", host.name(), now() - ended);
    }
    pair.answers_alone(0).unwrap();
    pair.nothing_moves().unwrap();
    wait_for_no_alarm(&pair).unwrap();
    pair.never_apart().unwrap();
}

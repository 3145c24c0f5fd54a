//! A director that is busy is not dead: nothing else on the machine may cost it its role, neither all CPUs taken nor a
//! disk that has stopped answering.

use std::time::Duration;

use lb_tests::checks::{Daemon, Pair, at_length};
use lb_tests::lab::{Loss, Segment, SlowLog, VrrpOptions, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);

fn length() -> Duration {
    at_length(Duration::from_secs(3), Duration::from_secs(10))
}

/// The lines of a director's log that reached the disk.
fn told(pair: &Pair, number: usize) -> String {
    std::fs::read_to_string(pair.director(number).host().directory().join("agent.read.log")).unwrap()
}

#[test]
fn taken_cpus_and_a_stalled_disk_change_no_role() {
    let pair = Pair::new([Daemon::Agent; 2], VrrpOptions::fast()).unwrap();
    let mut logs: Vec<_> = pair.lab.directors().iter().map(|director| SlowLog::put_under(director).unwrap()).collect();
    pair.start(0).unwrap();
    pair.gets(0).unwrap();
    pair.start(1).unwrap();
    pair.nothing_moves().unwrap();

    let cpus = std::thread::available_parallelism().unwrap().get();
    let hogs = pair.lab.hog(cpus * 3).unwrap();
    pair.nothing_moves_for(length()).unwrap();
    drop(hogs);

    logs.iter_mut().for_each(|log| log.stall().unwrap());
    // d2 has something to tell now, and waits for its log.
    let blocked = pair.lab.lose_between_directors(Segment::Client, Loss::Multicast).unwrap();
    pair.nothing_moves_for(length()).unwrap();
    pair.answers_alone(0).unwrap();
    assert!(!told(&pair, 1).contains("advert-path-broken"), "the log was not stalled");
    blocked.end().unwrap();
    // d1 is to go, and says so. The peer does not wait until that is written.
    pair.lab.d1().signal_agent(Signal::SIGTERM).unwrap();
    pair.gets(1).unwrap();
    logs.iter_mut().for_each(SlowLog::go_on);
    pair.stop(0).unwrap();
    wait_for("the line that had to wait", LIMIT, || Ok(told(&pair, 1).contains("advert-path-broken").then_some(())))
        .unwrap();
    pair.nothing_moves().unwrap();
    assert_eq!(pair.history().unwrap().promotions(), 2, "{}", pair.told());
}

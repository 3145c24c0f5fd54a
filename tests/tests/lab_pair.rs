//! Two directors elect one Active: started cold together, handed over, killed, frozen and thawed. Who holds the VIPs is
//! the kernels' word, who answers for them is what every neighbour hears.

use std::thread;
use std::time::Duration;

use lb_tests::checks::{Daemon, Pair, at_length};
use lb_tests::lab::{Adverts, Knocks, Segment, VrrpOptions, addr, now, wait_for};
use lb_userspace::control::protocol::{FailoverAnswer, Status};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_millis(200);

fn role(pair: &Pair, number: usize) -> String {
    let status: Status = pair.director(number).ctl(&["status"]).unwrap();
    status.vrrp.expect("an election").role
}

#[test]
fn of_two_directors_that_start_cold_together_one_becomes_active_with_both_vips_every_time() {
    let times = at_length(8, 100);
    let pair = Pair::new([Daemon::Agent; 2], VrrpOptions::fast()).unwrap();
    let mut won = [0; 2];
    for time in 1..=times {
        thread::scope(|scope| {
            let starts = [0, 1].map(|number| {
                scope.spawn({
                    let pair = &pair;
                    move || pair.start(number).unwrap()
                })
            });
            starts.into_iter().for_each(|start| start.join().unwrap());
        });
        let active = wait_for("one Active", LIMIT, || pair.watch.active());
        let active = active.unwrap_or_else(|error| panic!("start {time}: {error:#}\n{}", pair.told()));
        pair.nothing_moves().unwrap_or_else(|error| panic!("start {time}: {error:#}"));
        assert_eq!([role(&pair, active), role(&pair, 1 - active)], ["Active", "Backup"], "start {time}");
        pair.answers_alone(active).unwrap_or_else(|error| panic!("start {time}: {error:#}"));
        pair.never_apart().unwrap();
        won[active] += 1;
        [0, 1].into_iter().for_each(|number| pair.wipe(number).unwrap());
    }
    println!("{times} cold starts: d1 won {}, d2 won {}", won[0], won[1]);
}

/// A killed or frozen agent cannot take its addresses off. Its packet path does not answer for them any more.
#[test]
fn the_role_moves_by_hand_over_death_and_frost_and_one_director_answers_arp() {
    let pair = Pair::up([Daemon::Agent; 2], VrrpOptions::fast()).unwrap();
    let (d1, d2) = (pair.lab.d1(), pair.lab.d2());
    // The host firewalls let nothing in from here on, adverts neither.
    [d1, d2].into_iter().for_each(|director| director.firewall_default_drop().unwrap());
    pair.nothing_moves().unwrap();
    pair.answers_alone(0).unwrap();
    let knocks = Knocks::start(pair.lab.client(), addr::SERVICE).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();

    let stopped = now();
    pair.stop(0).unwrap();
    pair.gets(1).unwrap();
    let calm = knocks.wait_for_calm(CALM, LIMIT).unwrap();
    pair.answers_alone(1).unwrap();
    pair.restart(0).unwrap();
    pair.nothing_moves().unwrap();
    assert_eq!([role(&pair, 0), role(&pair, 1)], ["Backup", "Active"]);

    let asked = now();
    let answer: FailoverAnswer = d2.ctl(&["failover"]).unwrap();
    pair.gets(0).unwrap();
    let calm_again = knocks.wait_for_calm(CALM, LIMIT).unwrap();
    pair.nothing_moves().unwrap();
    assert_eq!((answer.steps.len(), [role(&pair, 0), role(&pair, 1)]), (1, ["Active".to_owned(), "Backup".to_owned()]));

    let killed = now();
    d1.kill_agent().unwrap();
    pair.takes(1).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();
    pair.answers_alone_soon(1).unwrap();
    // From then on, whoever asks and however often.
    for _ in 0..5 {
        pair.answers_alone(1).unwrap();
    }
    let knocks = knocks.stop().unwrap();
    println!(
        "without an answer: SIGTERM {:?}, lbctl failover {:?}, kill -9 {:?}",
        knocks.between(stopped, calm).gap(stopped),
        knocks.between(asked, calm_again).gap(asked),
        knocks.gap(killed)
    );
    pair.restart(0).unwrap();
    pair.gets(1).expect("the restarted agent takes off what the killed one left");
    pair.nothing_moves().unwrap();

    let adverts = Adverts::listen(pair.lab.client()).unwrap();
    d2.signal_agent(Signal::SIGSTOP).unwrap();
    pair.takes(0).unwrap();
    pair.answers_alone_soon(0).unwrap();
    for _ in 0..at_length(5, 60) {
        pair.answers_alone(0).unwrap();
    }
    let thawed = now();
    d2.signal_agent(Signal::SIGCONT).unwrap();
    pair.gets(0).unwrap();
    pair.answers_alone(0).unwrap();
    pair.nothing_moves().unwrap();
    let said = adverts.of(d2.address(Segment::Client).unwrap(), thawed);
    assert!(said.iter().all(|advert| advert.priority == 0), "the thawed agent speaks as Active: {said:?}");
    assert!(!adverts.of(d1.address(Segment::Client).unwrap(), thawed).is_empty(), "the Active speaks");
    assert_eq!([role(&pair, 0), role(&pair, 1)], ["Active", "Backup"]);
    pair.never_apart().unwrap();
}

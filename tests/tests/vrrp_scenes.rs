//! The scenes that operators fear most, each in many simulated worlds that differ in phase, delay and luck.

use std::time::Duration;

use lb_tests::chance::Chance;
use lb_tests::sim::{EXT, Fault, INT, SYNC, Setup, Sleep, World};
use lb_userspace::{
    ha::{Alarm, Input},
    vrrp::Version,
};

const WORLDS: u64 = 200;
const MINUTE: Duration = Duration::from_secs(60);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn v2() -> Setup {
    Setup::classic(Version::V2, 100)
}

fn v3() -> Setup {
    Setup::classic(Version::V3, 10)
}

fn v3_with_heartbeat() -> Setup {
    Setup { heartbeat: true, ..v3() }
}

/// A pair that runs for a while: the host that started first is Active, and it is any moment between two adverts.
fn pair(setup: Setup, seed: u64) -> World {
    let mut chance = Chance::new(seed);
    let interval = setup.longest_interval();
    let mut world = World::new(setup, Chance::new(!seed));
    world.start(0, Duration::ZERO);
    world.start(1, interval * 5);
    world.run(interval * 20);
    world.run(chance.between(Duration::ZERO, interval * 3));
    world.whole();
    assert_eq!((world.actives(), law(&world)), (vec![0], None));
    world.hosts.iter_mut().for_each(|host| host.alarms.clear());
    world
}

fn law(world: &World) -> Option<&str> {
    world.violation.as_deref()
}

/// How long the VIPs were nobody's, in the worst world.
fn worst_gap(setup: &Setup, fault: &Fault) -> Duration {
    let gap = |seed| {
        let mut world = pair(setup.clone(), seed);
        world.inflict(0, fault);
        let served = |world: &World| world.hosts[1].serves(EXT) && world.hosts[1].serves(INT);
        let gap = world.run_until(MINUTE, served).expect("a successor");
        world.run(MINUTE);
        assert_eq!((world.actives(), law(&world)), (vec![1], None), "seed {seed}: nothing moves back");
        assert_eq!(world.longest_dual, Duration::ZERO, "seed {seed}");
        gap
    };
    let worst = (0..WORLDS).map(gap).max().unwrap_or_default();
    println!("{fault:?}, {:?} {:?}: {worst:?}", setup.version, setup.longest_interval());
    worst
}

#[test]
fn a_clean_stop_costs_one_trip_through_the_network() {
    for setup in [v2(), v3(), v3_with_heartbeat()] {
        assert!(worst_gap(&setup, &Fault::Stop(MINUTE / 2)) < ms(1));
    }
}

#[test]
fn a_crash_costs_what_the_protocol_needs_to_notice() {
    for crash in [Fault::Kill(MINUTE / 2), Fault::Reboot(MINUTE / 2)] {
        assert!(worst_gap(&v2(), &crash) < ms(3_700));
        assert!(worst_gap(&v3(), &crash) < ms(400));
        assert!(worst_gap(&v3_with_heartbeat(), &crash) < ms(250));
        let classic_with_heartbeat = Setup { heartbeat: true, ..v2() };
        assert!(worst_gap(&classic_with_heartbeat, &crash) < ms(2_200));
    }
}

#[test]
fn a_link_that_goes_down_costs_one_trip_and_both_vips_move() {
    for segment in [EXT, INT] {
        let down = Fault::Input(Input::Link { transport: segment, up: false });
        // The other segment carries the news.
        assert!(worst_gap(&v2(), &down) < ms(1));
        assert!(worst_gap(&v3(), &down) < ms(1));
    }
    let broken = Fault::Input(Input::Check { check: 0, ok: false });
    assert!(worst_gap(&v3(), &broken) < ms(1));
}

#[test]
fn both_directors_started_at_once_give_one_active_with_both_vips() {
    for priority in [[101, 100], [100, 101], [100, 100]] {
        for crossed in [false, true] {
            for base in [v2(), v3(), v3_with_heartbeat()] {
                for seed in 0..100 {
                    let setup = Setup { priority, crossed, ..base.clone() };
                    let interval = setup.longest_interval();
                    let mut world = World::new(setup, Chance::new(seed));
                    world.start(0, Duration::ZERO);
                    world.start(1, Duration::ZERO);
                    world.whole();
                    world.run(interval * 5);
                    let [winner] = world.actives()[..] else { panic!("{:?}: {:?}", world.actives(), world.setup) };
                    assert_eq!(law(&world), None, "{:?}", world.setup);
                    // Between equals, and where a heartbeat tells before a timer runs out, the first one wins.
                    let decided = priority[0] != priority[1] && !world.setup.heartbeat;
                    assert!(!decided || winner == usize::from(priority[1] > priority[0]), "{:?}", world.setup);
                    assert_eq!(world.believed, [Some(winner); 2]);
                    // Equal routers fire at the same time, and then their adverts cross. At 10 cs, neighbouring
                    // priorities are 0.4 ms apart, which is less than a packet may take.
                    let apart = priority[0] != priority[1] && world.setup.version == Version::V2;
                    let crossing = if apart { Duration::ZERO } else { ms(2) };
                    assert!(world.longest_dual <= crossing, "{:?}", world.longest_dual);
                    let changes = world.changes();
                    world.run(MINUTE);
                    assert_eq!((world.changes(), law(&world)), (changes, None));
                }
            }
        }
    }
}

/// Breaks something for a minute and wants nothing to move; returns the alarms of both hosts.
fn nothing_moves(setup: Setup, seed: u64, break_it: impl Fn(&mut World)) -> [Vec<Alarm>; 2] {
    let mut world = pair(setup, seed);
    let changes = world.changes();
    break_it(&mut world);
    world.run(MINUTE);
    assert_eq!((world.actives(), world.changes(), law(&world)), (vec![0], changes, None), "seed {seed}");
    let alarms = world.hosts.each_ref().map(|host| host.alarms.clone());
    world.net.heal();
    world.run(MINUTE);
    assert_eq!((world.actives(), world.changes(), law(&world)), (vec![0], changes, None), "seed {seed}");
    assert_eq!(world.believed, [Some(0); 2]);
    assert_eq!(world.longest_dual, Duration::ZERO);
    alarms
}

#[test]
fn a_segment_that_is_cut_moves_nothing_and_is_named() {
    for setup in [v2(), v3(), v3_with_heartbeat(), Setup { priority: [100, 101], ..v3() }] {
        for segment in [EXT, INT] {
            for seed in 0..20 {
                let cut = |world: &mut World| world.net.set_joined(segment, false);
                let [active, backup] = nothing_moves(setup.clone(), seed, cut);
                assert_eq!((active, backup), (vec![], vec![Alarm::AdvertPath { transport: segment }]));
            }
        }
    }
}

#[test]
fn one_way_loss_on_a_segment_moves_nothing() {
    for segment in [EXT, INT] {
        for from in [0, 1] {
            for seed in 0..20 {
                let cut = |world: &mut World| world.net.set_open(segment, from, 1 - from, false);
                let [active, backup] = nothing_moves(v3(), seed, cut);
                // A Backup is silent: that nobody hears it is no news.
                let expected = if from == 0 { vec![Alarm::AdvertPath { transport: segment }] } else { vec![] };
                assert_eq!((active, backup), (vec![], expected));
            }
        }
    }
}

#[test]
fn multicast_filtered_everywhere_moves_nothing_as_long_as_heartbeats_arrive() {
    for seed in 0..20 {
        let [_, backup] = nothing_moves(v3_with_heartbeat(), seed, |world| {
            world.net.set_joined(EXT, false);
            world.net.set_joined(INT, false);
        });
        assert_eq!(backup, [EXT, INT].map(|transport| Alarm::AdvertPath { transport }));
    }
}

#[test]
fn a_cut_sync_path_moves_nothing_and_both_say_so() {
    for setup in [v3_with_heartbeat(), Setup { heartbeat: true, ..v2() }] {
        for seed in 0..20 {
            let alarms = nothing_moves(setup.clone(), seed, |world| world.net.set_joined(SYNC, false));
            assert_eq!(alarms, [[Alarm::Heartbeat], [Alarm::Heartbeat]]);
        }
    }
}

#[test]
fn ten_percent_loss_on_every_segment_moves_nothing() {
    for seed in 0..100 {
        nothing_moves(v3(), seed, |world| {
            for segment in [EXT, INT] {
                for from in [0, 1] {
                    world.net.set_loss(segment, from, 1 - from, 100);
                }
            }
        });
    }
}

#[test]
fn a_busy_machine_moves_nothing() {
    // Both stand still again and again, the Active for up to two intervals more than it should.
    for setup in [v2(), v3()] {
        for seed in 0..WORLDS {
            let mut world = pair(setup.clone(), seed);
            let mut chance = Chance::new(seed);
            let (interval, changes) = (setup.longest_interval(), world.changes());
            for _ in 0..100 {
                for host in [0, 1] {
                    let time = chance.between(Duration::ZERO, interval * 19 / 10);
                    world.inflict(host, &Fault::Sleep(Sleep::Process, time));
                }
                world.run(interval * 3);
            }
            assert_eq!((world.actives(), world.changes(), law(&world)), (vec![0], changes, None), "seed {seed}");
        }
    }
}

#[test]
fn a_director_that_stood_still_for_30_s_finds_its_successor_and_yields() {
    for setup in [v2(), v3(), v3_with_heartbeat(), Setup { priority: [254, 1], ..v3() }] {
        for kind in [Sleep::Process, Sleep::Machine] {
            for seed in 0..50 {
                let mut world = pair(setup.clone(), seed);
                let changes = world.changes();
                world.inflict(0, &Fault::Sleep(kind, ms(30_000)));
                world.run(MINUTE);
                assert_eq!((world.actives(), law(&world)), (vec![1], None), "{kind:?}, seed {seed}");
                assert_eq!(world.changes(), changes + 2, "one up, one down");
                assert_eq!((world.longest_dual, world.believed), (Duration::ZERO, [Some(1); 2]));
            }
        }
    }
}

#[test]
fn a_split_of_everything_heals_to_one_active_that_everybody_knows() {
    for setup in [v2(), v3(), v3_with_heartbeat(), Setup { priority: [100, 100], crossed: true, ..v3() }] {
        for seed in 0..50 {
            let mut world = pair(setup.clone(), seed);
            world.broken();
            for segment in [EXT, INT, SYNC] {
                world.net.set_joined(segment, false);
            }
            world.run(MINUTE);
            assert_eq!(world.actives(), [0, 1], "nobody can know");
            world.net.heal();
            world.whole();
            let one = |world: &World| world.actives().len() == 1;
            let healed = world.run_until(MINUTE, one).expect("one of them yields");
            assert!(healed <= setup.longest_interval() + ms(2), "{healed:?}");
            let active = world.actives();
            world.run(setup.longest_interval());
            assert_eq!(
                world.believed,
                [active.first().copied(); 2],
                "the neighbours know at once: seed {seed} of {setup:?}"
            );
            world.run(MINUTE);
            assert_eq!((world.actives(), law(&world)), (active, None));
        }
    }
}

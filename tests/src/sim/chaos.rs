//! A world in which everything goes wrong for a while, and then nothing any more.

use std::time::Duration;

use lb_userspace::{
    ha::{GateState, Input},
    vrrp::{Version, interval::Interval, machine::Preempt},
};

use super::{Chance, EXT, Fault, INT, SYNC, Setup, Sleep, World};

/// Plays a world to its end; `Err`: the law that was broken, and how it came to that.
///
/// # Errors
///
/// A law was broken.
pub fn chaos(seed: u64, foreign: bool) -> Result<World, String> {
    let world = play(seed, foreign, false);
    match &world.violation {
        None => Ok(world),
        Some(_) => {
            // Once more, and now with a witness.
            let mut world = play(seed, foreign, true);
            let (trace, law) = (world.trace.take().unwrap_or_default(), world.violation.unwrap_or_default());
            let story: Vec<String> = trace.into_iter().filter(|line| !line.contains("advertises")).collect();
            let last = story[story.len().saturating_sub(60)..].join("\n");
            Err(format!("seed {seed}: {law}\n{:?}\n{last}", world.setup))
        }
    }
}

fn setup(chance: &mut Chance, foreign: bool) -> Setup {
    let version = chance.choose(&[Version::V2, Version::V3, Version::V3]);
    let centis = if version == Version::V2 { 100 } else { chance.choose(&[5, 10, 20, 100]) };
    let mut setup = Setup::classic(version, centis);
    if version == Version::V3 && chance.permille(200) {
        // The other one has another interval: legal, and adopted.
        setup.interval[1] = Interval::new(version, centis * 2).expect("an interval");
    }
    setup.priority = chance.choose(&[[101, 100], [100, 101], [100, 100], [254, 1], [1, 254]]);
    let some = [Preempt::Never, Preempt::After(Duration::ZERO), Preempt::After(Duration::from_millis(700))];
    // Mostly what most people have.
    setup.preempt =
        if chance.permille(500) { [Preempt::Never; 2] } else { [chance.choose(&some), chance.choose(&some)] };
    setup.crossed = chance.permille(300);
    setup.heartbeat = !foreign && chance.permille(500);
    setup.foreign = foreign;
    let longest = Duration::from_micros(100 + chance.below(4000));
    setup.delay = (Duration::from_micros(20), longest);
    setup
}

fn play(seed: u64, foreign: bool, trace: bool) -> World {
    let mut chance = Chance::new(seed);
    let setup = setup(&mut chance, foreign);
    let interval = setup.longest_interval();
    let mut world = World::new(setup, Chance::new(!seed));
    world.trace = trace.then(Vec::new);
    for host in 0..2 {
        // Often at the very same instant.
        let after = if chance.permille(300) { Duration::ZERO } else { chance.between(Duration::ZERO, interval * 6) };
        world.start(host, after);
    }
    for _ in 0..chance.below(12) {
        let pause = chance.between(Duration::ZERO, interval * 8);
        world.run(pause);
        if world.violation.is_some() {
            return world;
        }
        disturb(&mut world, &mut chance, interval);
    }
    // Whatever still sleeps or restarts comes back.
    world.net.heal();
    for host in 0..2 {
        for transport in [EXT, INT] {
            mend(&mut world, host, Input::Link { transport, up: true });
        }
        mend(&mut world, host, Input::Check { check: 0, ok: true });
        mend(&mut world, host, Input::Gate(GateState::Open));
    }
    world.run(interval * 12);
    for host in 0..2 {
        // Also those that slept when the others were mended.
        for transport in [EXT, INT] {
            mend(&mut world, host, Input::Link { transport, up: true });
        }
        mend(&mut world, host, Input::Check { check: 0, ok: true });
    }
    if world.violation.is_some() {
        return world;
    }
    world.say(|| "all is well".into());
    world.whole();
    settle(&mut world, interval);
    world
}

/// What holds when all is well for long enough: one Active, for good, with both VIPs, and everybody knows.
fn settle(world: &mut World, interval: Duration) {
    let delays = world.setup.preempt.iter().map(|preempt| match preempt {
        Preempt::Never => Duration::ZERO,
        Preempt::After(delay) => *delay,
    });
    let patience = interval * 25 + delays.max().unwrap_or_default();
    world.run(patience);
    let (actives, changes) = (world.actives(), world.changes());
    if actives.len() != 1 {
        world.violation.get_or_insert(format!("{} Actives after {patience:?}", actives.len()));
    }
    // Long enough for a refresh: a foreign loser is silent.
    world.run(interval * 40 + Duration::from_secs(11));
    if world.actives() != actives || world.changes() != changes {
        let changes = world.changes() - changes;
        world.violation.get_or_insert(format!("the role moved {changes} times although all is well"));
    }
    let active = actives.first().copied();
    // A plain router tells it only when it becomes Active, and some may be deaf then.
    let tells = !world.setup.foreign || active == Some(0);
    if tells && world.believed != [active; 2] {
        let believed = world.believed;
        world.violation.get_or_insert(format!("the neighbours believe in {believed:?}, but {active:?} is Active"));
    }
    for host in 0..2 {
        for segment in [EXT, INT] {
            if world.hosts[host].serves(segment) != (active == Some(host)) {
                world
                    .violation
                    .get_or_insert(format!("host {host}, segment {segment}: the VIP is not where it belongs"));
            }
        }
    }
}

fn mend(world: &mut World, host: usize, input: Input) {
    if let Input::Link { transport, up } = input {
        if world.hosts[host].links[transport] == up {
            return;
        }
        // A sleeper finds its link up when it wakes; its kernel tells it then.
        if world.hosts[host].asleep.is_some() || !world.hosts[host].up {
            return;
        }
    }
    world.inflict(host, &Fault::Input(input));
}

fn disturb(world: &mut World, chance: &mut Chance, interval: Duration) {
    let host = chance.below(2) as usize;
    let segment = chance.choose(&[EXT, INT, EXT, INT, SYNC]);
    let short = chance.between(Duration::ZERO, interval * 2);
    let long = chance.between(Duration::ZERO, interval * 10);
    match chance.below(14) {
        0 => world.net.set_joined(segment, false),
        1 => world.net.set_open(segment, host, 1 - host, false),
        2 => {
            for segment in [EXT, INT, SYNC] {
                world.net.set_joined(segment, false);
            }
        }
        3 => world.net.heal(),
        4 => {
            let loss = chance.choose(&[10, 100, 300, 700]);
            for (segment, from, to) in [(segment, host, 1 - host), (segment, host, super::NEIGHBOURS)] {
                world.net.set_loss(segment, from, to, loss);
            }
        }
        5 => world.inflict(host, &Fault::Sleep(Sleep::Process, short)),
        6 => world.inflict(host, &Fault::Sleep(Sleep::Process, long)),
        7 => world.inflict(host, &Fault::Sleep(Sleep::Machine, long)),
        8 => world.inflict(host, &Fault::Kill(long)),
        9 => world.inflict(host, &Fault::Reboot(long)),
        10 => world.inflict(host, &Fault::Stop(long)),
        11 => {
            let up = !world.hosts[host].links[segment % 2];
            world.inflict(host, &Fault::Input(Input::Link { transport: segment % 2, up }));
        }
        12 => {
            let ok = chance.permille(500);
            world.inflict(host, &Fault::Input(Input::Check { check: 0, ok }));
        }
        _ => {
            let closed = GateState::Closed { reason: "bulk".into(), bound: interval * 10 };
            let input = if chance.permille(500) { Input::HandOver } else { Input::Gate(closed) };
            world.inflict(host, &Fault::Input(input));
        }
    }
}

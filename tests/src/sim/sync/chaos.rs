//! A world in which everything goes wrong for a while, and then nothing any more.

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use lb_common::tcp::State;
use lb_userspace::sync::{Key, State as Progress};

use super::{Line, Setup, World, world::CLIENTS};
use crate::chance::Chance;

/// What kind of world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All faults.
    Everything,
    /// Conns that are silent for longer than their time, as far as one director knows.
    Lease,
    /// Rings that lose most of what they are told.
    Deaf,
    /// No room to remember what has ended.
    Forgetful,
}

/// Plays a world to its end; `Err`: the law that was broken, and how it came to that.
///
/// # Errors
///
/// A law was broken.
pub fn chaos(seed: u64, kind: Kind) -> Result<World, String> {
    let world = play(seed, kind, false);
    match &world.violation {
        None => Ok(world),
        Some(_) => {
            // Once more, and now with a witness.
            let mut world = play(seed, kind, true);
            let (trace, law) = (world.trace.take().unwrap_or_default(), world.violation.unwrap_or_default());
            let last = trace[trace.len().saturating_sub(1200)..].join("\n");
            Err(format!("seed {seed}: {law}\n{last}"))
        }
    }
}

fn long(state: State) -> Duration {
    match state {
        State::Established | State::SynRecv => Duration::from_secs(60),
        State::FinWait | State::CloseWait => Duration::from_secs(4),
        State::TimeWait => Duration::from_secs(2),
        State::Close => Duration::from_secs(1),
    }
}

fn short(state: State) -> Duration {
    match state {
        State::Established | State::SynRecv => Duration::from_secs(5),
        state => long(state),
    }
}

fn setup(chance: &mut Chance, kind: Kind) -> Setup {
    let mut setup = Setup::new(if kind == Kind::Lease { short } else { long });
    setup.site.heartbeat = Duration::from_millis(chance.choose(&[20, 50, 50, 200]));
    setup.site.datagram = chance.choose(&[512, 1472, 1472, 8972]);
    setup.site.refresh = Duration::from_millis(chance.choose(&[500, 1000, 3000]));
    match kind {
        Kind::Everything => setup.site.ring = chance.choose(&[8, 64, 1024]),
        Kind::Lease => setup.site.refresh = Duration::from_millis(600),
        Kind::Deaf => setup.site.ring = 1,
        Kind::Forgetful => setup.site.ends = 2,
    }
    setup
}

fn play(seed: u64, kind: Kind, trace: bool) -> World {
    let mut chance = Chance::new(seed);
    let setup = setup(&mut chance, kind);
    let mut world = World::new(setup, !seed);
    world.trace = trace.then(Vec::new);
    for director in 0..2 {
        let after = chance.between(Duration::ZERO, Duration::from_millis(500));
        world.start_director(director, after);
    }
    let steps = 100 + chance.below(300);
    let faults = chance.choose(&[10, 30, 100]);
    for _ in 0..steps {
        let pause = chance.between(Duration::ZERO, Duration::from_millis(if kind == Kind::Lease { 150 } else { 40 }));
        world.run(pause);
        if world.violation.is_some() {
            return world;
        }
        if chance.permille(faults) {
            disturb(&mut world, &mut chance);
        } else {
            act(&mut world, &mut chance);
        }
    }
    world.say(|| "all is well".into());
    world.lines = [Line::good(); 2];
    world.route = [[chance.below(2) as usize; 2]; CLIENTS];
    settle(&mut world);
    world
}

/// Clients do what clients do.
fn act(world: &mut World, chance: &mut Chance) {
    let client = chance.below(CLIENTS as u64) as usize;
    match (world.conns[client], chance.below(10)) {
        (None, _) => {
            // A port rests before it is used again.
            let rested = world.closed[client].is_none_or(|at| world.now() - at > Duration::from_secs(1));
            if rested {
                world.open(client);
            }
        }
        (Some(_), 0 | 1) => world.close(client, false),
        (Some(_), 2) => world.close(client, true),
        (Some(_), _) => world.speak(client),
    }
}

fn disturb(world: &mut World, chance: &mut Chance) {
    let director = chance.below(2) as usize;
    let time = chance.between(Duration::from_millis(1), Duration::from_secs(2));
    match chance.below(12) {
        0 => world.reboot(director, time),
        1 => world.restart_agent(director, time / 8),
        2 => world.sleep(director, time),
        3 => world.sleep(director, time / 20),
        4 => {
            world.say(|| "the line is cut".into());
            world.lines.iter_mut().for_each(|line| line.open = false);
        }
        5 => world.lines[director].open = false,
        6 | 7 => {
            world.say(|| "the line is well".into());
            world.lines = [Line::good(); 2];
        }
        8 => {
            let (loss, twice, detour) =
                (chance.choose(&[10, 100, 300]), chance.choose(&[0, 100]), chance.choose(&[0, 100, 500]));
            for line in &mut world.lines {
                *line = Line { loss, twice, detour, ..*line };
            }
        }
        9 => {
            // Both VIPs move.
            world.say(|| format!("everything goes by {director}"));
            world.route = [[director; 2]; CLIENTS];
        }
        10 => {
            // Not everybody hears of it, or not at once.
            for route in &mut world.route {
                if chance.permille(500) {
                    route[chance.below(2) as usize] = director;
                }
            }
        }
        _ => world.drain(director),
    }
}

/// What holds when all is well for long enough.
fn settle(world: &mut World) {
    // Whatever was away comes back, whatever is over goes.
    world.run(Duration::from_secs(3));
    let Some(_) = world.run_until(Duration::from_secs(12), World::is_equal) else {
        let states = [0, 1].map(|d| format!("{:?}", world.directors[d].core.status()));
        world.violated(format!("the directors do not agree: {states:#?}"));
        return;
    };
    world.run(Duration::from_secs(6));
    if world.violation.is_some() {
        return;
    }
    if !world.is_equal() {
        let states: [Progress; 2] = [0, 1].map(|d| world.directors[d].core.state());
        world.violated(format!("the directors do not agree any more: {states:?}"));
        return;
    }
    let tables: Vec<BTreeMap<Key, (u32, SocketAddrV4, u16, State)>> = world
        .directors
        .iter()
        .map(|director| {
            let entries = director.table.entries.iter();
            entries.map(|(key, e)| (*key, (e.identity, e.backend, e.client_port, e.state()))).collect()
        })
        .collect();
    if tables[0] != tables[1] {
        world.violated(format!("the tables are not equal: {:#?}", (&tables[0], &tables[1])));
        return;
    }
    for (d, director) in world.directors.iter().enumerate() {
        let known: BTreeMap<Key, (SocketAddrV4, u16, State)> =
            director.core.conns().map(|c| (c.key, (c.backend, c.client_port, c.state()))).collect();
        let there: BTreeMap<_, _> = tables[d].iter().map(|(key, e)| (*key, (e.1, e.2, e.3))).collect();
        if known != there {
            world.violated(format!("{d} does not know its own table"));
            return;
        }
    }
    let now = world.now();
    let patience = (world.setup.patience)(State::Established);
    let mut wrong = Vec::new();
    for (identity, life) in world.truth.all() {
        let entry = tables[0].get(&life.key).filter(|entry| entry.0 == identity);
        if life.open && !life.excused && now - life.used() < patience && entry.is_none() {
            wrong.push(format!("{identity} is open, and nobody has it"));
        }
        let known_over = life.over.contains(&true) && !life.excused;
        if !life.open && known_over && entry.is_some_and(|entry| entry.3 == State::Established) {
            wrong.push(format!("{identity} was closed, and is established still"));
        }
    }
    if let Some(first) = wrong.first() {
        world.violated(first.clone());
    }
    let bound = 4 << 20;
    if world.most_bytes > bound {
        let most = world.most_bytes;
        world.violated(format!("a core held {most} bytes for {CLIENTS} clients"));
    }
}

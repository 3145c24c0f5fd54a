//! The world: two directors, their line, the clients, the clock, and the laws.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use lb_common::tcp::{State, flag};
use lb_userspace::sync::{Input, Key, State as Progress, Timeouts, Write};

use super::{
    agent::{Director, Effect, Site},
    line::Line,
    table::Entry,
    truth::Truth,
};
use crate::{chance::Chance, sim::queue::Queue};

/// How often an agent reads its ring.
const STEP: Duration = Duration::from_millis(5);
/// How often it removes what is over.
const SWEEP: Duration = Duration::from_millis(250);
/// Clients, each with one port.
pub(super) const CLIENTS: usize = 40;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The directors.
    pub site: Site,
    /// When a conn in each state is over.
    pub patience: fn(State) -> Duration,
}

impl Setup {
    /// A service with three backends.
    #[must_use]
    pub fn new(patience: fn(State) -> Duration) -> Self {
        let address = |a, b, port| SocketAddrV4::new(Ipv4Addr::new(192, 168, a, b), port);
        let site = Site {
            vip: SocketAddrV4::new(Ipv4Addr::new(10, 80, 1, 243), 3306),
            backends: vec![address(80, 167, 3306), address(80, 136, 3306), address(80, 137, 3307)],
            timeouts: Timeouts::new(patience),
            refresh: Duration::from_secs(1),
            ring: 64,
            capacity: 4096,
            ends: 4096,
            datagram: 1472,
            heartbeat: Duration::from_millis(50),
        };
        Self { site, patience }
    }
}

#[derive(Debug)]
enum Happening {
    Step(usize, u64),
    Sweep(usize, u64),
    Arrive(usize, Vec<u8>),
    Start(usize, u64),
    Wake(usize, u64),
}

/// Two directors and all around them.
#[derive(Debug)]
pub struct World {
    /// What it is made of.
    pub setup: Setup,
    /// The directors.
    pub directors: [Director; 2],
    /// The line from each director to the other.
    pub lines: [Line; 2],
    /// What is true.
    pub truth: Truth,
    /// Where the packets of each client, and those for it, come by.
    pub route: [[usize; 2]; CLIENTS],
    /// The open conn of each client.
    pub conns: [Option<u32>; CLIENTS],
    /// When each client closed its last one.
    pub closed: [Option<Instant>; CLIENTS],
    /// A law was broken: this one.
    pub violation: Option<String>,
    /// The most bytes that a core held.
    pub most_bytes: usize,
    /// What happened, for people.
    pub trace: Option<Vec<String>>,
    /// Changes the bytes of frames on the line: who, and how.
    pub tamper: Option<fn(&mut Vec<u8>)>,
    now: Instant,
    start: Instant,
    queue: Queue<Happening>,
    pub(super) chance: Chance,
}

impl World {
    /// A world in which both directors are about to start.
    #[must_use]
    pub fn new(setup: Setup, seed: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times: an Instant has no other")]
        let start = Instant::now() + Duration::from_secs(1_000_000);
        let mut chance = Chance::new(seed);
        let mut director = |node| Director::new(&setup.site, node, Chance::new(chance.below(u64::MAX)), start);
        let directors = [director(1), director(2)];
        Self {
            directors,
            setup,
            lines: [Line::good(); 2],
            truth: Truth::default(),
            route: [[0; 2]; CLIENTS],
            conns: [None; CLIENTS],
            closed: [None; CLIENTS],
            violation: None,
            most_bytes: 0,
            trace: None,
            tamper: None,
            now: start,
            start,
            queue: Queue::new(),
            chance,
        }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Notes what happened, if somebody wants to know.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let at = (self.now - self.start).as_secs_f64();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:10.4} {}", what()));
        }
    }

    pub(super) fn violated(&mut self, law: String) {
        if self.violation.is_none() {
            self.say(|| format!("VIOLATION {law}"));
            self.violation = Some(law);
        }
    }

    /// Starts the process of a director after some time.
    pub fn start_director(&mut self, director: usize, after: Duration) {
        self.directors[director].generation += 1;
        let generation = self.directors[director].generation;
        self.queue.push(self.now + after, Happening::Start(director, generation));
    }

    /// The process of a director ends and starts again; the table stays.
    pub fn restart_agent(&mut self, director: usize, after: Duration) {
        self.say(|| format!("{director}: the agent dies"));
        self.directors[director].up = false;
        let table = &self.directors[director].table;
        let shown: std::collections::HashMap<u32, bool> =
            table.entries.values().map(|entry| (entry.identity, entry.is_over())).collect();
        self.truth.forget(director, |identity| shown.get(&identity).copied());
        self.start_director(director, after);
    }

    /// A director loses everything, and starts again.
    pub fn reboot(&mut self, director: usize, after: Duration) {
        self.say(|| format!("{director}: reboots"));
        self.directors[director].up = false;
        self.directors[director].lose_table(&self.setup.site);
        self.truth.forget(director, |_| None);
        self.start_director(director, after);
    }

    /// A director does nothing for some time.
    pub fn sleep(&mut self, director: usize, time: Duration) {
        if self.directors[director].runs() {
            self.say(|| format!("{director}: sleeps for {time:?}"));
            self.directors[director].asleep = Some(self.now + time);
            let generation = self.directors[director].generation;
            self.queue.push(self.now + time, Happening::Wake(director, generation));
        }
    }

    /// Lets the time pass. Stops at the first violation.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.violation.is_none()
            && let Some((at, what)) = self.queue.pop_until(end)
        {
            self.now = at;
            self.happen(what);
        }
        self.now = end;
    }

    /// Lets the time pass until something is so, or for `at_most`; answers how long that took.
    pub fn run_until(&mut self, at_most: Duration, is_so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.violation.is_none() && !is_so(self) {
            let next = self.queue.next_at()?;
            if next > begin + at_most {
                return None;
            }
            self.run(next - self.now);
        }
        Some(self.now - begin)
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(d, generation) if self.directors[d].generation == generation => {
                self.say(|| format!("{d}: starts"));
                self.directors[d].start(&self.setup.site, self.now);
                self.queue.push(self.now, Happening::Step(d, generation));
                self.queue.push(self.now + SWEEP, Happening::Sweep(d, generation));
            }
            Happening::Wake(d, generation) if self.directors[d].generation == generation => {
                self.directors[d].asleep = None;
            }
            Happening::Step(d, generation) if self.directors[d].generation == generation => {
                if self.directors[d].runs() {
                    let effects = self.directors[d].step(self.now);
                    self.effects(d, effects);
                    self.most_bytes = self.most_bytes.max(self.directors[d].core.bytes());
                }
                self.queue.push(self.now + STEP, Happening::Step(d, generation));
            }
            Happening::Sweep(d, generation) if self.directors[d].generation == generation => {
                if self.directors[d].runs() {
                    let patience = self.setup.patience;
                    let effects = self.directors[d].sweep(&|entry| patience(entry.state()), self.now);
                    self.effects(d, effects);
                }
                self.queue.push(self.now + SWEEP, Happening::Sweep(d, generation));
            }
            Happening::Arrive(d, mut bytes) if self.directors[d].runs() => {
                let effects = self.directors[d].datagram(&mut bytes, self.now);
                self.effects(d, effects);
            }
            _ => {}
        }
    }

    fn effects(&mut self, d: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Sent(mut bytes) => {
                    if let Some(tamper) = self.tamper {
                        tamper(&mut bytes);
                    }
                    for at in self.lines[d].carry(self.now, &mut self.chance) {
                        self.queue.push(at, Happening::Arrive(1 - d, bytes.clone()));
                    }
                }
                Effect::Wrote(write) => {
                    self.say(|| match write {
                        Write::Create { conn, idle } => {
                            format!("{d}: creates {} {} instead of {}", conn.forward.ack, conn.state(), idle.0)
                        }
                        Write::Update(conn) => format!("{d}: updates {} {}", conn.forward.ack, conn.state()),
                        Write::Remove { key, .. } => format!("{d}: removes {}", key.client),
                    });
                    self.looked(d, &write.key());
                }
                Effect::Removed(key, entry, cause) => self.removed(d, &key, &entry, cause),
                Effect::Told(what) => self.say(|| format!("{d}: {what}")),
                Effect::Drained(result) => self.say(|| format!("{d}: drained {result:?}")),
                Effect::Event(event) => self.say(|| format!("{d}: {event:?}")),
            }
        }
    }

    /// Something was done to an entry: it may know more now, but never less.
    pub(super) fn looked(&mut self, d: usize, key: &Key) {
        let Some(entry) = self.directors[d].table.entries.get(key).copied() else { return };
        // Who has no room to remember what has ended cannot tell a peer that has lost its memory.
        let forgets = self.directors[d].core.status().counters.forgotten > 0;
        let Some(life) = self.truth.get_mut(entry.identity) else {
            self.violated(format!("{d}: nobody ever opened {}", entry.identity));
            return;
        };
        life.known[d] = true;
        if entry.is_over() {
            if life.open && !life.excused {
                self.violated(format!("{d}: {} is open, and {} here", entry.identity, entry.state()));
                return;
            }
            life.over[d] = true;
        } else if life.over[d] && forgets {
            life.excused = true;
        } else if life.over[d] && !life.excused {
            self.violated(format!("{d}: {} was closed, and is {} again", entry.identity, entry.state()));
        }
    }

    fn removed(&mut self, d: usize, key: &Key, entry: &Entry, cause: &str) {
        let now = self.now;
        self.say(|| format!("{d}: {} of {} is {cause}", entry.identity, key.client));
        let patience = (self.setup.patience)(entry.state());
        let Some(life) = self.truth.get_mut(entry.identity) else { return };
        life.known[d] = false;
        if entry.is_over() {
            life.over[d] = true;
        }
        // Who does not see its packets may take it for aged, as long as the one who does has it, and says so.
        // (Nor does anybody defend what will be over in a second.)
        let aged =
            now - life.used() + Duration::from_millis(1300) > patience || (cause == "expired" && life.known[1 - d]);
        if life.open && !life.excused && !aged {
            let law = format!("{d}: {} is open, and was {cause}", entry.identity);
            self.violated(law);
        }
    }

    fn key(&self, client: usize) -> Key {
        let ip = Ipv4Addr::new(10, 80, 1, 1 + client as u8 / 4);
        Key { client: SocketAddrV4::new(ip, 40_000 + client as u16 % 4), vip: self.setup.site.vip }
    }

    /// A client opens a conn.
    pub fn open(&mut self, client: usize) {
        let (key, d) = (self.key(client), self.route[client][0]);
        let backend = self.chance.choose(&self.setup.site.backends.clone());
        if let Some(old) = self.directors[d].table.entries.get(&key).copied()
            && let Some(life) = self.truth.get_mut(old.identity)
        {
            // The client has the port again: whatever went before is over for whoever sees it.
            life.over[d] = true;
        }
        let identity = self.truth.begin(key, self.now);
        let now = self.now;
        if self.directors[d].table.open(key, identity, backend, now) {
            self.say(|| format!("client {client} opens {identity} to {backend} at {d}"));
            self.conns[client] = Some(identity);
            self.looked(d, &key);
        } else if let Some(life) = self.truth.get_mut(identity) {
            life.open = false;
        }
    }

    /// A packet each way.
    pub fn speak(&mut self, client: usize) {
        self.send(client, 0, 0);
        self.send(client, 1, 0);
    }

    /// A packet of a side; `false`: it did not come through.
    fn send(&mut self, client: usize, side: usize, flags: u8) -> bool {
        let Some(identity) = self.conns[client] else { return false };
        let (key, d, now) = (self.key(client), self.route[client][side], self.now);
        self.say(|| format!("packet of {identity} side {side} at {d}"));
        let through = self.directors[d].table.packet(&key, side, flags, identity, now).is_some();
        if through && let Some(life) = self.truth.get_mut(identity) {
            life.used_at[d] = now;
        }
        through
    }

    /// A client closes its conn, or its backend resets it.
    pub fn close(&mut self, client: usize, reset: bool) {
        let Some(identity) = self.conns[client] else { return };
        let key = self.key(client);
        let flags = if reset { flag::RST } else { flag::FIN };
        // From here on nobody is wrong who takes it for closed.
        if let Some(life) = self.truth.get_mut(identity) {
            life.open = false;
        }
        let first = self.send(client, 0, flags);
        let second = reset || self.send(client, 1, flags);
        if !first && !second {
            // Nobody heard: the client tries again.
            if let Some(life) = self.truth.get_mut(identity) {
                life.open = true;
            }
            return;
        }
        self.say(|| format!("client {client} closes {identity}"));
        self.conns[client] = None;
        self.closed[client] = Some(self.now);
        (0..2).for_each(|d| self.looked(d, &key));
    }

    /// A director wants to give up its role.
    pub fn drain(&mut self, director: usize) {
        if self.directors[director].runs() {
            let within = Duration::from_millis(200);
            self.directors[director].core.handle(Input::Drain { within }, self.now);
        }
    }

    /// Both say that they are equal.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.directors.iter().all(|director| director.runs() && director.core.state() == Progress::Equal)
    }
}

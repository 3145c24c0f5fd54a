//! A director of the simulation: the real core, the model table, and the few steps of an agent between them.

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use lb_userspace::sync::{
    Action, Config, Event, Input, Key, Psk, Replication, Services, Stalled, Tenths, Timeouts, Write,
};

use super::table::{Change, Entry, Table, Written};

/// Entries shown per step of a look through the table.
const SLICE: usize = 16;

/// What an agent did that others notice.
#[derive(Debug)]
pub(super) enum Effect {
    /// It sent a datagram.
    Sent(Vec<u8>),
    /// An entry was written, or not.
    Wrote(Write),
    /// An entry was removed.
    Removed(Key, Entry, &'static str),
    /// It told the core something.
    Told(String),
    /// A drain came to its end.
    Drained(Result<(), Stalled>),
    /// Something for people.
    Event(Event),
}

/// A look through the table.
#[derive(Debug)]
struct Look {
    keys: VecDeque<Key>,
    noted: Vec<(Key, Entry)>,
}

/// A director.
#[derive(Debug)]
pub struct Director {
    /// Its core.
    pub core: Replication,
    /// Its table.
    pub table: Table,
    /// Its process runs.
    pub up: bool,
    /// It does nothing until then.
    pub asleep: Option<Instant>,
    pub(super) generation: u64,
    config: Config,
    scan: Option<Look>,
    chance: crate::chance::Chance,
}

/// The same for both directors: everything that a setup says.
#[derive(Clone, Debug)]
pub struct Site {
    /// The service.
    pub vip: SocketAddrV4,
    /// Its backends.
    pub backends: Vec<SocketAddrV4>,
    /// When conns are over.
    pub timeouts: Timeouts,
    /// How often tables are looked through.
    pub refresh: Duration,
    /// Changes that a ring holds.
    pub ring: usize,
    /// Conns that a table holds.
    pub capacity: usize,
    /// Ends of conns kept for a peer that is away.
    pub ends: usize,
    /// The longest datagram.
    pub datagram: usize,
    /// The pause between heartbeats.
    pub heartbeat: Duration,
}

impl Director {
    pub(super) fn new(site: &Site, node: u16, chance: crate::chance::Chance, now: Instant) -> Self {
        let config = Config {
            node,
            epoch: [0; 16],
            seed: [0; 32],
            keys: vec![Psk::new([7; 32])],
            insecure: false,
            fingerprint: 1,
            timeouts: site.timeouts,
            capacity: site.capacity,
            ends: site.ends,
            datagram: site.datagram,
            heartbeat: site.heartbeat,
            refresh: site.refresh,
        };
        let mut director = Self {
            core: Replication::new(config.clone(), now).expect("a config that makes sense"),
            table: Table::new(site.capacity, site.ring),
            up: false,
            asleep: None,
            generation: 0,
            config,
            scan: None,
            chance,
        };
        director.start(site, now);
        director.up = false;
        director
    }

    /// Its process starts: what the core knew is lost, what the table holds is not.
    pub(super) fn start(&mut self, site: &Site, now: Instant) {
        let mut random = || (self.chance.below(u64::MAX)).to_be_bytes();
        let epoch = [random(), random()].concat();
        let seed = [random(), random(), random(), random()].concat();
        self.config.epoch = epoch.try_into().expect("16 bytes");
        self.config.seed = seed.try_into().expect("32 bytes");
        self.core = Replication::new(self.config.clone(), now).expect("a config that makes sense");
        let mut services = Services::default();
        site.backends.iter().for_each(|backend| services.add(site.vip, *backend));
        self.core.handle(Input::Services(services), now);
        self.scan = None;
        self.table.nobody_reads();
        let _ = self.table.drain();
        self.up = true;
        self.asleep = None;
    }

    /// The table is lost, too.
    pub(super) fn lose_table(&mut self, site: &Site) {
        self.table = Table::new(site.capacity, site.ring);
    }

    pub(super) fn runs(&self) -> bool {
        self.up && self.asleep.is_none()
    }

    /// Reads the ring, shows a slice of the table, lets the core do what is due.
    pub(super) fn step(&mut self, now: Instant) -> Vec<Effect> {
        self.read_ring(now);
        self.show_slice(now);
        self.core.handle_timeout(now);
        self.perform(now)
    }

    /// A datagram arrives.
    pub(super) fn datagram(&mut self, bytes: &mut [u8], now: Instant) -> Vec<Effect> {
        self.core.handle(Input::Datagram(bytes), now);
        self.core.handle_timeout(now);
        self.perform(now)
    }

    fn read_ring(&mut self, now: Instant) {
        let (changes, lost) = self.table.drain();
        for change in changes {
            // A record tells how the conn was at its time.
            let conn = |key, entry: &Entry, at: Instant| {
                let mut conn = entry.conn(key, at);
                let ago = Tenths::from_duration(now - at);
                conn.forward.idle = ago;
                conn.reverse.idle = ago;
                conn.age = Tenths::from_duration(now - entry.created);
                conn
            };
            match change {
                Change::Established(key, entry, at) => {
                    self.core.handle(Input::Established(conn(key, &entry, at)), now);
                }
                Change::Closing(key, entry, at) => self.core.handle(Input::Closing(conn(key, &entry, at)), now),
                Change::Replaced(key) => self.core.handle(Input::Replaced(key), now),
                Change::Miss(key) => self.core.handle(Input::Miss(key), now),
            }
        }
        if lost {
            self.core.handle(Input::Lost, now);
        }
    }

    /// As the agent does it: entries are noted, then conns are told as they were then.
    fn show_slice(&mut self, now: Instant) {
        let Some(mut look) = self.scan.take() else { return };
        for _ in 0..SLICE {
            if let Some(key) = look.keys.pop_front() {
                let Some(entry) = self.table.entries.get(&key) else { continue };
                // The kernel walks from bucket to bucket: what is there all the time is shown, what is new perhaps not.
                let new = now - entry.created < Duration::from_secs(1);
                if !(new && self.chance.permille(100)) {
                    look.noted.push((key, *entry));
                }
                continue;
            }
            match look.noted.pop() {
                // Of what has come or gone meanwhile, one entry is seen and not the other.
                Some((key, _)) if self.chance.permille(20) => self.core.handle(Input::SeenHalf(key), now),
                Some((key, entry)) => self.core.handle(Input::Seen(entry.conn(key, now)), now),
                None => {
                    self.core.handle(Input::Scanned, now);
                    return;
                }
            }
        }
        self.scan = Some(look);
    }

    /// Removes what is over.
    pub(super) fn sweep(&mut self, timeouts: &dyn Fn(&Entry) -> Duration, now: Instant) -> Vec<Effect> {
        self.read_ring(now);
        let over: Vec<(Key, Entry)> = self
            .table
            .entries
            .iter()
            .filter(|(_, entry)| entry.idle(now) > timeouts(entry))
            .map(|(key, entry)| (*key, *entry))
            .collect();
        let over = over.into_iter();
        let over: Vec<_> =
            over.filter(|(key, entry)| self.core.may_expire(key, Tenths::from_duration(entry.idle(now)))).collect();
        let mut effects = Vec::new();
        for (key, entry) in over {
            let _ = self.table.retire(&key, Tenths::from_duration(entry.idle(now)), now);
            self.core.handle(Input::Expired { key, state: entry.state() }, now);
            effects.push(Effect::Removed(key, entry, "expired"));
        }
        effects.extend(self.perform(now));
        effects
    }

    fn perform(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send(bytes) => effects.push(Effect::Sent(bytes.to_vec())),
                Action::Write(write) => {
                    let before = self.table.entries.get(&write.key()).copied();
                    match self.table.write(&write, now) {
                        Written::Done => {
                            let key = write.key();
                            let after = self.table.entries.get(&key).copied();
                            if let Some(before) = before
                                && after.is_none_or(|after| after.identity != before.identity)
                            {
                                let cause = if after.is_some() { "replaced by sync" } else { "removed by sync" };
                                effects.push(Effect::Removed(key, before, cause));
                            }
                            effects.push(Effect::Wrote(write));
                        }
                        Written::Found(conn) => {
                            effects.push(Effect::Told(format!("finds {} instead of {write:?}", conn.forward.ack)));
                            self.core.handle(Input::Found(conn), now);
                        }
                        Written::Full => self.core.handle(Input::NotWritten(write.key()), now),
                    }
                }
                Action::Scan => {
                    let keys = self.table.entries.keys().copied().collect();
                    self.scan = Some(Look { keys, noted: Vec::new() });
                }
                Action::Look(key) => match self.table.entries.get(&key) {
                    Some(entry) => {
                        let conn = entry.conn(key, now);
                        effects.push(Effect::Told(format!("finds {} {}", conn.forward.ack, conn.state())));
                        self.core.handle(Input::Found(conn), now);
                    }
                    None => self.core.handle(Input::NotFound(key), now),
                },
                Action::Retire { key, idle } => {
                    let before = self.table.entries.get(&key).copied();
                    match self.table.retire(&key, idle, now) {
                        Some(conn) => self.core.handle(Input::Found(conn), now),
                        None => {
                            self.core.handle(Input::NotFound(key), now);
                            effects.extend(before.map(|entry| Effect::Removed(key, entry, "retired")));
                        }
                    }
                }
                Action::Beat(_) | Action::Notice(_) => {}
                Action::Drained(result) => effects.push(Effect::Drained(result)),
                Action::Event(event) => effects.push(Effect::Event(event)),
            }
        }
        effects
    }
}

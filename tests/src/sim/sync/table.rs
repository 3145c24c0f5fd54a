//! A model of the packet path's table of conns and of its event ring.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use lb_common::tcp::{self, State, flag};
use lb_userspace::sync::{Conn, Half, Key, Tenths, Write};

/// An entry. The identity of its conn travels as the client's acknowledgement number, which never changes here.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which conn it is.
    pub identity: u32,
    /// Its backend.
    pub backend: SocketAddrV4,
    /// The client's port as the backend sees it.
    pub client_port: u16,
    /// Flags of client and backend.
    pub seen: [u8; 2],
    /// When something was seen of client and backend.
    pub last: [Instant; 2],
    /// When it was made.
    pub created: Instant,
}

impl Entry {
    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        State::of(self.seen[0], self.seen[1])
    }

    /// Both ends are done with it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state(), State::TimeWait | State::Close)
    }

    /// How long nothing was seen of it.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Duration {
        now - self.last[0].max(self.last[1])
    }

    /// As it is told to the core.
    #[must_use]
    pub fn conn(&self, key: Key, now: Instant) -> Conn {
        let half = |side: usize| Half {
            seen: self.seen[side],
            ack: if side == 0 { self.identity } else { 0 },
            seq: 0,
            idle: Tenths::from_duration(now - self.last[side]),
        };
        Conn {
            key,
            backend: self.backend,
            client_port: self.client_port,
            forward: half(0),
            reverse: half(1),
            age: Tenths::from_duration(now - self.created),
        }
    }

    fn of(conn: &Conn, now: Instant) -> Self {
        Self {
            identity: conn.forward.ack,
            backend: conn.backend,
            client_port: conn.client_port,
            seen: [conn.forward.seen, conn.reverse.seen],
            last: [now - conn.forward.idle.duration(), now - conn.reverse.idle.duration()],
            created: now - conn.age.duration(),
        }
    }
}

/// What the packet path tells the agent.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A handshake is complete.
    Established(Key, Entry, Instant),
    /// A side closed.
    Closing(Key, Entry, Instant),
    /// The key was taken.
    Replaced(Key),
    /// A packet belongs to no conn.
    Miss(Key),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was done.
    Done,
    /// The table knows better.
    Found(Conn),
    /// There is no room.
    Full,
}

/// The table, its second entries, and the ring.
#[derive(Clone, Debug)]
pub struct Table {
    /// By the forward key. Ordered, so that a world is a function of its seed.
    pub entries: BTreeMap<Key, Entry>,
    /// Backend and client → forward key.
    reverse: HashMap<(SocketAddrV4, SocketAddrV4), Key>,
    ring: VecDeque<Change>,
    room: usize,
    capacity: usize,
    lost: bool,
}

impl Table {
    /// An empty table whose ring holds so many changes.
    #[must_use]
    pub fn new(capacity: usize, room: usize) -> Self {
        Self { entries: BTreeMap::new(), reverse: HashMap::new(), ring: VecDeque::new(), room, capacity, lost: false }
    }

    fn tell(&mut self, change: Change) {
        if self.ring.len() < self.room {
            self.ring.push_back(change);
        } else {
            self.lost = true;
        }
    }

    /// Takes out what the ring holds, and whether something was lost.
    pub fn drain(&mut self) -> (Vec<Change>, bool) {
        (self.ring.drain(..).collect(), std::mem::take(&mut self.lost))
    }

    /// Forgets what the ring holds: nobody reads it.
    pub fn nobody_reads(&mut self) {
        self.ring.clear();
    }

    fn other_key(key: &Key, backend: SocketAddrV4, client_port: u16) -> (SocketAddrV4, SocketAddrV4) {
        (backend, SocketAddrV4::new(*key.client.ip(), client_port))
    }

    fn insert(&mut self, key: Key, entry: Entry) -> bool {
        let other = Self::other_key(&key, entry.backend, entry.client_port);
        if self.entries.len() >= self.capacity || self.reverse.get(&other).is_some_and(|owner| *owner != key) {
            return false;
        }
        self.remove(&key);
        self.reverse.insert(other, key);
        self.entries.insert(key, entry);
        true
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.reverse.remove(&Self::other_key(key, entry.backend, entry.client_port));
        Some(entry)
    }

    /// A client's handshake comes by; `false`: it is refused.
    pub fn open(&mut self, key: Key, identity: u32, backend: SocketAddrV4, now: Instant) -> bool {
        if let Some(old) = self.entries.get(&key).copied() {
            if !old.state().may_be_reused() {
                // The backend of old answers with an acknowledgement, the client resets, and tries again.
                self.flags(&key, 0, flag::RST, now);
            }
            self.remove(&key);
            self.tell(Change::Replaced(key));
        }
        let open = flag::SYN | flag::ACK;
        let mut entry = Entry {
            identity,
            backend,
            client_port: key.client.port(),
            seen: [open, open],
            last: [now; 2],
            created: now,
        };
        for attempt in 1..5_u16 {
            if self.insert(key, entry) {
                self.tell(Change::Established(key, entry, now));
                return true;
            }
            entry.client_port = (key.client.port() ^ attempt.wrapping_mul(0x3a5b)) | 0x0400;
        }
        false
    }

    /// A packet of a side comes by; `None`: it belongs to no conn, or to another one than its sender believes.
    pub fn packet(&mut self, key: &Key, side: usize, flags: u8, identity: u32, now: Instant) -> Option<Entry> {
        match self.entries.get(key) {
            Some(entry) if entry.identity == identity => {
                self.flags(key, side, flags, now);
                self.entries.get(key).copied()
            }
            Some(_) => None,
            None => {
                if side == 0 {
                    self.tell(Change::Miss(*key));
                }
                None
            }
        }
    }

    fn flags(&mut self, key: &Key, side: usize, flags: u8, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = entry.state();
        entry.last[side] = now;
        entry.seen[side] = tcp::note(entry.seen[side], entry.seen[1 - side], flags, side == 0);
        let (after, entry) = (entry.state(), *entry);
        if after != before {
            self.tell(Change::Closing(*key, entry, now));
        }
    }

    /// The sync writes.
    pub fn write(&mut self, write: &Write, now: Instant) -> Written {
        match write {
            Write::Create { conn, idle } => {
                if let Some(old) = self.entries.get(&conn.key).copied() {
                    if *idle == Tenths::MAX || knows_better(&old, *idle, now) {
                        return Written::Found(old.conn(conn.key, now));
                    }
                    self.remove(&conn.key);
                }
                if self.insert(conn.key, Entry::of(conn, now)) { Written::Done } else { Written::Full }
            }
            Write::Update(conn) => {
                let news = Entry::of(conn, now);
                if let Some(entry) = self.entries.get_mut(&conn.key)
                    && (entry.backend, entry.client_port) == (conn.backend, conn.client_port)
                    && is_of_age(entry, conn.age, now)
                {
                    for side in 0..2 {
                        entry.seen[side] |= news.seen[side];
                        entry.last[side] = entry.last[side].max(news.last[side]);
                    }
                    entry.identity = news.identity;
                }
                Written::Done
            }
            Write::Remove { key, idle } => {
                if let Some(old) = self.entries.get(key).copied() {
                    if knows_better(&old, *idle, now) {
                        return Written::Found(old.conn(*key, now));
                    }
                    self.remove(key);
                }
                Written::Done
            }
        }
    }

    /// Removes a conn unless it was used since; answers whether it is gone, or how it is.
    pub fn retire(&mut self, key: &Key, idle: Tenths, now: Instant) -> Option<Conn> {
        let old = self.entries.get(key).copied()?;
        if is_newer(&old, idle, now) {
            return Some(old.conn(*key, now));
        }
        self.remove(key);
        None
    }
}

/// The slack is that of the protocol.
fn is_of_age(entry: &Entry, age: Tenths, now: Instant) -> bool {
    let own = Tenths::from_duration(now - entry.created);
    own.0.abs_diff(age.0) <= 5 + own.0.max(age.0) / 1000
}

fn is_newer(entry: &Entry, idle: Tenths, now: Instant) -> bool {
    Tenths::from_duration(entry.idle(now)).plus(Tenths::ROUNDING) < idle
}

fn knows_better(entry: &Entry, idle: Tenths, now: Instant) -> bool {
    !entry.is_over() && is_newer(entry, idle, now)
}

//! The core: one director's side of the sync.
//!
//! What happens here is split by who speaks: `local` the packet path, `remote` the peer about conns, `receive` and `send`
//! frames, `session` the handshake, `repair` comparing and mending, `timers` the clock, `ledger` who knows what.

mod ledger;
mod local;
mod peer;
mod receive;
mod remote;
mod repair;
mod report;
mod send;
mod session;
mod timers;

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Action, Beat, Config, ConfigError, Counters, Event, Input, Services, Stalled, Tenths, Write,
    conn::Key,
    crypto::nth,
    index::{Id, Index},
    limit::Limit,
    notice::{Inbox, Outbox},
    time::{Clock, Tick},
};

use peer::Memory;
use session::{Handshake, Session};

/// A change waits so long for others to travel with it.
const FLUSH: Duration = Duration::from_millis(5);
/// An acknowledgement waits so long for frames to travel with.
const ACK: Duration = Duration::from_millis(10);
/// Frames of so many bytes are acknowledged at once: a quarter of what the peer may have under way in a bulk.
const ACK_BYTES: usize = 48 << 10;
/// Frames that overtake each other do so within this time.
const REORDER: Duration = Duration::from_millis(3);
/// What is missing is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// What is not acknowledged after this time makes the next heartbeat come early.
const PROBE: Duration = Duration::from_millis(15);
/// The pause between two greetings.
const GREET: Duration = Duration::from_millis(200);
/// A peer that is silent for so long is gone, if it is not for more heartbeats than [`DEAD_BEATS`].
const DEAD: Duration = Duration::from_secs(1);
const DEAD_BEATS: u32 = 20;
/// A handshake that does not lead to a session within this time is begun anew.
const UNCONFIRMED: Duration = Duration::from_secs(1);
/// Reports of activity that may wait.
const REPORTS: usize = 8192;
/// Conns asked for that may wait.
const PULLS: usize = 64;

/// One director's side of the sync.
///
/// Hand over everything received before calling [`Replication::handle_timeout`], then carry out every action.
#[derive(Debug)]
pub struct Replication {
    config: Config,
    clock: Clock,
    now: Instant,
    services: Services,
    beat: Beat,
    outbox: Outbox,
    inbox: Inbox,
    counters: Counters,

    index: Index,
    /// The logical time: above that of everything heard of.
    time: u64,
    /// What the peer remembers; `None` before there ever was one.
    memory: Option<Memory>,
    /// Slots with changes, in the order in which they changed first.
    queue: VecDeque<Id>,
    /// Ends of conns in the order in which they came.
    ends: VecDeque<(Id, u64)>,
    /// Since when the queue is not empty.
    waiting: Option<Instant>,

    handshake: Handshake,
    session: Option<Session>,
    /// Since when there is no session, or since when there is this memory of the peer.
    lost: Tick,
    /// Since when there was no session before this one: the end of the last one, or the start of this process.
    parted: Tick,
    /// Greetings that may be opened, and answered.
    greetings: Limit,
    answers: Limit,

    scan: Scan,
    reports: VecDeque<Id>,
    pulls: Vec<Key>,
    pull_limit: Limit,
    drain: Option<Drain>,
    stopped: bool,

    due: Due,
    writes: VecDeque<Write>,
    actions: VecDeque<Todo>,
    frame: Vec<u8>,
    /// Kept, so that an acknowledgement allocates nothing.
    fates: Vec<(Id, u64, super::stream::Fate)>,
}

/// What frames are to say, and when.
#[derive(Debug, Default)]
struct Due {
    greet: Option<Instant>,
    greet_now: bool,
    beat: Option<Instant>,
    beat_now: bool,
    ack: Option<Instant>,
    ack_now: bool,
    missing: Option<Instant>,
    missing_now: bool,
    flush_now: bool,
    probe: Option<Instant>,
    bye_now: bool,
}

/// Where the look through the packet path's table is.
#[derive(Debug)]
struct Scan {
    /// When the next one is due.
    at: Option<Instant>,
    running: bool,
    /// Changes were lost, and no scan that began later has ended.
    stale: bool,
    again: bool,
    /// The colour of the conns that the last one has seen.
    colour: bool,
    /// Before this, nothing is known.
    ever: bool,
    /// What has ended during the first one, which may still tell of it.
    ended: HashSet<Key>,
    /// Slots not looked at yet for conns that the last scan did not show.
    audit: Option<Id>,
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    until: Instant,
    /// The first mark since it began.
    mark: Option<u32>,
}

/// An action that is neither a frame nor a write.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Scan,
    /// Nobody but the core: see [`Replication::scanned`].
    EndScan,
    Look(Key),
    Retire(Key, Tenths),
    Beat(Beat),
    Notice,
    Drained(Result<(), Stalled>),
    Event(Event),
}

impl Replication {
    /// A core that knows no conns yet: its first action is to look through the packet path's table.
    ///
    /// # Errors
    ///
    /// The config makes no sense.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let clock = Clock::new(now);
        let [secret, time] =
            [&b"index"[..], b"time"].map(|purpose| nth(&config.seed, purpose, 0)).map(u128::from_be_bytes);
        let mut core = Self {
            handshake: Handshake::new(&config),
            clock,
            now,
            services: Services::default(),
            beat: Beat::default(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            counters: Counters::default(),
            index: Index::new(secret as u64),
            // Random, so that two that have not heard of each other do not begin two conns at the same time.
            time: u64::from(time as u32) + 1,
            memory: None,
            queue: VecDeque::new(),
            ends: VecDeque::new(),
            waiting: None,
            session: None,
            lost: clock.tick(now),
            parted: clock.tick(now),
            greetings: Limit::new(200, Duration::from_millis(1)),
            answers: Limit::new(10, Duration::from_millis(50)),
            scan: Scan {
                at: None,
                running: true,
                stale: false,
                again: false,
                colour: true,
                ever: false,
                ended: HashSet::new(),
                audit: None,
            },
            reports: VecDeque::new(),
            pulls: Vec::new(),
            pull_limit: Limit::new(64, Duration::from_millis(5)),
            drain: None,
            stopped: false,
            due: Due::default(),
            writes: VecDeque::new(),
            actions: VecDeque::new(),
            frame: Vec::with_capacity(config.datagram),
            fates: Vec::new(),
            config,
        };
        core.actions.push_back(Todo::Scan);
        Ok(core)
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.now = self.now.max(now);
        match input {
            Input::Datagram(bytes) => self.datagram(bytes),
            Input::Established(conn) => self.established(&conn),
            Input::Closing(conn) => self.closing(&conn),
            Input::Replaced(key) => self.gone(&key, false),
            Input::Expired { key, state } => self.expired(&key, state),
            Input::Lost => self.changes_lost(),
            Input::Miss(key) => self.miss(key),
            Input::Seen(conn) => self.seen(&conn),
            Input::SeenHalf(key) => self.look(key),
            Input::Scanned => self.scanned(),
            Input::Found(conn) => self.found(&conn),
            Input::NotFound(key) => self.not_found(&key),
            Input::NotWritten(key) => self.not_written(&key),
            Input::Services(services) => self.services = services,
            Input::Beat(beat) => self.set_beat(beat),
            Input::Notice(notice) => self.outbox.put(notice),
            Input::Drain { within } => self.drain(within),
            Input::Stop => self.stop(),
        }
    }

    /// What is to be done next; `None`: nothing before the next input or timeout.
    pub fn poll_action(&mut self) -> Option<Action<'_>> {
        // Writes first: a look at the table must see what was decided before.
        if let Some(write) = self.writes.pop_front() {
            return Some(Action::Write(write));
        }
        while let Some(todo) = self.actions.pop_front() {
            return Some(match todo {
                Todo::EndScan => {
                    self.end_scan();
                    continue;
                }
                Todo::Scan => Action::Scan,
                Todo::Look(key) => Action::Look(key),
                Todo::Retire(key, idle) => Action::Retire { key, idle },
                Todo::Beat(beat) => Action::Beat(beat),
                Todo::Notice => Action::Notice(self.inbox.notice()),
                Todo::Drained(result) => Action::Drained(result),
                Todo::Event(event) => Action::Event(event),
            });
        }
        if !self.next_frame() {
            return None;
        }
        self.counters.sent.add(self.frame.len());
        Some(Action::Send(&self.frame))
    }

    /// The line takes datagrams of another length, without the headers of UDP and IP; one that is too short for the
    /// protocol changes nothing.
    pub fn set_datagram(&mut self, bytes: usize) {
        let config = Config { datagram: bytes, ..self.config.clone() };
        if config.check().is_ok() {
            self.config = config;
        }
    }

    fn tick(&self) -> Tick {
        self.clock.tick(self.now)
    }

    fn event(&mut self, event: Event) {
        self.actions.push_back(Todo::Event(event));
    }

    fn write(&mut self, write: Write) {
        self.writes.push_back(write);
    }

    /// The logical time of something new.
    fn next_time(&mut self) -> u64 {
        // Odd for one of both, even for the other: while they do not hear each other, no two conns begin at one time.
        let odd = self.memory.as_ref().is_some_and(|memory| memory.node < self.config.node);
        self.time = ((self.time >> 1) + 1) << 1 | u64::from(odd);
        self.time
    }

    fn set_beat(&mut self, beat: Beat) {
        if self.beat != beat {
            self.beat = beat;
            // The election waits for it.
            self.due.beat_now = true;
        }
    }

    fn drain(&mut self, within: Duration) {
        if self.session.as_ref().is_none_or(|session| !session.confirmed) {
            self.actions.push_back(Todo::Drained(Err(Stalled::NoPeer)));
            return;
        }
        // Who waits for longer is not told earlier that it failed.
        let until = self.drain.map_or(self.now, |drain| drain.until).max(self.now + within);
        self.drain = Some(Drain { until, mark: None });
        self.due.flush_now = true;
        self.due.beat_now = true;
    }

    fn drained(&mut self, result: Result<(), Stalled>) {
        if self.drain.take().is_some() {
            self.actions.push_back(Todo::Drained(result));
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.due.bye_now = self.session.is_some();
        self.drained(Err(Stalled::NoPeer));
    }

    fn miss(&mut self, key: Key) {
        // One that has just ended is known, too.
        let known = self.index.find(&key).is_some();
        let up = self.session.as_ref().is_some_and(|session| session.confirmed);
        if up && !known && self.pulls.len() < PULLS && !self.pulls.contains(&key) && self.pull_limit.take(self.now) {
            self.pulls.push(key);
            self.counters.pulled += 1;
        }
    }
}

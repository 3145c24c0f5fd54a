//! The packet path's table of conns as the sync's core sees it ([`Table`]).
//!
//! Changes come from the event ring, of which this is then the only reader; writes go through `lb_replica`, which looks
//! again in the kernel. Nothing of the core is known here, and nothing of sync in the packet path's own module.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use lb_common::{
    conn::{Conn as Entry, FlowKey},
    counter::Counter,
    event::{Event, EventKind},
    replica::{Outcome, Request},
};
use tracing::warn;

use super::{
    convert::{Ids, Now, flow, key as key_of},
    join::Join,
};
use crate::{
    agent::refused,
    datapath::{self, Datapath, Events, Scan, Ticks},
    sync::{Input, Key, Table, Tell, Tenths, Write},
};

/// Records of the ring that are told in one go: the rest waits for the next turn, a few milliseconds.
const EVENTS_AT_ONCE: usize = 8192;
/// Entries read, or brought together, in one slice of a look through the table: one to two milliseconds.
const SLICE: usize = 4096;
/// How long the clock is reckoned on before it is read anew.
const RECKON: std::time::Duration = std::time::Duration::from_millis(500);

/// The table of one packet path.
pub struct ConnTable {
    datapath: Arc<Datapath>,
    events: Events,
    records: Vec<Event>,
    lost: u64,
    clock: Clock,
    ids: Ids,
    /// The state of services and backends that `ids` is of; `None`: it was not read yet.
    generation: Option<u64>,
    /// The look that is reading; what it has read is in `join`.
    scan: Option<Scan<FlowKey, Entry>>,
    join: Join,
    requests: Vec<Request>,
    /// Which write each request is of.
    places: Vec<usize>,
    /// What went wrong last, so that it is told once.
    trouble: Option<String>,
}

impl std::fmt::Debug for ConnTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnTable").field("lost", &self.lost).field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

/// The packet path's clock, read now and then and reckoned meanwhile.
#[derive(Clone, Copy, Debug)]
struct Clock {
    jiffies: u32,
    at: Instant,
}

impl Clock {
    fn read(datapath: &Datapath) -> datapath::Result<Self> {
        Ok(Self { at: instant(), jiffies: datapath.clock()?.jiffies as u32 })
    }

    fn now(self, ticks: Ticks) -> Now {
        let passed = ticks.from_duration(instant().saturating_duration_since(self.at));
        Now { jiffies: self.jiffies.wrapping_add(passed), ticks }
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel's clock is reckoned by this one; no protocol depends on it")]
fn instant() -> Instant {
    Instant::now()
}

impl ConnTable {
    /// Takes the event ring of a packet path: nobody else can read it then.
    ///
    /// # Errors
    ///
    /// It was taken before, or the kernel's clock or counters cannot be read.
    pub fn open(datapath: &Arc<Datapath>) -> Result<Self> {
        let events = datapath.take_events().context("the event ring has a reader already")?;
        Ok(Self {
            events,
            records: Vec::new(),
            lost: datapath.tables().counter(Counter::EventLost)?,
            clock: Clock::read(datapath)?,
            ids: Ids::default(),
            generation: None,
            scan: None,
            join: Join::default(),
            requests: Vec::new(),
            places: Vec::new(),
            trouble: None,
            datapath: datapath.clone(),
        })
    }

    fn now(&mut self) -> Now {
        if instant().saturating_duration_since(self.clock.at) > RECKON {
            match Clock::read(&self.datapath) {
                Ok(clock) => self.clock = clock,
                Err(error) => self.note(&error),
            }
        }
        self.clock.now(self.datapath.ticks())
    }

    /// Says once what does not work.
    fn note(&mut self, error: &datapath::Error) {
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            warn!(error = text, "the sync cannot use the packet path's tables");
            self.trouble = Some(text);
        }
    }

    fn follow_config(&mut self) {
        // Read first: what changes meanwhile is read once more.
        let generation = self.datapath.generation();
        if self.generation == Some(generation) {
            return;
        }
        let tables = self.datapath.tables();
        let read = tables.all_services().and_then(|services| Ok((services, tables.backends.all()?)));
        match read {
            Ok((services, backends)) => {
                self.ids = Ids::of(&services, &backends);
                self.generation = Some(generation);
            }
            Err(error) => self.note(&error),
        }
    }

    fn tell_event(event: &Event, now: Now, tell: &mut Tell<'_>) {
        match event.kind {
            EventKind::Established => tell(Input::Established(now.event(event))),
            EventKind::Closing | EventKind::Closed => tell(Input::Closing(now.event(event))),
            EventKind::Replaced => tell(Input::Replaced(key_of(&event.key))),
            EventKind::Miss => {
                refused::log(event);
                tell(Input::Miss(key_of(&event.key)));
            }
            EventKind::Refused => refused::log(event),
        }
    }
}

impl Table for ConnTable {
    fn ring(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn changes(&mut self, tell: &mut Tell<'_>) {
        // Counted before the ring is read: what is lost from here on is told with the next call.
        let lost = self.datapath.tables().counter(Counter::EventLost);
        self.records.clear();
        self.events.drain(&mut self.records, EVENTS_AT_ONCE);
        if !self.records.is_empty() {
            let now = self.now();
            for event in &self.records {
                Self::tell_event(event, now, tell);
            }
        }
        match lost {
            Ok(lost) if lost != self.lost => {
                self.lost = lost;
                tell(Input::Lost);
            }
            Ok(_) => {}
            Err(error) => self.note(&error),
        }
    }

    fn write(&mut self, writes: &[Write], tell: &mut Tell<'_>) {
        self.follow_config();
        let now = self.now();
        self.requests.clear();
        self.places.clear();
        for (at, write) in writes.iter().enumerate() {
            match now.request(write, &self.ids) {
                Some(request) => {
                    self.requests.push(request);
                    self.places.push(at);
                }
                None => tell(Input::NotWritten(write.key())),
            }
        }
        let outcomes = match self.datapath.replicate(&self.requests) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.note(&error);
                let creates = writes.iter().filter(|write| matches!(write, Write::Create { .. }));
                creates.for_each(|write| tell(Input::NotWritten(write.key())));
                return;
            }
        };
        let mut kept = Vec::new();
        for (at, outcome) in self.places.iter().zip(outcomes) {
            let write = &writes[*at];
            match outcome {
                Outcome::Done | Outcome::Nothing => {}
                Outcome::Full => tell(Input::NotWritten(write.key())),
                Outcome::Kept => kept.push(write.key()),
            }
        }
        for key in kept {
            self.tell_conn(&key, now, tell);
        }
    }

    fn begin_scan(&mut self) {
        self.scan = Some(Scan::with_slice(SLICE));
        self.join = Join::default();
    }

    fn slice(&mut self, tell: &mut Tell<'_>) -> bool {
        let Some(scan) = &mut self.scan else {
            let now = self.now();
            return self.join.work(SLICE, |found| tell(found.input(now)));
        };
        match scan.next(&self.datapath.tables().conns) {
            Ok(Some(entries)) => entries.iter().for_each(|(key, entry)| self.join.note(key, entry)),
            Ok(None) => self.scan = None,
            Err(error) => {
                self.scan = None;
                self.join = Join::default();
                self.note(&error);
                // It was not all: another one must follow.
                tell(Input::Lost);
                return false;
            }
        }
        true
    }

    fn look(&mut self, key: &Key, tell: &mut Tell<'_>) {
        let now = self.now();
        self.tell_conn(key, now, tell);
    }

    fn retire(&mut self, key: &Key, idle: Tenths, tell: &mut Tell<'_>) {
        let now = self.now();
        match self.datapath.replicate(&[now.retirement(key, idle)]) {
            Ok(outcomes) if outcomes == [Outcome::Kept] => self.tell_conn(key, now, tell),
            Ok(_) => tell(Input::NotFound(*key)),
            Err(error) => self.note(&error),
        }
    }
}

impl ConnTable {
    fn tell_conn(&mut self, key: &Key, now: Now, tell: &mut Tell<'_>) {
        let flow = flow(key);
        let conns = &self.datapath.tables().conns;
        let found = conns.get(&flow).and_then(|forward| {
            let Some(forward) = forward else { return Ok(None) };
            // Half a conn is none.
            Ok(conns.get(&forward.other_key())?.map(|reverse| now.conn(&flow, &forward, &reverse)))
        });
        match found {
            Ok(Some(conn)) => tell(Input::Found(conn)),
            Ok(None) => tell(Input::NotFound(*key)),
            Err(error) => self.note(&error),
        }
    }
}

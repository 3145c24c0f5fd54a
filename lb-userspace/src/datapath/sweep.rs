//! The walk over the conn tables: removes what is over, and counts what each backend has.
//!
//! A slice per step, so that the agent can do other work between them. The two entries of a conn lie anywhere in the
//! table: `join` brings them together. What is over is named to `lb_retire`, which looks again in
//! the kernel, so that a packet that comes meanwhile saves its conn.

use std::time::Duration;

use lb_common::{
    backend::{Backend, BackendState},
    conn::{Conn, FlowKey},
    retire::{self, Request},
    service::OnDown,
    tcp::State,
};

use super::{
    Datapath, Table,
    ends::{Ends, Numbers},
    error::Result,
    expiry::{Deadlines, Half, Timeouts},
    join::{Join, Over},
    scan::Scan,
    tally::Summary,
};

/// Entries joined per step, at least.
const JOINS: usize = 8192;
/// Single entries looked up per step: two system calls each.
const SINGLES: usize = 1024;

/// A conn that is over as far as this director's packets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The key of its forward entry.
    pub key: FlowKey,
    /// How long nothing was seen of it.
    pub idle: Duration,
}

/// Tells which of them stay.
pub type Keep<'a> = dyn FnMut(&[Silent]) -> Vec<bool> + 'a;

/// Which table a sweep is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// First, because conns move from here to `conns`: this way none is missed.
    HalfOpen,
    Conns,
    Done,
}

/// A walk over both conn tables, a slice per [`Sweep::step`].
#[derive(Debug)]
pub struct Sweep {
    phase: Phase,
    scan: Scan<FlowKey, Conn>,
    join: Join,
    deadlines: Deadlines,
    dead: Vec<bool>,
    summary: Summary,
    ended: Vec<Ends>,
}

impl Sweep {
    /// A sweep that starts now.
    ///
    /// # Errors
    ///
    /// The kernel's clock cannot be read.
    pub fn new(datapath: &Datapath, timeouts: &Timeouts) -> Result<Self> {
        let now = datapath.clock()?.jiffies as u32;
        let deadlines = Deadlines::new(now, datapath.ticks(), timeouts);
        let is_dead = |backend: &Backend| (backend.state, backend.on_down) == (BackendState::Down, OnDown::Rst);
        let dead: Vec<bool> = datapath.tables().backends.all()?.iter().map(is_dead).collect();
        Ok(Self {
            phase: Phase::HalfOpen,
            scan: Scan::new(),
            join: Join::new(deadlines, dead.clone()),
            deadlines,
            dead,
            summary: Summary::default(),
            ended: Vec::new(),
        })
    }

    /// The conns of `conns` that were removed since the last call. Half-open conns and single entries are not among
    /// them.
    #[must_use]
    pub fn take_ended(&mut self) -> Vec<Ends> {
        std::mem::take(&mut self.ended)
    }

    /// Works through one slice, about 4,096 entries; `Some`: that was the last one. Blocks for 1 to 5 ms.
    ///
    /// # Errors
    ///
    /// A system call failed; the sweep may be stepped again.
    pub fn step(&mut self, datapath: &Datapath) -> Result<Option<Summary>> {
        self.step_but(datapath, &mut |conns| vec![false; conns.len()])
    }

    /// As [`Sweep::step`], but asks about the conns of `conns` that are over which are to be kept all the same, many at
    /// once: the answer has one word for each. Half-open conns and single entries are not asked about.
    ///
    /// # Errors
    ///
    /// As [`Sweep::step`].
    pub fn step_but(&mut self, datapath: &Datapath, keep: &mut Keep<'_>) -> Result<Option<Summary>> {
        let table = match self.phase {
            Phase::HalfOpen => &datapath.tables().half_open,
            Phase::Conns => &datapath.tables().conns,
            Phase::Done => return Ok(Some(self.summary.clone())),
        };
        let more = match self.scan.next(table)? {
            Some(slice) => {
                for (key, conn) in slice {
                    self.join.note(key, conn, &mut self.summary);
                }
                true
            }
            None if self.join.work(JOINS, &mut self.summary) => true,
            None => {
                for entry in self.join.singles(SINGLES) {
                    let (own, other) = entry.keys();
                    // It was made or removed during the scan, or its other half is gone.
                    let Some(own) = table.get(&own)? else { continue };
                    let other = table.get(&other)?.as_ref().map(Half::from);
                    self.join.settle(&entry, Half::from(&own), other, &mut self.summary);
                }
                !self.join.single.is_empty()
            }
        };
        let over = std::mem::take(&mut self.join.over);
        match self.phase {
            Phase::HalfOpen => self.remove_half_open(table, &over)?,
            Phase::Conns | Phase::Done => {
                let over = self.but_kept(over, keep);
                self.retire(datapath, &over)?;
            }
        }
        if !more {
            self.turn();
        }
        Ok((self.phase == Phase::Done).then(|| self.summary.clone()))
    }

    fn remove_half_open(&mut self, table: &Table<FlowKey, Conn>, over: &[Over]) -> Result<()> {
        for Over { request, state, .. } in over {
            // No program retires half-open conns: look again, then remove. The packet path itself ignores those that
            // are over, so that nothing hangs on the moment between the two.
            let Some(own) = table.get(&request.key)? else { continue };
            if own.last_seen != request.forward_seen {
                continue;
            }
            table.remove_many(&[request.key, own.other_key()])?;
            self.count_removed(*state);
        }
        Ok(())
    }

    fn but_kept(&mut self, over: Vec<Over>, keep: &mut Keep<'_>) -> Vec<Over> {
        let whole = over.iter().filter(|over| over.state.is_some());
        let conns: Vec<Silent> = whole
            .map(|over| {
                let last = [over.request.forward_seen, over.request.reverse_seen];
                Silent { key: over.request.key, idle: self.deadlines.silence(last) }
            })
            .collect();
        if conns.is_empty() {
            return over;
        }
        let mut kept = keep(&conns).into_iter();
        over.into_iter().filter(|over| over.state.is_none() || !kept.next().unwrap_or_default()).collect()
    }

    fn retire(&mut self, datapath: &Datapath, over: &[Over]) -> Result<()> {
        for batch in over.chunks(retire::BATCH) {
            let requests: Vec<Request> = batch.iter().map(|over| over.request).collect();
            for (over, outcome) in batch.iter().zip(datapath.retire(&requests)?) {
                if outcome.removed == 0 {
                    continue;
                }
                self.count_removed(over.state);
                let Some(state) = over.state else { continue };
                self.ended.push(Ends {
                    forward: over.request.key,
                    reverse: over.other,
                    state,
                    client: Numbers { seq: outcome.forward_seq, ack: outcome.forward_ack },
                    backend: Numbers { seq: outcome.reverse_seq, ack: outcome.reverse_ack },
                });
            }
        }
        Ok(())
    }

    fn count_removed(&mut self, state: Option<State>) {
        match state {
            Some(state) => self.summary.expired[state as usize] += 1,
            None => self.summary.alone += 1,
        }
    }

    fn turn(&mut self) {
        let (invalid, first) = self.scan.invalid();
        if let Some(error) = first {
            tracing::warn!(%error, invalid, "entries of a conn table are unreadable");
        }
        self.summary.invalid += invalid;
        let pairs = self.join.pairs;
        self.join = Join::new(self.deadlines, self.dead.clone());
        self.scan = Scan::new();
        self.phase = match self.phase {
            Phase::HalfOpen => {
                self.summary.half_open = pairs;
                Phase::Conns
            }
            Phase::Conns | Phase::Done => {
                self.summary.conns = pairs;
                Phase::Done
            }
        };
    }
}

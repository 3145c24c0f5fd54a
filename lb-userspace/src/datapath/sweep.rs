//! The walk over the conn tables: removes what is over, and counts what each backend has.
//!
//! A slice per step, so that the agent can do other work between them. The two entries of a conn lie anywhere in the
//! table: the first one seen waits in memory for the other. What is over is named to `lb_retire`, which looks again in
//! the kernel, so that a packet that comes meanwhile saves its conn.

use std::collections::HashMap;

use lb_common::{
    conn::{Conn, Direction, FlowKey},
    retire::{self, Request},
    tcp::State,
};

use super::{
    Datapath, Table,
    error::Result,
    expiry::{Deadlines, Half, Timeouts},
    scan::Scan,
};

/// Single entries looked up per step: two system calls each.
const SINGLES: usize = 1024;

/// What one backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Established conns.
    pub active: u32,
    /// Conns in every other state, half-open ones included.
    pub inactive: u32,
    /// Entries of either table; 0: no conn refers to the backend.
    pub entries: u32,
}

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Per backend id.
    pub backends: Vec<Tally>,
    /// Conns found in `conns`, those that were over included.
    pub conns: u64,
    /// Conns found in `half_open`, likewise.
    pub half_open: u64,
    /// Conns that were over and are removed, per state.
    pub expired: [u64; State::ALL.len()],
    /// Entries without their other entry that were removed.
    pub alone: u64,
    /// Entries that did not decode; they stay.
    pub invalid: u64,
}

impl Summary {
    /// Entries per backend id, as [`Datapath::reclaim`] takes them.
    #[must_use]
    pub fn entries(&self) -> Vec<u32> {
        self.backends.iter().map(|tally| tally.entries).collect()
    }

    /// Conns removed, in whatever state.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.expired.iter().sum()
    }

    fn backend(&mut self, id: u16) -> &mut Tally {
        let at = usize::from(id);
        if self.backends.len() <= at {
            self.backends.resize(at + 1, Tally::default());
        }
        &mut self.backends[at]
    }
}

/// One entry that waits for the other of its conn.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: FlowKey,
    half: Half,
    dir: Direction,
    backend: u16,
}

/// A conn that is over.
#[derive(Clone, Copy, Debug)]
struct Over {
    request: Request,
    /// `None`: an entry without its other entry.
    state: Option<State>,
}

/// The two entries of conns coming together, and what follows from them. Pure.
#[derive(Debug)]
struct Join {
    deadlines: Deadlines,
    /// By the key of the forward entry, which either entry knows.
    waiting: HashMap<FlowKey, Waiting>,
    over: Vec<Over>,
    pairs: u64,
}

impl Join {
    fn new(deadlines: Deadlines) -> Self {
        Self { deadlines, waiting: HashMap::new(), over: Vec::new(), pairs: 0 }
    }

    fn entry(&mut self, key: &FlowKey, conn: &Conn, summary: &mut Summary) {
        summary.backend(conn.backend).entries += 1;
        let forward_key = match conn.dir {
            Direction::Forward => *key,
            Direction::Reverse => conn.other_key(),
        };
        let own = Waiting { key: *key, half: Half::from(conn), dir: conn.dir, backend: conn.backend };
        match self.waiting.remove(&forward_key) {
            Some(other) if other.dir != own.dir => {
                let (forward, reverse) =
                    if own.dir == Direction::Forward { (own.half, other.half) } else { (other.half, own.half) };
                self.pair(forward_key, forward, reverse, own.backend, summary);
            }
            // The same entry again: it was removed and made anew during the scan.
            _ => drop(self.waiting.insert(forward_key, own)),
        }
    }

    fn pair(&mut self, key: FlowKey, forward: Half, reverse: Half, backend: u16, summary: &mut Summary) {
        self.pairs += 1;
        if let Some(state) = self.deadlines.expired(forward, reverse) {
            let request = Request { key, forward_seen: forward.last_seen, reverse_seen: reverse.last_seen };
            self.over.push(Over { request, state: Some(state) });
            return;
        }
        let tally = summary.backend(backend);
        if State::of(forward.seen, reverse.seen).is_active() {
            tally.active += 1;
        } else {
            tally.inactive += 1;
        }
    }
}

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
    /// Entries whose other entry the scan did not show, with the key of the forward entry.
    single: Vec<(FlowKey, Waiting)>,
    summary: Summary,
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
        Ok(Self {
            phase: Phase::HalfOpen,
            scan: Scan::new(),
            join: Join::new(deadlines),
            single: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// Works through one slice, about 4,096 entries; `Some`: that was the last one. Blocks for 1 to 5 ms.
    ///
    /// # Errors
    ///
    /// A system call failed; the sweep may be stepped again.
    pub fn step(&mut self, datapath: &Datapath) -> Result<Option<Summary>> {
        let table = match self.phase {
            Phase::HalfOpen => &datapath.tables().half_open,
            Phase::Conns => &datapath.tables().conns,
            Phase::Done => return Ok(Some(self.summary.clone())),
        };
        let more = match self.scan.next(table)? {
            Some(slice) => {
                for (key, conn) in slice {
                    self.join.entry(key, conn, &mut self.summary);
                }
                true
            }
            None => {
                self.single.extend(self.join.waiting.drain());
                self.settle(table)?;
                !self.single.is_empty()
            }
        };
        let over = std::mem::take(&mut self.join.over);
        match self.phase {
            Phase::HalfOpen => self.remove_half_open(table, &over)?,
            Phase::Conns | Phase::Done => self.retire(datapath, &over)?,
        }
        if !more {
            self.turn();
        }
        Ok((self.phase == Phase::Done).then(|| self.summary.clone()))
    }

    /// Looks for the other entries of some that were single: those were made or removed during the scan, or are gone.
    fn settle(&mut self, table: &Table<FlowKey, Conn>) -> Result<()> {
        let rest = self.single.len().saturating_sub(SINGLES);
        for (forward_key, waiting) in self.single.split_off(rest) {
            let Some(own) = table.get(&waiting.key)? else { continue };
            let other = match waiting.dir {
                Direction::Forward => table.get(&own.other_key())?,
                Direction::Reverse => table.get(&forward_key)?,
            };
            let own = Half::from(&own);
            match other.as_ref().map(Half::from) {
                Some(other) => {
                    let (forward, reverse) =
                        if waiting.dir == Direction::Forward { (own, other) } else { (other, own) };
                    self.join.pair(forward_key, forward, reverse, waiting.backend, &mut self.summary);
                }
                None if self.join.deadlines.expired_alone(own) => {
                    let request = Request { key: waiting.key, forward_seen: own.last_seen, reverse_seen: 0 };
                    self.join.over.push(Over { request, state: None });
                }
                None => {}
            }
        }
        Ok(())
    }

    fn remove_half_open(&mut self, table: &Table<FlowKey, Conn>, over: &[Over]) -> Result<()> {
        for Over { request, state } in over {
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

    fn retire(&mut self, datapath: &Datapath, over: &[Over]) -> Result<()> {
        for batch in over.chunks(retire::BATCH) {
            let requests: Vec<Request> = batch.iter().map(|over| over.request).collect();
            let removed = datapath.retire(&requests)?;
            for over in batch {
                // Usually all of them went; if not, a look at each tells which.
                if removed == batch.len() || datapath.tables().conns.get(&over.request.key)?.is_none() {
                    self.count_removed(over.state);
                }
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
        let pairs = std::mem::take(&mut self.join.pairs);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::clock::Ticks;
    use lb_common::{
        addr::Ipv4,
        conn::Origin,
        tcp::flag::{ACK, FIN, RST, SYN},
    };

    const NOW: u32 = 1_000_000;
    const CLIENT: Ipv4 = Ipv4([10, 80, 1, 1]);
    const VIP: Ipv4 = Ipv4([10, 80, 1, 243]);
    const BACKEND: Ipv4 = Ipv4([192, 168, 80, 167]);

    /// Both entries of a conn; another source port towards the backend, so that nothing can be guessed.
    fn conn(port: u16, backend: u16, seen: [u8; 2], seconds_ago: [u32; 2]) -> [(FlowKey, Conn); 2] {
        let forward = Conn {
            src: CLIENT,
            dst: BACKEND,
            sport: port ^ 1,
            dport: 3306,
            backend,
            dir: Direction::Forward,
            seen: seen[0],
            macs: Default::default(),
            ifindex: 0,
            hop_gen: 0,
            last_seen: NOW - seconds_ago[0] * 100,
            ack: 0,
            seq: 0,
            created: 0,
            origin: Origin::Local,
            once: 0,
            service: 0,
            bytes: 0,
        };
        let reverse = Conn {
            src: VIP,
            sport: 3306,
            dst: CLIENT,
            dport: port,
            dir: Direction::Reverse,
            seen: seen[1],
            last_seen: NOW - seconds_ago[1] * 100,
            ..forward
        };
        [(FlowKey::tcp(CLIENT, port, VIP, 3306), forward), (forward.other_key(), reverse)]
    }

    fn join(entries: &[(FlowKey, Conn)]) -> (Join, Summary) {
        let mut join = Join::new(Deadlines::new(NOW, Ticks { hz: 100 }, &Timeouts::default()));
        let mut summary = Summary::default();
        entries.iter().for_each(|(key, conn)| join.entry(key, conn, &mut summary));
        (join, summary)
    }

    #[test]
    fn entries_find_each_other_in_any_order_and_count_for_their_backend() {
        let open = [SYN | ACK, SYN | ACK];
        let mut entries: Vec<_> = (1..=50).flat_map(|port| conn(port, 1, open, [5, 5])).collect();
        entries.extend((51..=60).flat_map(|port| conn(port, 3, [SYN | ACK | FIN, SYN | ACK], [5, 5])));
        for rotation in [0, 1, 7, 59] {
            entries.rotate_left(rotation);
            let (join, summary) = join(&entries);
            assert!(join.waiting.is_empty() && join.over.is_empty());
            assert_eq!(join.pairs, 60);
            assert_eq!(summary.backends[1], Tally { active: 50, inactive: 0, entries: 100 });
            assert_eq!(summary.backends[3], Tally { active: 0, inactive: 10, entries: 20 });
            assert_eq!(summary.entries(), [0, 100, 0, 20]);
        }
    }

    #[test]
    fn what_is_over_is_named_by_its_forward_entry_with_what_was_seen() {
        let dead = conn(7, 1, [SYN | ACK, SYN | ACK | RST], [11, 12]);
        let alive = conn(8, 1, [SYN | ACK, SYN | ACK | RST], [11, 9]);
        let (join, summary) = join(&[dead[1], alive[0], alive[1], dead[0]]);
        assert_eq!(join.over.len(), 1);
        let over = join.over[0];
        assert_eq!((over.request.key, over.state), (dead[0].0, Some(State::Close)));
        assert_eq!((over.request.forward_seen, over.request.reverse_seen), (NOW - 1100, NOW - 1200));
        assert_eq!(summary.backends[1], Tally { active: 0, inactive: 1, entries: 4 });
    }

    #[test]
    fn an_entry_shown_twice_waits_for_its_other_half() {
        let [forward, reverse] = conn(7, 1, [SYN | ACK, SYN | ACK], [1, 1]);
        let (half, _) = join(&[forward, forward]);
        assert_eq!((half.pairs, half.waiting.len()), (0, 1));
        let (whole, _) = join(&[forward, forward, reverse]);
        assert_eq!((whole.pairs, whole.waiting.len()), (1, 0));
    }
}

//! What belongs to the peer's memory: both streams, how far the bulk is, and what it said of itself. It outlives sessions
//! and ends with the peer's epoch.

use std::{collections::VecDeque, time::Instant};

use crate::sync::{
    Beat, Timeouts,
    crypto::Random,
    index::Id,
    stream::{Receiver, Sender, WINDOW},
    wire,
};

/// Conns of a bulk under way. A live change waits until the peer has written those before it: some milliseconds. In conns
/// and not in frames, of which the long ones of some lines hold six times as many.
const BULK_WINDOW: usize = 3000;

/// Everything about one epoch of the peer.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) node: u16,
    pub(super) epoch: Random,
    pub(super) minor: u8,
    pub(super) fingerprint: u64,
    pub(super) timeouts: Timeouts,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// Bytes of frames taken in since the last acknowledgement.
    pub(super) unacknowledged: usize,
    pub(super) bulk: Bulk,
    /// Conns that the peer said are gone, until every earlier frame of its has come: slot, beginning, frame.
    pub(super) graves: VecDeque<(Id, u64, u64)>,
    /// Ends that the peer has acknowledged, until every frame that it sent before has come.
    pub(super) limbo: VecDeque<(Id, u64, u64)>,
    pub(super) said: Said,
    pub(super) compare: Compare,
    /// Ends to be told once, of conns that the peer thinks are here.
    pub(super) absent: Vec<(crate::sync::Key, u64, crate::sync::Tenths)>,
    /// Digests are being sent: from this bucket on.
    pub(super) digests: Option<u16>,
    /// Buckets that the peer shall send anew.
    pub(super) repair: Vec<u16>,
}

/// The walk over all slots.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bulk {
    pub(super) next: Id,
    pub(super) done: u32,
    pub(super) total: u32,
    /// The number of the last frame of it.
    pub(super) end: Option<u64>,
    /// People were told that both bulks are complete.
    pub(super) told: bool,
}

/// What the peer said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) beat: Beat,
    pub(super) settled: bool,
    pub(super) conns: u32,
    pub(super) bulk_done: u32,
    pub(super) bulk_total: u32,
    pub(super) bulk_end: u64,
    pub(super) refused: u32,
    /// Our last mark that it found equal.
    pub(super) equal: u32,
}

/// The comparison of both tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compare {
    /// The last mark of ours.
    pub(super) mark: u32,
    /// The last mark of the peer's at which the tables were equal.
    pub(super) equal: u32,
    pub(super) equal_at: Option<Instant>,
    /// Comparisons in a row that found a difference.
    pub(super) unequal: u32,
    pub(super) verdict: Option<bool>,
    /// When to send digests again, and how long to wait after that.
    pub(super) again: Option<Instant>,
    pub(super) rounds: u32,
}

impl Memory {
    pub(super) fn new(node: u16, epoch: Random, greeting: &wire::Greeting, conns: u32) -> Self {
        Self {
            node,
            epoch,
            minor: greeting.minor,
            fingerprint: greeting.fingerprint,
            timeouts: Timeouts(greeting.timeouts.map(crate::sync::Tenths)),
            sender: Sender::default(),
            receiver: Receiver::default(),
            unacknowledged: 0,
            bulk: Bulk { total: conns, ..Bulk::default() },
            graves: VecDeque::new(),
            limbo: VecDeque::new(),
            said: Said {
                beat: Beat::default(),
                settled: false,
                conns: 0,
                bulk_done: 0,
                bulk_total: 0,
                bulk_end: 0,
                refused: 0,
                equal: 0,
            },
            compare: Compare::default(),
            absent: Vec::new(),
            digests: None,
            repair: Vec::new(),
        }
    }

    /// A frame of the bulk may be sent.
    pub(super) fn has_room_for_bulk(&self) -> bool {
        self.sender.under_way() < WINDOW && self.sender.bulk_under_way() < BULK_WINDOW
    }

    /// Everything that either had is with the other one.
    pub(super) fn bulk_is_done(&self) -> bool {
        let sent = self.bulk.end.is_some_and(|end| self.sender.under_way() == 0 || self.first_under_way() > end);
        sent && self.peer_bulk_is_done()
    }

    fn first_under_way(&self) -> u64 {
        self.sender.last() + 1 - self.sender.under_way()
    }

    /// Everything that the peer had is here. (The end is 1 more than its number, so that 0 says "not yet".)
    pub(super) fn peer_bulk_is_done(&self) -> bool {
        self.said.bulk_end != 0 && self.receiver.received() + 1 >= self.said.bulk_end
    }
}

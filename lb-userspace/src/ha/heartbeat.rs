//! The witness on the sync path: what the peer says of itself, and how long that is good for.

use std::{net::Ipv4Addr, time::Instant};

use super::{HeartbeatTiming, witness::SyncPath};

/// What the peer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// It holds all VIPs.
    Active,
    /// It holds none and could.
    Backup,
    /// It holds none and must not.
    Fault,
    /// It is stopping or handing over.
    Leaving,
}

/// A heartbeat of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// What it is.
    pub role: PeerRole,
    /// Its priority.
    pub priority: u8,
    /// Its address on the first transport: decides between equal priorities, as it does between adverts.
    pub address: Ipv4Addr,
}

/// The last heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    timing: Option<HeartbeatTiming>,
    last: Option<Beat>,
    /// Without another heartbeat by then, it is lost.
    deadline: Option<Instant>,
    lost: bool,
    /// Since when, if it was there before.
    lost_since: Option<Instant>,
}

impl Heartbeat {
    pub(super) const fn new(timing: Option<HeartbeatTiming>) -> Self {
        Self { timing, last: None, deadline: None, lost: true, lost_since: None }
    }

    pub(super) fn beat(&mut self, beat: Beat, now: Instant) {
        let Some(timing) = self.timing else { return };
        self.last = Some(beat);
        self.deadline = Some(now + timing.lost());
        self.lost = false;
    }

    /// Gives the heartbeat time once more: nobody listened.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let (Some(timing), false) = (self.timing, self.lost) {
            self.deadline = Some(now + timing.lost());
        }
    }

    /// Waits for the first heartbeat until `deadline`.
    pub(super) fn expect_by(&mut self, deadline: Instant) {
        self.deadline = self.timing.map(|_| deadline);
    }

    /// Notes whether it is lost; `true`: that is news.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.deadline.is_some_and(|deadline| deadline <= now);
        if due {
            self.deadline = None;
            self.lost = true;
            self.lost_since = self.last.map(|_| now);
        }
        due
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) const fn sight(&self) -> SyncPath {
        match self.last {
            Some(beat) if !self.lost => SyncPath::Alive(beat.role),
            _ => SyncPath::Silent,
        }
    }

    /// Since when there is no heartbeat any more of a peer that was Active to the last.
    pub(super) fn lost_an_active(&self) -> Option<Instant> {
        let active = self.last.is_some_and(|beat| beat.role == PeerRole::Active);
        self.lost_since.filter(|_| self.lost && active)
    }

    pub(super) const fn timing(&self) -> Option<HeartbeatTiming> {
        self.timing
    }

    pub(super) const fn last(&self) -> Option<Beat> {
        self.last
    }
}

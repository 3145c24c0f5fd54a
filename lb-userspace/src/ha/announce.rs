//! When the neighbours are told by gratuitous ARP who has the VIPs: at once, again, and now and then.
//!
//! One lost frame must not cost an address until somebody's ARP entry ages out.

use std::time::{Duration, Instant};

/// How often the neighbours are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpSchedule {
    /// Announcements of each VIP in a burst.
    pub burst: u8,
    /// The pause after which a burst is repeated.
    pub again: Duration,
    /// The pause between single announcements for as long as the VIPs are here; `None`: never.
    pub refresh: Option<Duration>,
}

impl Default for ArpSchedule {
    fn default() -> Self {
        Self { burst: 5, again: Duration::from_secs(5), refresh: Some(Duration::from_secs(10)) }
    }
}

/// What is still to be announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcements {
    schedule: ArpSchedule,
    again: Option<Instant>,
    refresh: Option<Instant>,
    started: Option<Instant>,
}

impl Announcements {
    pub(super) const fn new(schedule: ArpSchedule) -> Self {
        Self { schedule, again: None, refresh: None, started: None }
    }

    /// Plans for VIPs that are here since now; returns how often to announce each of them at once.
    pub(super) fn start(&mut self, now: Instant) -> u8 {
        self.started = Some(now);
        self.again = Some(now + self.schedule.again);
        self.refresh = self.schedule.refresh.map(|pause| now + pause);
        self.schedule.burst
    }

    /// The last first burst is not older than this.
    pub(super) fn has_started_within(&self, time: Duration, now: Instant) -> bool {
        self.started.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    pub(super) fn stop(&mut self) {
        self.again = None;
        self.refresh = None;
    }

    /// How often to announce each VIP now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u8> {
        let repeat = self.again.is_some_and(|at| at <= now);
        let refresh = self.refresh.is_some_and(|at| at <= now);
        if repeat {
            self.again = None;
        }
        if refresh {
            self.refresh = self.schedule.refresh.map(|pause| now + pause);
        }
        match (repeat, refresh) {
            (true, _) => Some(self.schedule.burst),
            (false, true) => Some(1),
            (false, false) => None,
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.refresh).min()
    }
}

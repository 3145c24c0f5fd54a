//! When the neighbours are told by gratuitous ARP who has the VIPs: at once, again, and now and then.
//!
//! One lost frame must not cost an address until somebody's ARP entry ages out.

use std::time::{Duration, Instant};

/// How often the neighbours are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpSchedule {
    /// Announcements of each VIP in a burst.
    pub burst: u8,
    /// How long after the first burst it is repeated, in order.
    pub repeats: [Duration; 2],
    /// The pause between single announcements for as long as the VIPs are here; `None`: never.
    pub refresh: Option<Duration>,
}

impl Default for ArpSchedule {
    /// Linux believes no second sender within a second of the first (`locktime` in arp(7)): the first repetition comes
    /// right after that. Another one is for those who missed both.
    fn default() -> Self {
        let repeats = [Duration::from_millis(1100), Duration::from_secs(5)];
        Self { burst: 5, repeats, refresh: Some(Duration::from_secs(10)) }
    }
}

/// What is still to be announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcements {
    schedule: ArpSchedule,
    /// Repetitions done.
    repeated: usize,
    refresh: Option<Instant>,
    /// The first burst, also when the VIPs have left since.
    started: Option<Instant>,
}

impl Announcements {
    pub(super) const fn new(schedule: ArpSchedule) -> Self {
        Self { schedule, repeated: schedule.repeats.len(), refresh: None, started: None }
    }

    /// Plans for VIPs that are here since now; returns how often to announce each of them at once.
    pub(super) fn start(&mut self, now: Instant) -> u8 {
        self.started = Some(now);
        self.repeated = 0;
        self.refresh = self.schedule.refresh.map(|pause| now + pause);
        self.schedule.burst
    }

    /// There may be another Active, one that nobody hears of: what the neighbours know now stays as it is. Who became
    /// Active after that repeats its call all the same.
    pub(super) fn be_quiet(&mut self) {
        self.stop();
    }

    /// There is no other one.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.refresh.is_none() {
            self.refresh = self.schedule.refresh.map(|pause| now + pause);
        }
    }

    /// As [`Self::start`], but what the neighbours know after the last repetition is not refreshed.
    pub(super) fn start_quietly(&mut self, now: Instant) -> u8 {
        let burst = self.start(now);
        self.refresh = None;
        burst
    }

    pub(super) fn stop(&mut self) {
        self.repeated = self.schedule.repeats.len();
        self.refresh = None;
    }

    /// How often to announce each VIP now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u8> {
        let repeat = self.repeat().is_some_and(|at| at <= now);
        let refresh = self.refresh.is_some_and(|at| at <= now);
        if repeat {
            self.repeated += 1;
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
        self.repeat().into_iter().chain(self.refresh).min()
    }

    fn repeat(&self) -> Option<Instant> {
        Some(self.started? + *self.schedule.repeats.get(self.repeated)?)
    }
}

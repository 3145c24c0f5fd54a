//! Time as the sync keeps it: tenths of a second, as ages on the wire and as ticks of this process in the index.
//!
//! No wall clock and no clock of the peer: an age means the same on both directors, up to the delay of a frame.

use std::time::{Duration, Instant};

/// A length of time in tenths of a second; the longest is 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenths(pub u32);

impl Tenths {
    /// The longest.
    pub const MAX: Self = Self(u32::MAX);
    /// Two ages of one thing may differ by this much, because they were rounded on their ways.
    pub const ROUNDING: Self = Self(3);

    /// Rounded down, and cut at the longest.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// The same time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 100)
    }

    /// The sum, cut at the longest.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

/// A moment of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

/// Where the ticks begin: conns may be older than the process, by up to three years.
const START: u32 = 1 << 30;

impl Tick {
    /// Before every other.
    pub(super) const NEVER: Self = Self(0);

    /// The moment so long before.
    pub(super) const fn before(self, age: Tenths) -> Self {
        Self(self.0.saturating_sub(age.0))
    }

    /// The moment so long after.
    pub(super) const fn after(self, time: Tenths) -> Self {
        Self(self.0.saturating_add(time.0))
    }

    /// The time since a moment; zero if it is yet to come.
    pub(super) const fn since(self, then: Self) -> Tenths {
        Tenths(self.0.saturating_sub(then.0))
    }
}

/// Turns instants into ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) const fn new(origin: Instant) -> Self {
        Self { origin }
    }

    pub(super) fn tick(&self, now: Instant) -> Tick {
        Tick(START).after(Tenths::from_duration(now.saturating_duration_since(self.origin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_ticks_are_inverse_and_never_wrap() {
        #[expect(clippy::disallowed_methods, reason = "an origin: an Instant has no other")]
        let origin = Instant::now();
        let clock = Clock::new(origin);
        let now = clock.tick(origin + Duration::from_millis(1250));
        assert_eq!(now.since(clock.tick(origin)), Tenths(12));
        assert_eq!(now.since(now.before(Tenths(500))), Tenths(500));
        assert_eq!(now.before(now.after(Tenths(7)).since(now)).since(now), Tenths(0));
        assert_eq!(Tick(5).before(Tenths(u32::MAX)), Tick(0));
        assert_eq!(Tenths::from_duration(Duration::MAX), Tenths(u32::MAX));
    }
}

//! The packet path's clock: conns carry jiffies, people and configs use seconds.
//!
//! Owns the conversion and how the tick rate is found: two readings of the kernel's jiffies and of its monotonic
//! clock, taken by the program `lb_clock`. No header or /proc file tells HZ reliably.

use std::time::Duration;

/// Both clocks at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The kernel's jiffies, 64 bits.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub ns: u64,
}

/// The tick rates that kernels are built with.
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// How far apart two readings for [`rate`] must be at least.
pub const SPAN: Duration = Duration::from_millis(60);

/// The ticks per second between two readings; `None` if they are too close or fit no rate within a tick and a half.
#[must_use]
pub fn rate(first: Reading, second: Reading) -> Option<u32> {
    let ns = second.ns.checked_sub(first.ns)? as f64;
    let ticks = second.jiffies.checked_sub(first.jiffies)? as f64;
    if ns < 50e6 {
        return None;
    }
    let off = |rate: u32| (ns * f64::from(rate) / 1e9 - ticks).abs();
    let best = RATES.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b)))?;
    (off(best) <= 1.5).then_some(best)
}

/// Converts between jiffies and durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Ticks per second.
    pub hz: u32,
}

impl Ticks {
    /// A duration in ticks, rounded up; at most what [`Ticks::since`] can tell, 49 days at 1000 Hz.
    #[must_use]
    pub fn from_duration(self, duration: Duration) -> u32 {
        let ticks = (duration.as_nanos() * u128::from(self.hz)).div_ceil(1_000_000_000);
        u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX - self.hz.saturating_mul(120))
    }

    /// Ticks as a duration.
    #[must_use]
    pub fn to_duration(self, ticks: u32) -> Duration {
        Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(self.hz.max(1)))
    }

    /// The ticks from `then` to `now`, both low words. A `then` up to a minute ahead counts as now: entries may be
    /// newer than the reading of the clock.
    #[must_use]
    pub fn since(self, now: u32, then: u32) -> u32 {
        let ahead = then.wrapping_sub(now);
        if ahead <= self.hz.saturating_mul(60) { 0 } else { now.wrapping_sub(then) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_found_in_sixty_milliseconds() {
        for hz in RATES {
            for phase in 0..100 {
                let start = phase * 10_000_000 / u64::from(hz);
                let at = |ns: u64| Reading { jiffies: 4_294_900_000 + ns * u64::from(hz) / 1_000_000_000, ns };
                assert_eq!(rate(at(start), at(start + 60_000_000)), Some(hz), "{hz} Hz, phase {phase}");
            }
        }
        let at = |jiffies, ns| Reading { jiffies, ns };
        assert_eq!(rate(at(0, 0), at(2, 10_000_000)), None, "too close");
        assert_eq!(rate(at(0, 0), at(500, 1_000_000_000)), None, "500 Hz is no rate of Linux");
    }

    #[test]
    fn time_survives_the_wrap_and_the_race() {
        let ticks = Ticks { hz: 250 };
        assert_eq!(ticks.since(5, u32::MAX - 4), 10);
        assert_eq!(ticks.since(100, 101), 0);
        assert_eq!(ticks.from_duration(Duration::from_secs(60)), 15_000);
        assert_eq!(ticks.from_duration(Duration::from_millis(1)), 1);
        assert_eq!(ticks.to_duration(15_000), Duration::from_secs(60));
        assert_eq!(ticks.from_duration(Duration::from_secs(1 << 40)), u32::MAX - 30_000);
    }
}

//! When checks run: intervals by state, and a little chance so that the checks of many backends do not march in step.

use std::time::Duration;

/// The rhythm of the checks of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// From the start of a check to the start of the next, while the backend is up.
    pub inter: Duration,
    /// The same while its health is about to change, or it is full.
    pub fastinter: Duration,
    /// The same while it is down.
    pub downinter: Duration,
    /// How long a check may take. While an up backend fails, further checks take no longer than `fastinter`, so that it
    /// is out within `timeout + (fall - 1) × fastinter` of the start of the first check that fails.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that bring it down.
    pub fall: u32,
    /// Intervals are shorter by up to this share of them, in percent. Never longer.
    pub jitter: u32,
}

impl Default for Cadence {
    fn default() -> Self {
        Self {
            inter: Duration::from_secs(1),
            fastinter: Duration::from_millis(500),
            downinter: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 10,
        }
    }
}

impl Cadence {
    /// How long it takes at most from the start of the first check that fails until the backend is down.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.timeout + self.fastinter * self.fall.saturating_sub(1)
    }
}

/// Chance from a seed: SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A part of `whole`, from nothing to `percent` of it.
    pub(super) fn part(&mut self, whole: Duration, percent: u32) -> Duration {
        const STEPS: u64 = 1024;
        // At most STEPS, which fits.
        let step = (self.draw() % (STEPS + 1)) as u32;
        whole * percent.min(100) / 100 * step / STEPS as u32
    }

    /// `interval`, shorter by up to `percent` of it.
    pub(super) fn shorten(&mut self, interval: Duration, percent: u32) -> Duration {
        interval - self.part(interval, percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_by_at_most_its_share_and_spreads() {
        let second = Duration::from_secs(1);
        let mut jitter = Jitter::new(7);
        let drawn: Vec<Duration> = (0..2000).map(|_| jitter.shorten(second, 10)).collect();
        assert!(drawn.iter().all(|d| (Duration::from_millis(900)..=second).contains(d)), "{drawn:?}");
        let early = drawn.iter().filter(|d| **d < Duration::from_millis(950)).count();
        assert!((800..1200).contains(&early), "{early} of 2000 in the first half");
        assert_eq!(jitter.shorten(second, 0), second);
    }
}

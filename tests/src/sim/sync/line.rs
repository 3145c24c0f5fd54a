//! The line between both directors: loss, repetition, delay, reordering, each way on its own, and cuts.

use std::time::{Duration, Instant};

use crate::chance::Chance;

/// One way of the line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// It carries anything at all.
    pub open: bool,
    /// So many of 1000 frames are lost.
    pub loss: u64,
    /// So many of 1000 frames arrive twice.
    pub twice: u64,
    /// So many of 1000 frames take a detour, and arrive after others.
    pub detour: u64,
    /// The shortest and the longest time on the way.
    pub delay: (Duration, Duration),
}

impl Line {
    /// A good line.
    #[must_use]
    pub const fn good() -> Self {
        let delay = (Duration::from_micros(50), Duration::from_micros(500));
        Self { open: true, loss: 0, twice: 0, detour: 0, delay }
    }

    /// When a frame that is sent now arrives: never, once or twice.
    pub fn carry(&self, now: Instant, chance: &mut Chance) -> Vec<Instant> {
        if !self.open || chance.permille(self.loss) {
            return Vec::new();
        }
        let copies = if chance.permille(self.twice) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let detour = if chance.permille(self.detour) { Duration::from_millis(30) } else { Duration::ZERO };
                now + chance.between(self.delay.0, self.delay.1) + chance.between(Duration::ZERO, detour)
            })
            .collect()
    }
}

//! The segments: who hears whom, how late, and how often not. Every direction of every pair on its own.

use std::time::{Duration, Instant};

use super::Chance;

/// The segment of the clients.
pub const EXT: usize = 0;
/// The segment of the servers.
pub const INT: usize = 1;
/// The segment of the heartbeats.
pub const SYNC: usize = 2;
/// Those on a segment that only listen for ARP.
pub const NEIGHBOURS: usize = 2;

const SEGMENTS: usize = 3;
const ENDS: usize = 3;

/// One direction between two ends of a segment.
#[derive(Clone, Copy, Debug)]
struct Path {
    open: bool,
    loss: u64,
    last_arrival: Option<Instant>,
}

/// The network.
#[derive(Clone, Debug)]
pub struct Net {
    paths: [[[Path; ENDS]; ENDS]; SEGMENTS],
    delay: (Duration, Duration),
}

impl Net {
    /// A network without fault, whose packets take between two times.
    #[must_use]
    pub const fn new(delay: (Duration, Duration)) -> Self {
        let path = Path { open: true, loss: 0, last_arrival: None };
        Self { paths: [[[path; ENDS]; ENDS]; SEGMENTS], delay }
    }

    /// The longest time a packet takes.
    #[must_use]
    pub const fn longest_delay(&self) -> Duration {
        self.delay.1
    }

    /// Opens or cuts one direction.
    pub const fn set_open(&mut self, segment: usize, from: usize, to: usize, open: bool) {
        self.paths[segment][from][to].open = open;
    }

    /// Opens or cuts a segment between the two hosts; each keeps its neighbours.
    pub const fn set_joined(&mut self, segment: usize, open: bool) {
        self.set_open(segment, 0, 1, open);
        self.set_open(segment, 1, 0, open);
    }

    /// Lets so many of 1000 packets of one direction be lost.
    pub const fn set_loss(&mut self, segment: usize, from: usize, to: usize, permille: u64) {
        self.paths[segment][from][to].loss = permille;
    }

    /// Repairs everything.
    pub fn heal(&mut self) {
        for path in self.paths.as_flattened_mut().as_flattened_mut() {
            path.open = true;
            path.loss = 0;
        }
    }

    /// When a packet that is sent now arrives; `None`: never. Packets do not overtake each other on a path.
    pub fn carry(
        &mut self,
        segment: usize,
        from: usize,
        to: usize,
        now: Instant,
        chance: &mut Chance,
    ) -> Option<Instant> {
        let path = &mut self.paths[segment][from][to];
        if !path.open || chance.permille(path.loss) {
            return None;
        }
        let arrival = now + chance.between(self.delay.0, self.delay.1);
        let arrival = path.last_arrival.map_or(arrival, |last| last.max(arrival));
        path.last_arrival = Some(arrival);
        Some(arrival)
    }
}

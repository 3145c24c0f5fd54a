//! Do open MySQL sessions survive what happens to directors? Two agents with connection sync in a lab with real servers,
//! sessions of three kinds, events, and a count after each.

mod fleet;
mod report;
mod scene;

use std::time::Duration;

pub use fleet::{Census, Fleet, Kind};
pub use report::{Report, Row};
pub use scene::{Event, Scene};

/// How much is tried. `LB_LONG=1` asks for all of it; without, seconds have to do.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Open sessions.
    pub sessions: usize,
    /// Failovers in a row.
    pub failovers: usize,
    /// How long the directors do not hear each other.
    pub split: Duration,
    /// How long the sync path is away.
    pub outage: Duration,
}

impl Size {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let long = std::env::var_os("LB_LONG").is_some_and(|value| value == "1");
        if long {
            Self { sessions: 1000, failovers: 10, split: Duration::from_secs(20), outage: Duration::from_secs(30) }
        } else {
            Self { sessions: 100, failovers: 3, split: Duration::from_secs(6), outage: Duration::from_secs(4) }
        }
    }
}

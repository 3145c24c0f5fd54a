//! What is wrong and does not go away by itself: raised once, cleared once.

use super::Config;

/// A condition that somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The peer is alive, but its adverts do not arrive on this transport.
    AdvertPath {
        /// The transport.
        transport: usize,
    },
    /// No heartbeat of the peer arrives: nobody knows whether it could take over.
    Heartbeat,
    /// Another director is Active, too.
    TwoActives,
    /// The connections were not synchronised in time; this director takes part all the same.
    Unsynced,
}

impl Alarm {
    /// The word for it in status and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdvertPath { .. } => "advert-path-broken",
            Self::Heartbeat => "heartbeat-lost",
            Self::TwoActives => "two-actives",
            Self::Unsynced => "unsynced",
        }
    }

    /// What it means, in a sentence.
    #[must_use]
    pub fn describe(self, config: &Config) -> String {
        match self {
            Self::AdvertPath { transport } => {
                format!("the peer is alive, but none of its adverts arrive on {}", config.transport(transport))
            }
            Self::Heartbeat => "no heartbeat of the peer on the sync path".into(),
            Self::TwoActives => "another director is Active, too".into(),
            Self::Unsynced => "connections were not synchronised in time, takes part all the same".into(),
        }
    }
}

/// The alarms that are raised.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms(Vec<Alarm>);

impl Alarms {
    /// Room for every alarm there is, so that raising one allocates nothing.
    pub(super) fn with_transports(count: usize) -> Self {
        Self(Vec::with_capacity(count + 3))
    }

    /// Raises or clears an alarm; `true`: that is news.
    pub(super) fn set(&mut self, alarm: Alarm, raised: bool) -> bool {
        match (self.0.iter().position(|other| *other == alarm), raised) {
            (None, true) => self.0.push(alarm),
            (Some(at), false) => {
                self.0.remove(at);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn is_raised(&self, alarm: Alarm) -> bool {
        self.0.contains(&alarm)
    }

    pub(super) fn all(&self) -> &[Alarm] {
        &self.0
    }
}

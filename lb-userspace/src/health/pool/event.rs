//! What happened to a backend, for people: one line per change, with its cause.

use std::{fmt, time::Duration};

use super::member::{Agreement, Tier};
use crate::health::checker::Trouble;

/// Why conns are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCause {
    /// The backend is down.
    Down,
    /// It was down and comes back: what was told to it then may not have arrived.
    Returned,
    /// It was to be drained by now.
    Deadline,
    /// The operator wants it.
    Operator,
}

impl fmt::Display for ResetCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "the backend is down",
            Self::Returned => "the backend is back and may not have heard",
            Self::Deadline => "the deadline of the drain has passed",
            Self::Operator => "the operator wants it",
        })
    }
}

/// What happened. `backend` is its place in the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It serves.
    Up {
        /// Which one.
        backend: usize,
        /// Why.
        cause: String,
        /// It gets its share slowly.
        slow: bool,
    },
    /// It does not.
    Down {
        /// Which one.
        backend: usize,
        /// Why.
        cause: String,
    },
    /// It takes no more conns for now, or does again.
    Full {
        /// Which one.
        backend: usize,
        /// It is full.
        full: bool,
    },
    /// The check is hindered, or is no longer.
    Trouble {
        /// Which one.
        backend: usize,
        /// By what.
        trouble: Option<Trouble>,
    },
    /// It has its whole share after a slow start.
    Warm {
        /// Which one.
        backend: usize,
    },
    /// It is drained.
    Draining {
        /// Which one.
        backend: usize,
        /// When the rest is reset.
        deadline: Option<Duration>,
    },
    /// The operator took it out.
    Disabled {
        /// Which one.
        backend: usize,
    },
    /// The operator put it back.
    Enabled {
        /// Which one.
        backend: usize,
    },
    /// The two directors see it differently, or alike again.
    Agreement {
        /// Which one.
        backend: usize,
        /// How.
        agreement: Agreement,
    },
    /// Other backends take the new conns now.
    Tier {
        /// Which ones; `None`: nobody does.
        tier: Option<Tier>,
    },
}

impl Event {
    /// Which backend it is about; none: the service.
    #[must_use]
    pub const fn backend(&self) -> Option<usize> {
        match self {
            Self::Up { backend, .. }
            | Self::Down { backend, .. }
            | Self::Full { backend, .. }
            | Self::Trouble { backend, .. }
            | Self::Warm { backend }
            | Self::Draining { backend, .. }
            | Self::Disabled { backend }
            | Self::Enabled { backend }
            | Self::Agreement { backend, .. } => Some(*backend),
            Self::Tier { .. } => None,
        }
    }

    /// Somebody should look at it.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        match self {
            Self::Down { .. } | Self::Full { full: true, .. } | Self::Trouble { trouble: Some(_), .. } => true,
            Self::Agreement { agreement, .. } => {
                matches!(agreement, Agreement::DownHereOnly | Agreement::DownThereOnly)
            }
            Self::Tier { tier } => !matches!(tier, Some(Tier::Primary)),
            _ => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { cause, slow: false, .. } => write!(f, "up: {cause}"),
            Self::Up { cause, slow: true, .. } => write!(f, "up, with a slow start: {cause}"),
            Self::Down { cause, .. } => write!(f, "down: {cause}"),
            Self::Full { full: true, .. } => {
                f.write_str("full: too many connections; no new conns while others have room")
            }
            Self::Full { full: false, .. } => f.write_str("has room again"),
            Self::Trouble { trouble: Some(trouble @ Trouble::Blocked(_)), .. } => {
                write!(f, "the server blocks the checks of this host; verdict unchanged: {}", trouble.text())
            }
            Self::Trouble { trouble: Some(trouble @ Trouble::CheckUser(_)), .. } => {
                write!(f, "the check user does not work; verdict unchanged: {}", trouble.text())
            }
            Self::Trouble { trouble: Some(trouble @ Trouble::Unmade(_)), .. } => {
                write!(f, "this director cannot make its checks; verdict unchanged: {}", trouble.text())
            }
            Self::Trouble { trouble: None, .. } => f.write_str("the check is no longer hindered"),
            Self::Warm { .. } => f.write_str("has its whole share again"),
            Self::Draining { deadline: None, .. } => f.write_str("draining"),
            Self::Draining { deadline: Some(after), .. } => write!(f, "draining; the rest is reset in {after:?}"),
            Self::Disabled { .. } => f.write_str("disabled by the operator"),
            Self::Enabled { .. } => f.write_str("enabled by the operator"),
            Self::Agreement { agreement, .. } => write!(f, "{agreement}"),
            Self::Tier { tier: None } => f.write_str("no backend takes new conns"),
            Self::Tier { tier: Some(tier) } => write!(f, "new conns go to the {tier} backends"),
        }
    }
}

//! The parameters of an election.

use std::{fmt, net::Ipv4Addr, time::Duration};

use crate::vrrp::{PRIORITY_OWNER, PRIORITY_RESIGN, Version, interval::Interval, machine::Preempt};

use super::ArpSchedule;

/// How much the peer is known to be one of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The peer is such a director as this one: it gives up all its VIPs at once, and there is no third.
    Pair,
    /// The peer is another VRRP implementation: adverts only, read to the letter of the RFC.
    Strict,
}

/// A VRRP instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The interface, for people.
    pub name: String,
    /// The protocol version.
    pub version: Version,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// Our advert interval on it.
    pub interval: Interval,
}

/// How the heartbeat of the sync path is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTiming {
    /// The pause between two heartbeats.
    pub interval: Duration,
    /// This many missing ones mean that the path, or the peer, is gone.
    pub lost_after: u32,
}

impl HeartbeatTiming {
    /// How long silence lasts until the heartbeat counts as lost.
    #[must_use]
    pub fn lost(&self) -> Duration {
        self.interval * self.lost_after
    }
}

/// The parameters of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How much the peer is known to be one of us.
    pub mode: Mode,
    /// Of this director, on all transports.
    pub priority: u8,
    /// What to do about an Active of lower priority.
    pub preempt: Preempt,
    /// At least one. In the same order on both directors: the first one decides between equal priorities.
    pub transports: Vec<Transport>,
    /// What else this director needs to be of use, by name: the packet path, scripts, processes.
    pub checks: Vec<String>,
    /// `None`: there is no sync path.
    pub heartbeat: Option<HeartbeatTiming>,
    /// When the neighbours are told who has the VIPs.
    pub arp: ArpSchedule,
    /// Takes over although the heartbeat says that the peer is Active, when no advert was heard for so long.
    pub hold_max: Option<Duration>,
}

/// Why there can be no election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No transport.
    NoTransport,
    /// Priority 0 says that somebody gives up.
    PriorityZero,
    /// Priority 255 belongs to the owner of the addresses, and a VIP of a pair has none.
    OwnerInPair,
    /// A transport's interval does not exist in its version.
    Interval,
    /// A heartbeat without interval, or lost before it is late.
    Heartbeat,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTransport => "there is no transport",
            Self::PriorityZero => "priority 0 is what a director says that gives up",
            Self::OwnerInPair => "priority 255 is for the owner of an address, and nobody owns a VIP",
            Self::Interval => "the version cannot express this advert interval",
            Self::Heartbeat => "the heartbeat needs an interval and at least one that may be missed",
        })
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fits = |t: &Transport| Interval::new(t.version, t.interval.centis()).is_some();
        if self.transports.is_empty() {
            Err(ConfigError::NoTransport)
        } else if self.priority == PRIORITY_RESIGN {
            Err(ConfigError::PriorityZero)
        } else if self.priority == PRIORITY_OWNER && self.mode == Mode::Pair {
            Err(ConfigError::OwnerInPair)
        } else if !self.transports.iter().all(fits) {
            Err(ConfigError::Interval)
        } else if self.heartbeat.is_some_and(|h| h.interval.is_zero() || h.lost_after == 0) {
            Err(ConfigError::Heartbeat)
        } else {
            Ok(())
        }
    }

    /// The name of a transport.
    #[must_use]
    pub fn transport(&self, index: usize) -> &str {
        self.transports.get(index).map_or("?", |transport| transport.name.as_str())
    }

    /// The name of a check.
    #[must_use]
    pub fn check_name(&self, index: usize) -> &str {
        self.checks.get(index).map_or("?", String::as_str)
    }
}

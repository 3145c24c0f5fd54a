//! Why a role changed, as it is shown to people.

use std::net::Ipv4Addr;

use super::{Config, witness::Reason};

/// Why a role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The agent has started.
    Start,
    /// No advert on any transport.
    Silence,
    /// The heartbeat is lost, and the adverts that were due did not come.
    HeartbeatLost,
    /// The peer gave up with priority 0.
    PeerResigned,
    /// The peer says that it is in Fault, or leaves.
    PeerFault,
    /// The peer has a lower priority.
    Preempt,
    /// No advert for the longest time that the config allows to believe the heartbeat.
    HoldExpired,
    /// A better router is Active.
    Outranked {
        /// Where it was heard.
        transport: usize,
        /// Its address.
        by: Ipv4Addr,
        /// Its priority.
        priority: u8,
    },
    /// The heartbeat says that a better director is Active.
    OutrankedBySync,
    /// This director has slept, and another one is Active since.
    Superseded,
    /// The operator wants it so.
    HandOver,
    /// The operator wants it so, and the peer has given way.
    Taken,
    /// The agent stops.
    Stop,
    /// A link is down.
    LinkDown {
        /// Of which transport.
        transport: usize,
    },
    /// A check fails.
    CheckFailed {
        /// Which one.
        check: usize,
    },
    /// Nothing is wrong any more.
    Recovered,
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Silence => Self::Silence,
            Reason::Resigned => Self::PeerResigned,
            Reason::PeerFault => Self::PeerFault,
            Reason::Preempt => Self::Preempt,
        }
    }
}

impl Cause {
    /// The cause in a few words.
    #[must_use]
    pub fn describe(self, config: &Config) -> String {
        match self {
            Self::Start => "the agent started".into(),
            Self::Silence => "no adverts from anybody".into(),
            Self::HeartbeatLost => "heartbeat lost, and no adverts".into(),
            Self::PeerResigned => "the peer gave up".into(),
            Self::PeerFault => "the peer is in Fault or leaves".into(),
            Self::Preempt => "the peer has a lower priority".into(),
            Self::HoldExpired => "no adverts for too long, whatever the heartbeat says".into(),
            Self::Outranked { transport, by, priority } => {
                format!("{by} is Active on {} with priority {priority}", config.transport(transport))
            }
            Self::OutrankedBySync => "a better director is Active, says its heartbeat".into(),
            Self::Superseded => "another director became Active while this one slept".into(),
            Self::HandOver => "handed over".into(),
            Self::Taken => "taken over from the peer".into(),
            Self::Stop => "the agent stops".into(),
            Self::LinkDown { transport } => format!("{} down", config.transport(transport)),
            Self::CheckFailed { check } => format!("{} failed", config.check_name(check)),
            Self::Recovered => "nothing is wrong any more".into(),
        }
    }
}

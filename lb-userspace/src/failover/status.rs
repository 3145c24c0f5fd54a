//! What the running election tells: its state for the operator, and events for the log.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::realtime::Granted;
use crate::{
    ha::{Alarm, Cause, Role},
    vrrp::packet::{Counters, DecodeError},
};

/// The running election at a glance.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the election knows.
    pub election: crate::ha::Status,
    /// Each transport, in the order of the election's.
    pub transports: Vec<TransportStatus>,
    /// The ARP gate is open.
    pub gate_open: bool,
    /// What the kernel granted to the thread.
    pub granted: Granted,
    /// How often the thread came late enough to matter.
    pub late: u64,
    /// The longest delay of a tick so far.
    pub worst_delay: Duration,
}

/// The traffic of a transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportStatus {
    /// What was received.
    pub received: Counters,
    /// Adverts sent.
    pub sent: u64,
    /// Adverts that could not be sent.
    pub send_errors: u64,
}

/// What has happened, with its time.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: Happened,
}

/// What version 3 tolerates, and an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The checksum is computed in the other way.
    Checksum,
    /// Other VIPs.
    Addresses,
    /// Another advert interval.
    Interval,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Happened {
    /// The role has changed.
    Role {
        /// What this director is now.
        role: Role,
        /// Why.
        cause: Cause,
        /// What it was before.
        was: Role,
        /// How long ago another Active was heard last, its last word included; `None`: never.
        silence: Option<Duration>,
    },
    /// An alarm was raised or cleared.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Raised.
        raised: bool,
    },
    /// The thread was not scheduled for so long that it listens before it speaks.
    Late {
        /// For how long.
        by: Duration,
    },
    /// After this director gave its role away, another one was heard.
    TakenOver {
        /// The new Active.
        by: Ipv4Addr,
        /// Where it was heard.
        transport: usize,
        /// The time from our last word to its first.
        after: Duration,
    },
    /// An advert that counts, but differs from ours; said once.
    Differs {
        /// The router.
        from: Ipv4Addr,
        /// Where it was heard.
        transport: usize,
        /// In what.
        what: Difference,
    },
    /// An advert of our virtual router that does not count; said once for each reason.
    Ignored {
        /// The router.
        from: Ipv4Addr,
        /// Where it was heard.
        transport: usize,
        /// Why.
        reason: DecodeError,
    },
    /// Somebody took VIPs off an Active; they are back.
    Restored,
    /// The kernel refused something; said once until it works again.
    Failed {
        /// What.
        what: &'static str,
        /// Its answer.
        error: String,
    },
}

//! What the operator may see of an election.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    Alarm, Cause, Election, GateState, Role,
    witness::{Sight, SyncPath},
};

/// The state of the gate before preemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateStatus {
    /// Why it is closed.
    pub reason: String,
    /// How long it will hold at most.
    pub left: Duration,
}

/// A transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportStatus {
    /// Its interface.
    pub name: String,
    /// Its link carries packets.
    pub link_up: bool,
    /// What a Backup sees on it; `None` in another role.
    pub sight: Option<Sight>,
    /// The other router that was heard last.
    pub peer: Option<Ipv4Addr>,
    /// How long ago, and its priority, if that was in the present role.
    pub heard: Option<(Duration, u8)>,
}

/// An election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The role of all VIPs together.
    pub role: Role,
    /// For how long.
    pub age: Duration,
    /// Why.
    pub cause: Cause,
    /// It has slept, and does not speak before it has listened.
    pub listening: bool,
    /// Each transport.
    pub transports: Vec<TransportStatus>,
    /// The heartbeat; `None`: there is no sync path.
    pub heartbeat: Option<SyncPath>,
    /// The gate, if it is closed and counts.
    pub gate: Option<GateStatus>,
    /// What is broken.
    pub faults: Vec<Cause>,
    /// What is wrong.
    pub alarms: Vec<Alarm>,
}

impl Election {
    /// What there is to see at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let transports = self.legs.iter().zip(&self.config.transports).map(|(leg, transport)| TransportStatus {
            name: transport.name.clone(),
            link_up: leg.link_up,
            sight: (self.role == Role::Backup).then(|| leg.sight(self.config.mode)),
            peer: leg.peer,
            heard: leg.heard.map(|(at, heard)| (now.saturating_duration_since(at), heard.priority)),
        });
        let gate = match self.gate.state() {
            GateState::Closed { reason, .. } if self.role != Role::Active => self
                .gate
                .until()
                .map(|until| GateStatus { reason: reason.to_string(), left: until.saturating_duration_since(now) }),
            GateState::Closed { .. } | GateState::Open => None,
        };
        Status {
            role: self.role,
            age: self.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default(),
            cause: self.cause,
            listening: self.listening.is_some(),
            transports: transports.collect(),
            heartbeat: self.heartbeat.timing().map(|_| self.heartbeat.sight()),
            gate,
            faults: self.faults().collect(),
            alarms: self.alarms.all().to_vec(),
        }
    }
}

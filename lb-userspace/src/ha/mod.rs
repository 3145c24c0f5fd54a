//! One election for all VIPs: the VRRP instances of a director are transports of one group with one role.
//!
//! Pure. [`Election`] takes adverts, heartbeats, links, checks and time, and says in which order the ARP gate, the VIPs,
//! the adverts and the gratuitous ARP are to be touched; there is no action for one VIP alone. The decision
//! table is [`witness`], the protocol of each transport is [`crate::vrrp::machine`].

mod alarm;
mod announce;
mod cause;
mod config;
mod decide;
mod election;
mod gate;
mod hearing;
mod heartbeat;
mod leg;
mod status;
mod takeover;
#[cfg(test)]
mod tests;
mod transition;
pub mod witness;

pub use alarm::Alarm;
pub use announce::ArpSchedule;
pub use cause::Cause;
pub use config::{Config, ConfigError, HeartbeatTiming, Mode, Transport};
pub use election::{Action, Election, Input};
pub use gate::GateState;
pub use heartbeat::{Beat, PeerRole};
pub use status::{GateStatus, Status, TransportStatus};

/// What a director is, for all its VIPs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds all VIPs.
    Active,
    /// Holds none, and is ready to take them.
    Backup,
    /// Holds none, and must not take them: something it needs is broken.
    Fault,
}

impl Role {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Backup => "Backup",
            Self::Fault => "Fault",
        }
    }
}

//! VRRP versions 2 and 3 for IPv4 (RFC 3768, RFC 9568): the wire format and the state machine of one virtual router.
//!
//! Both are pure: [`packet`] turns bytes into adverts and back, [`machine`] turns adverts and time into actions.
//! What several virtual routers of one director decide together is [`crate::ha`].

pub mod interval;
pub mod machine;
pub mod packet;

/// The protocol version that a virtual router speaks. The two do not understand each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 3768: intervals in whole seconds, which must be equal everywhere.
    V2,
    /// RFC 9568: intervals in centiseconds, learned from the Active.
    V3,
}

impl Version {
    /// The number in the packet.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Sent by an Active that gives up: "take over now" (RFC 9568 §5.2.4).
pub const PRIORITY_RESIGN: u8 = 0;
/// The priority of a router that has the virtual addresses as its own (RFC 9568 §5.2.4).
pub const PRIORITY_OWNER: u8 = 255;

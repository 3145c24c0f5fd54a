//! The interfaces of the packet path and the link-layer addresses that frames for this director carry.
//!
//! A flooded frame reaches both directors of a pair; only the one it is addressed to may translate it. The TC hook is
//! told by the kernel (`skb->pkt_type`), the XDP hook compares the address itself.

use crate::layout::map_type;

/// Slots of `links`; an interface's slot is its index modulo this.
pub const LINK_SLOTS: u32 = 256;

/// The addresses of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Link {
    /// The interface's index; 0: the slot is free. Frames of an interface without a slot are not checked.
    pub ifindex: u32,
    /// Its own address.
    pub own: [u8; 6],
    /// One more that it takes, a virtual router's (RFC 9568 §7.3); the same as `own` if there is none.
    pub other: [u8; 6],
}

map_type!(Link, size = 16, enums = {});

impl Link {
    /// The slot of an interface.
    #[inline(always)]
    #[must_use]
    pub const fn slot(ifindex: u32) -> u32 {
        ifindex & (LINK_SLOTS - 1)
    }
}

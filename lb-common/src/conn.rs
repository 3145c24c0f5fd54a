//! Conns: one entry per direction, each complete, so that a packet needs one lookup by its own 5-tuple.
//!
//! The forward entry is keyed by client → VIP and written by forward packets; the reverse entry is keyed by
//! backend → client and written by reverse packets. Both are created and removed together. Key and value are 80 bytes:
//! behind the kernel's 48-byte element header the value is exactly one cache line.

use crate::{
    addr::{Ipv4, MacPair},
    layout::{byte_enum, map_type},
    word,
};

byte_enum! {
    /// The transport protocol of a flow, with its IANA number.
    pub enum Proto {
        /// RFC 9293.
        Tcp = 6 => "TCP",
        /// RFC 768; reserved, no service uses it yet.
        Udp = 17 => "UDP",
    }
}

byte_enum! {
    /// Which way the packets of an entry go.
    pub enum Direction {
        /// Client to backend.
        Forward = 0 => "forward",
        /// Backend to client.
        Reverse = 1 => "reverse",
    }
}

byte_enum! {
    /// Who told of a conn.
    pub enum Origin {
        /// This director's packet path.
        Local = 0 => "local",
        /// The peer, by connection sync; of a conn that both have seen, the peer was the last to tell.
        Peer = 1 => "peer",
    }
}

/// A 5-tuple as a packet carries it. Ports in host order.
///
/// Aligned, so that the packet path can write it as two whole words: the kernel reads a key back at once, in words of
/// its own, and a processor waits with such a load if a smaller store still holds a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address.
    pub src: Ipv4,
    /// Destination address.
    pub dst: Ipv4,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Transport protocol.
    pub proto: Proto,
    /// Always 0.
    pub reserved0: u8,
    /// Always 0; a zone (VRF, VLAN) would go here.
    pub reserved1: u16,
}

map_type!(FlowKey, size = 16, enums = { proto: Proto });

impl FlowKey {
    /// A TCP flow.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(src: Ipv4, sport: u16, dst: Ipv4, dport: u16) -> Self {
        Self { src, dst, sport, dport, proto: Proto::Tcp, reserved0: 0, reserved1: 0 }
    }

    /// A TCP flow from both addresses as they follow each other in a packet, and the ports in host order.
    #[inline(always)]
    #[must_use]
    pub const fn from_packet(addrs: u64, sport: u16, dport: u16) -> Self {
        let words = [addrs, word::pair32(word::pair16(sport, dport), PROTO_TCP)];
        // SAFETY: the same 16 bytes, field by field; the byte of the protocol is that of `Proto::Tcp`.
        unsafe { core::mem::transmute::<[u64; 2], Self>(words) }
    }

    /// The key of the packets that answer this flow untranslated.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..*self }
    }
}

/// The protocol's byte and the reserved ones behind it, as they lie in a [`FlowKey`].
const PROTO_TCP: u32 = u32::from_ne_bytes([Proto::Tcp as u8, 0, 0, 0]);

/// One direction of a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Conn {
    /// Source address after translation.
    pub src: Ipv4,
    /// Destination address after translation.
    pub dst: Ipv4,
    /// Source port after translation, host order.
    pub sport: u16,
    /// Destination port after translation, host order.
    pub dport: u16,
    /// The backend's id: an index into `backends` and `stats`.
    pub backend: u16,
    /// Which entry of the conn this is.
    pub dir: Direction,
    /// The TCP flags this direction has seen ([`crate::tcp::flag`]).
    pub seen: u8,
    /// The Ethernet addresses towards the next hop; valid while `hop_gen` is current.
    pub macs: MacPair,
    /// The interface towards the next hop.
    pub ifindex: u32,
    /// The value of `control.hop_gen` when the next hop was looked up; 0: never.
    pub hop_gen: u32,
    /// Low word of the kernel's jiffies at the last packet.
    pub last_seen: u32,
    /// The last acknowledgement number the sender of this direction sent, host order.
    pub ack: u32,
    /// The sequence number after the last byte the sender of this direction sent, host order.
    pub seq: u32,
    /// Low word of the kernel's jiffies when the conn was created.
    pub created: u32,
    /// Who created the conn.
    pub origin: Origin,
    /// Bits that are set once, atomically, by whoever comes first ([`once`]). Only those of the forward entry count.
    pub once: u8,
    /// The longest IP packet that the link to the next hop takes; valid as `macs` is.
    pub mtu: u16,
    /// Bytes of IP packets in this direction.
    pub bytes: u64,
}

/// Bits of [`Conn::once`].
pub mod once {
    /// The conn no longer counts in its backend's load.
    pub const UNCOUNTED: u8 = 1;
    /// Of the reverse entry of a half-open conn: the client was refused after the backend had answered. The backend is
    /// told when it asks again.
    pub const REFUSED: u8 = 2;
}

map_type!(Conn, size = 64, enums = { dir: Direction, origin: Origin });

impl Conn {
    /// The key of the conn's other entry: what the answer to a translated packet looks like.
    #[inline(always)]
    #[must_use]
    pub const fn other_key(&self) -> FlowKey {
        FlowKey::tcp(self.dst, self.dport, self.src, self.sport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapType;
    use core::mem::offset_of;

    const CLIENT: Ipv4 = Ipv4::new([10, 80, 1, 1]);
    const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);

    #[test]
    fn the_value_fills_one_cache_line_without_padding() {
        assert_eq!(offset_of!(Conn, macs), 16);
        assert_eq!(offset_of!(Conn, bytes) + 8, Conn::SIZE);
        // The header of a preallocated element is 48 bytes, so key + header end on a line.
        assert_eq!((48 + FlowKey::SIZE) % 64, 0);
    }

    #[test]
    fn a_byte_that_names_no_protocol_is_refused() {
        let key = FlowKey::tcp(CLIENT, 40000, VIP, 3306);
        let mut bytes = <[u8; 16]>::try_from(key.bytes()).unwrap();
        assert_eq!(FlowKey::decode(&bytes), Ok(key));
        bytes[offset_of!(FlowKey, proto)] = 99;
        let error = FlowKey::decode(&bytes).unwrap_err();
        assert_eq!((error.offset, error.found), (12, 99));
        assert!(FlowKey::decode(&bytes[..15]).is_err());
    }

    #[test]
    fn a_key_from_a_packet_is_the_one_from_its_fields() {
        let addrs = word::pair32(CLIENT.word(), VIP.word());
        assert_eq!(FlowKey::from_packet(addrs, 40000, 3306), FlowKey::tcp(CLIENT, 40000, VIP, 3306));
    }

    #[test]
    fn swapping_twice_gives_the_key_back() {
        let key = FlowKey::tcp(CLIENT, 40000, VIP, 3306);
        assert_eq!(key.swapped().swapped(), key);
        assert_eq!(key.swapped().src, VIP);
    }
}

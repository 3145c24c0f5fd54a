//! IPv4 and Ethernet addresses as they lie in a packet.
//!
//! They are byte arrays, so that `bpftool map dump` prints them readably, and aligned, so that the packet path moves
//! them as words. Ports need no type of their own: in map values they are plain numbers in host order.

use core::{fmt, net::Ipv4Addr};

/// An IPv4 address, its bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Ipv4 {
    /// Its four numbers as people write them. A field with a name, because `bpftool map dump` prints names.
    pub octets: [u8; 4],
}

impl Ipv4 {
    /// The address with these four numbers.
    #[inline(always)]
    #[must_use]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self { octets }
    }

    /// The address as the word that a load from the packet gives.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        u32::from_ne_bytes(self.octets)
    }

    /// The address from a word loaded from the packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        Self::new(word.to_ne_bytes())
    }
}

impl From<Ipv4Addr> for Ipv4 {
    fn from(addr: Ipv4Addr) -> Self {
        Self::new(addr.octets())
    }
}

impl From<Ipv4> for Ipv4Addr {
    fn from(addr: Ipv4) -> Self {
        Self::from(addr.octets)
    }
}

impl fmt::Debug for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

/// The two addresses of an Ethernet header in the order of the wire: destination, source. 12 bytes, 4-aligned.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(4))]
pub struct MacPair {
    /// Destination address.
    pub dst: [u8; 6],
    /// Source address.
    pub src: [u8; 6],
}

impl fmt::Debug for MacPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |f: &mut fmt::Formatter<'_>, m: &[u8; 6]| {
            write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
        };
        mac(f, &self.src)?;
        f.write_str(" > ")?;
        mac(f, &self.dst)
    }
}

//! Packets that read as sentences: `tcp().from("10.80.1.1:40000").to("10.80.1.243:3306").syn().seq(7).build()`.
//!
//! Owns building, checking and describing frames for tests. It is written from the RFCs and shares no code with the
//! packet path, because it is the oracle that the packet path is held against.

pub mod checksum;
pub mod ether;

mod describe;
mod foreign;
mod ipv4;
mod tcp;
mod verify;
mod walk;

pub use describe::{describe, difference};
pub use ether::Mac;
pub use foreign::{Frame, Icmp, Other, Udp, arp_reply, arp_request, frame, icmp_echo, icmp_error, ipv4, ipv6_tcp, udp};
pub use ipv4::{Packet, ToEnd, Transport};
pub use tcp::{Tcp, flag, tcp};
pub use verify::{Fault, verify};

/// A payload: bytes as they are, or a number of bytes to make up.
pub trait Payload {
    /// The bytes.
    fn bytes(self) -> Vec<u8>;
}

impl Payload for &[u8] {
    fn bytes(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Payload for &str {
    fn bytes(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Payload for Vec<u8> {
    fn bytes(self) -> Vec<u8> {
        self
    }
}

impl Payload for usize {
    /// A pattern whose period divides no header length, so that a shift shows.
    fn bytes(self) -> Vec<u8> {
        (0..self).map(|i| (i % 251) as u8).collect()
    }
}

//! The two checksums of the field: over the message alone, and with a pseudo-header in front.
//!
//! RFC 3768 §5.3.8 and RFC 9568 §5.2.8 (for IPv4) sum the message. RFC 5798 could be read otherwise, and keepalived
//! and others put an IPv4 pseudo-header in front in version 3. So both are accepted there, and told apart.

use std::net::Ipv4Addr;

use lb_common::csum::fold;

use super::PROTOCOL;

/// What a checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumKind {
    /// The VRRP message, as RFC 9568 wants it for IPv4.
    Message,
    /// An IPv4 pseudo-header (addresses, protocol, length) and the message, as keepalived sends version 3.
    PseudoHeader,
}

impl ChecksumKind {
    /// Its word in the config and in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "rfc9568",
            Self::PseudoHeader => "pseudo-header",
        }
    }
}

/// The checksum field of a message whose field is zero; `source` and `destination` are of the IP header.
pub(super) fn compute(kind: ChecksumKind, message: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
    !sum(kind, message, source, destination)
}

/// Tells whether a message sums up with its checksum in place.
pub(super) fn holds(kind: ChecksumKind, message: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    sum(kind, message, source, destination) == 0xffff
}

fn sum(kind: ChecksumKind, message: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
    let of_message = words(message);
    fold(match kind {
        ChecksumKind::Message => of_message,
        ChecksumKind::PseudoHeader => {
            // A message is at most 1036 bytes long.
            let rest = u64::from(PROTOCOL) + message.len() as u64;
            of_message + words(&source.octets()) + words(&destination.octets()) + rest
        }
    })
}

/// The sum of the big-endian words of an even number of bytes; all fields of VRRP have an even length.
fn words(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

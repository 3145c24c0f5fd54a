//! From an advert to the bytes for a raw socket, IPv4 header included (RFC 9568 §7.2).
//!
//! A director sends only two packets per virtual router and destination, its own priority and 0: they are encoded once,
//! so that the timer thread allocates nothing. The kernel fills in the header's checksum and identification.

use std::net::Ipv4Addr;

use super::{AUTH_DATA, Auth, GROUP, IP_HEADER, PROTOCOL, TTL, TYPE_ADVERT, VirtualRouter, checksum};
use crate::vrrp::Version;

/// Precedence "internetwork control" (RFC 791), as keepalived sends it: adverts pass before bulk traffic.
const TOS: u8 = 0xc0;

/// Writes the adverts of one virtual router to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// What the packet says of the virtual router.
    pub router: VirtualRouter,
    /// The primary address of the interface.
    pub source: Ipv4Addr,
    /// A unicast peer; `None`: the multicast group.
    pub peer: Option<Ipv4Addr>,
}

impl Sender {
    /// Where the packets go.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.peer.unwrap_or(GROUP)
    }

    /// The whole packet for a priority.
    #[must_use]
    pub fn encode(&self, priority: u8) -> Vec<u8> {
        let destination = self.destination();
        let message = self.message(priority, destination);
        let mut packet = Vec::with_capacity(IP_HEADER + message.len());
        // A message has at most 1036 bytes.
        let total = (IP_HEADER + message.len()) as u16;
        packet.extend([0x45, TOS]);
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0, 0, TTL, PROTOCOL, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(destination.octets());
        packet.extend(message);
        packet
    }

    fn message(&self, priority: u8, destination: Ipv4Addr) -> Vec<u8> {
        let VirtualRouter { version, vrid, auth, interval, addresses, checksum } = &self.router;
        // The config allows far fewer than 255 addresses.
        let addresses = &addresses[..addresses.len().min(usize::from(u8::MAX))];
        let mut message = vec![version.number() << 4 | TYPE_ADVERT, *vrid, priority, addresses.len() as u8];
        match version {
            Version::V2 => message.extend([auth.number(), (interval.centis() / 100) as u8]),
            // The four reserved bits are zero: an interval has twelve.
            Version::V3 => message.extend((interval.centis() & 0x0fff).to_be_bytes()),
        }
        message.extend([0, 0]);
        message.extend(addresses.iter().flat_map(Ipv4Addr::octets));
        let kind = match version {
            Version::V2 => {
                message.extend(match auth {
                    Auth::None => [0; AUTH_DATA],
                    Auth::Pass(password) => *password,
                });
                super::ChecksumKind::Message
            }
            Version::V3 => *checksum,
        };
        let sum = checksum::compute(kind, &message, self.source, destination);
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        message
    }
}

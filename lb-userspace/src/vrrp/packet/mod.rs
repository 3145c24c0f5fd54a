//! The VRRP packet: IPv4 header, message, checksum, authentication.
//!
//! Owns the layouts of RFC 3768 §5 and RFC 9568 §5 and every check of §7.1; [`Receiver`] reads, [`Sender`] writes.
//! Sockets are elsewhere. Version 2 knows no authentication and `PASS` (RFC 2338 §5.3.6.2, as keepalived still
//! speaks it): eight bytes in clear text, against mistakes and not against attackers.
//!
//! ```text
//! v2: |2,1|VRID|Priority|Count|Auth Type|Interval, s |Checksum| address × n | auth data, 8 bytes |
//! v3: |3,1|VRID|Priority|Count| 0 (4) | Interval, cs |Checksum| address × n |
//! ```

mod checksum;
mod decode;
mod encode;
mod error;
#[cfg(test)]
mod tests;

use std::{fmt, net::Ipv4Addr};

use super::{Version, interval::Interval};

pub use checksum::ChecksumKind;
pub use decode::{Advert, Notes, Receiver, fuzz};
pub use encode::Sender;
pub use error::{Counters, DecodeError};

/// The IP protocol number (RFC 9568 §5.1.1.4).
pub const PROTOCOL: u8 = 112;
/// The multicast group that adverts go to (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The TTL that proves that no router has forwarded the packet (RFC 9568 §5.1.1.3).
pub const TTL: u8 = 255;

const IP_HEADER: usize = 20;
const HEADER: usize = 8;
const ADDRESS: usize = 4;
const AUTH_DATA: usize = 8;
const TYPE_ADVERT: u8 = 1;

/// The authentication of version 2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Type 0: the data is zero and nobody looks at it.
    None,
    /// Type 1: a password, padded with zeros.
    Pass([u8; AUTH_DATA]),
}

impl Auth {
    /// A password of 1 to 8 bytes. keepalived cuts longer ones; here they are an error.
    #[must_use]
    pub fn pass(password: &str) -> Option<Self> {
        let mut data = [0; AUTH_DATA];
        let bytes = password.as_bytes();
        if bytes.is_empty() {
            return None;
        }
        data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Pass(data))
    }

    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Pass(_) => 1,
        }
    }
}

impl fmt::Debug for Auth {
    /// Without the password: this ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Pass(_) => "Pass(…)",
        })
    }
}

/// What all directors that share a virtual router must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    /// Its version, which decides the layout, and what an interval may be.
    pub version: Version,
    /// Its number on the segment, 1 to 255.
    pub vrid: u8,
    /// Only in version 2.
    pub auth: Auth,
    /// The configured interval. Version 2 drops adverts with another one.
    pub interval: Interval,
    /// The virtual addresses, 1 to 255 of them.
    pub addresses: Vec<Ipv4Addr>,
    /// How version 3 computes the checksum of what it sends. Version 2 knows only [`ChecksumKind::Message`].
    pub checksum: ChecksumKind,
}

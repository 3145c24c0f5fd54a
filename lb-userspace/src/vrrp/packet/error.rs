//! Why a packet was not taken for an advert, and how often: one counter per reason.

use std::fmt;

macro_rules! decode_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $text:literal;)+) => {
        /// Why a packet is ignored. The order is that of the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DecodeError {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DecodeError {
            /// All reasons, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name of its counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl fmt::Display for DecodeError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

decode_errors! {
    /// Not an IPv4 packet of protocol 112, or its header contradicts its length.
    IpHeader = "ip_header", "not a whole IPv4 packet of protocol 112";
    /// A router has forwarded it (RFC 9568 §5.1.1.3).
    Ttl = "ttl", "the TTL is not 255";
    /// Shorter than its own fields say (RFC 9568 §7.1), or in version 2 longer.
    Length = "length", "the length does not fit the number of addresses";
    /// Another version than ours (RFC 9568 §7.1).
    Version = "version", "another VRRP version than configured";
    /// Not an advert (RFC 9568 §5.2.2).
    Type = "type", "not an advert";
    /// Of another virtual router on the segment, which is its right (RFC 9568 §7.1).
    Vrid = "vrid", "of another virtual router";
    /// No address, or in version 2 another number of them than ours.
    AddressCount = "address_count", "a wrong number of addresses";
    /// Damaged (RFC 9568 §5.2.8).
    Checksum = "checksum", "the checksum is wrong";
    /// Another authentication type than ours (RFC 3768 §7.1).
    AuthType = "auth_type", "another authentication type than configured";
    /// Another password than ours.
    AuthData = "auth_data", "another password than configured";
    /// Zero (RFC 9568 erratum 8301), or in version 2 another one than ours (RFC 3768 §7.1).
    Interval = "interval", "a wrong advert interval";
    /// From our own address: an echo, or two directors with one address.
    OwnAddress = "own_address", "sent from our own address";
    /// From an address that is not a configured unicast peer.
    Peer = "peer", "not from a configured peer";
    /// The sender claims to own the addresses, which nobody does here, or we do (RFC 3768 §7.1).
    Owner = "owner", "it claims the ownership of the addresses";
    /// Version 2: other addresses than ours (RFC 3768 §7.1).
    AddressList = "address_list", "other addresses than configured";
}

/// How many packets a receiver has seen, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Adverts taken.
    pub adverts: u64,
    /// Of these, with priority 0.
    pub resigned: u64,
    /// Of these, with the other checksum than the one that we send.
    pub other_checksum: u64,
    ignored: [u64; DecodeError::ALL.len()],
}

impl Counters {
    /// Notes what became of a packet.
    pub fn count(&mut self, outcome: &Result<super::Advert, DecodeError>) {
        match outcome {
            Ok(advert) => {
                self.adverts += 1;
                self.resigned += u64::from(advert.priority == crate::vrrp::PRIORITY_RESIGN);
                self.other_checksum += u64::from(advert.notes.other_checksum);
            }
            Err(error) => self.ignored[*error as usize] += 1,
        }
    }

    /// Packets ignored for a reason.
    #[must_use]
    pub const fn ignored(&self, reason: DecodeError) -> u64 {
        self.ignored[reason as usize]
    }
}

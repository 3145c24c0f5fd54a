//! From the bytes of a raw socket to an advert: every check of RFC 9568 §7.1 and RFC 3768 §7.1, cheapest first.
//!
//! The bytes are whole IPv4 packets, header included, as the kernel delivers them: reassembled, IP checksum verified.
//! Version 3 tolerates bytes behind the message, since newer senders put an authentication trailer there.

use std::net::Ipv4Addr;

use super::{
    ADDRESS, AUTH_DATA, Auth, ChecksumKind, DecodeError, HEADER, IP_HEADER, PROTOCOL, Sender, TTL, TYPE_ADVERT,
    VirtualRouter, checksum,
};
use crate::vrrp::{PRIORITY_OWNER, Version, interval::Interval};

/// An advert that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The sender's address; decides between equal priorities.
    pub source: Ipv4Addr,
    /// Where it was sent to.
    pub destination: Ipv4Addr,
    /// 0: the sender resigns.
    pub priority: u8,
    /// The sender's interval.
    pub interval: Interval,
    /// How its checksum was computed.
    pub checksum: ChecksumKind,
    /// What the operator should know, although the advert counts.
    pub notes: Notes,
}

/// Differences that version 3 tolerates but that are worth a message (RFC 9568 §7.1, erratum 8298).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Other addresses than ours.
    pub other_addresses: bool,
    /// Another interval than ours.
    pub other_interval: bool,
    /// The other checksum than the one we send. The peer may be less tolerant than we are.
    pub other_checksum: bool,
    /// We own the addresses, and so nobody else should send.
    pub we_own: bool,
}

/// Reads the adverts of one virtual router on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What the sender has to agree with.
    pub router: VirtualRouter,
    /// Our own address on the interface.
    pub address: Ipv4Addr,
    /// Our own priority is 255.
    pub owner: bool,
    /// A sender may own the addresses. `false` where they belong to nobody: then priority 255 is a forgery.
    pub accept_owner: bool,
    /// Senders we listen to; empty: all.
    pub peers: Vec<Ipv4Addr>,
}

impl Receiver {
    /// Checks a packet.
    ///
    /// # Errors
    ///
    /// The first check that failed. Nothing panics, whatever the bytes.
    pub fn decode(&self, packet: &[u8]) -> Result<Advert, DecodeError> {
        let ip = IpHeader::read(packet).ok_or(DecodeError::IpHeader)?;
        if ip.ttl != TTL {
            return Err(DecodeError::Ttl);
        }
        let Some((header, rest)) = ip.payload.split_first_chunk::<HEADER>() else {
            return Err(DecodeError::Length);
        };
        let [kind, vrid, priority, count, five, six, _, _] = *header;
        if kind >> 4 != self.router.version.number() {
            return Err(DecodeError::Version);
        }
        if kind & 0x0f != TYPE_ADVERT {
            return Err(DecodeError::Type);
        }
        if vrid != self.router.vrid {
            return Err(DecodeError::Vrid);
        }
        let list = usize::from(count) * ADDRESS;
        if count == 0 {
            return Err(DecodeError::AddressCount);
        }
        if rest.len() < list {
            return Err(DecodeError::Length);
        }
        let (addresses, tail) = rest.split_at(list);
        let (interval, checksum) = match self.router.version {
            Version::V2 => self.version2(&ip, five, six, tail)?,
            Version::V3 => self.version3(&ip, HEADER + list, u16::from_be_bytes([five & 0x0f, six]))?,
        };
        self.sender(ip.source, priority)?;
        let other_addresses = !same_addresses(&self.router.addresses, addresses);
        if self.router.version == Version::V2 && other_addresses && priority != PRIORITY_OWNER {
            let ours = self.router.addresses.len();
            return Err(if usize::from(count) == ours { DecodeError::AddressList } else { DecodeError::AddressCount });
        }
        let notes = Notes {
            other_addresses,
            other_interval: interval != self.router.interval,
            other_checksum: self.router.version == Version::V3 && checksum != self.router.checksum,
            we_own: self.owner,
        };
        Ok(Advert { source: ip.source, destination: ip.destination, priority, interval, checksum, notes })
    }

    fn version2(
        &self,
        ip: &IpHeader<'_>,
        auth_type: u8,
        seconds: u8,
        tail: &[u8],
    ) -> Result<(Interval, ChecksumKind), DecodeError> {
        // The authentication data is there whatever its type.
        if tail.len() != AUTH_DATA {
            return Err(DecodeError::Length);
        }
        if !checksum::holds(ChecksumKind::Message, ip.payload, ip.source, ip.destination) {
            return Err(DecodeError::Checksum);
        }
        if auth_type != self.router.auth.number() {
            return Err(DecodeError::AuthType);
        }
        if let Auth::Pass(password) = self.router.auth
            && tail != password
        {
            return Err(DecodeError::AuthData);
        }
        if u16::from(seconds) * 100 != self.router.interval.centis() {
            return Err(DecodeError::Interval);
        }
        Ok((self.router.interval, ChecksumKind::Message))
    }

    fn version3(&self, ip: &IpHeader<'_>, length: usize, centis: u16) -> Result<(Interval, ChecksumKind), DecodeError> {
        // There is a trailer perhaps, which the checksum does not cover.
        let message = ip.payload.get(..length).ok_or(DecodeError::Length)?;
        let fits = |kind: &ChecksumKind| checksum::holds(*kind, message, ip.source, ip.destination);
        let kinds = [ChecksumKind::Message, ChecksumKind::PseudoHeader];
        let kind = kinds.into_iter().find(fits).ok_or(DecodeError::Checksum)?;
        let interval = Interval::new(Version::V3, centis).ok_or(DecodeError::Interval)?;
        Ok((interval, kind))
    }

    /// Who may send what.
    fn sender(&self, source: Ipv4Addr, priority: u8) -> Result<(), DecodeError> {
        if source == self.address {
            return Err(DecodeError::OwnAddress);
        }
        if !self.peers.is_empty() && !self.peers.contains(&source) {
            return Err(DecodeError::Peer);
        }
        // RFC 3768 §7.1: an owner listens to nobody. RFC 9568 erratum 8298 leaves it at a message.
        let deaf = self.owner && self.router.version == Version::V2;
        if deaf || (priority == PRIORITY_OWNER && !self.accept_owner) {
            return Err(DecodeError::Owner);
        }
        Ok(())
    }
}

/// The fields of an IPv4 header that count here.
struct IpHeader<'a> {
    ttl: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &'a [u8],
}

impl<'a> IpHeader<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<IP_HEADER>()?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header < IP_HEADER || fixed[9] != PROTOCOL {
            return None;
        }
        // `get` also refuses a header longer than the packet.
        let payload = packet.get(header..total)?;
        let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
        Some(Self { ttl: fixed[8], source: address(12), destination: address(16), payload })
    }
}

/// Tells whether the packet lists our addresses, in any order.
fn same_addresses(ours: &[Ipv4Addr], list: &[u8]) -> bool {
    let theirs = || list.as_chunks::<ADDRESS>().0.iter().map(|octets| Ipv4Addr::from(*octets));
    list.len() == ours.len() * ADDRESS
        && theirs().all(|address| ours.contains(&address))
        && ours.iter().all(|address| theirs().any(|their| their == *address))
}

/// Decodes arbitrary bytes in every way there is: the entry point of a fuzzer.
///
/// # Panics
///
/// An advert contradicts the bytes it was read from, or does not survive being sent again.
pub fn fuzz(packet: &[u8]) {
    for version in [Version::V2, Version::V3] {
        for auth in [Auth::None, Auth::Pass(*b"1111\0\0\0\0")] {
            let router = VirtualRouter {
                version,
                vrid: 52,
                auth,
                interval: Interval::SECOND,
                addresses: vec![Ipv4Addr::new(10, 80, 1, 243)],
                checksum: ChecksumKind::Message,
            };
            let address = Ipv4Addr::new(10, 80, 1, 242);
            let receiver = Receiver { router, address, owner: false, accept_owner: true, peers: Vec::new() };
            let Ok(advert) = receiver.decode(packet) else { continue };
            let message = &packet[usize::from(packet[0] & 0x0f) * 4..];
            let list = &message[HEADER..HEADER + usize::from(message[3]) * ADDRESS];
            assert_eq!((packet[8], packet[9], message[0] >> 4), (TTL, PROTOCOL, version.number()));
            assert_eq!((message[1], message[2]), (52, advert.priority));
            assert_ne!(advert.source, receiver.address);
            let sender = Sender {
                router: VirtualRouter {
                    interval: advert.interval,
                    addresses: list.as_chunks::<ADDRESS>().0.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
                    checksum: advert.checksum,
                    ..receiver.router.clone()
                },
                source: advert.source,
                peer: Some(advert.destination),
            };
            assert_eq!(receiver.decode(&sender.encode(advert.priority)), Ok(advert));
        }
    }
}

//! IPv4 packets (RFC 791) of any transport: the part of the sentence from `from` to `build`.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    checksum,
    ether::{self, Ethernet, Finish},
};

/// What an IPv4 packet carries.
pub trait Transport {
    /// Its IANA protocol number.
    fn proto(&self) -> u8;
    /// Header and payload, with the checksum over the pseudo-header of these two ends.
    fn bytes(&self, src: SocketAddrV4, dst: SocketAddrV4) -> Vec<u8>;
}

/// An IPv4 packet in an Ethernet frame. Every method returns the changed packet, so that a packet reads as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<T> {
    pub(super) ether: Ethernet,
    pub(super) finish: Finish,
    pub(super) src: SocketAddrV4,
    pub(super) dst: SocketAddrV4,
    ttl: u8,
    tos: u8,
    id: u16,
    dont_fragment: bool,
    more_fragments: bool,
    offset: u16,
    options: Vec<u8>,
    version: u8,
    header_len: Option<usize>,
    total_len: Option<u16>,
    /// The transport layer.
    pub(super) transport: T,
}

impl<T: Transport> Packet<T> {
    pub(super) fn new(transport: T) -> Self {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Self {
            ether: Ethernet::default(),
            finish: Finish::default(),
            src: nowhere,
            dst: nowhere,
            ttl: 64,
            tos: 0,
            id: 1,
            dont_fragment: true,
            more_fragments: false,
            offset: 0,
            options: Vec::new(),
            version: 4,
            header_len: None,
            total_len: None,
            transport,
        }
    }

    ether::frame_methods!();

    /// Sets the source, `"10.80.1.1:40000"`; a packet without ports leaves out the port.
    #[must_use]
    #[track_caller]
    pub fn from(mut self, src: impl ToEnd) -> Self {
        self.src = src.to_end();
        self
    }

    /// Sets the destination, as [`Packet::from`].
    #[must_use]
    #[track_caller]
    pub fn to(mut self, dst: impl ToEnd) -> Self {
        self.dst = dst.to_end();
        self
    }

    /// Sets the time to live; 64 otherwise.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// What a router leaves of the time to live.
    #[must_use]
    pub fn one_hop_on(mut self) -> Self {
        self.ttl = self.ttl.saturating_sub(1);
        self
    }

    /// Source and destination.
    #[must_use]
    pub const fn ends(&self) -> (SocketAddrV4, SocketAddrV4) {
        (self.src, self.dst)
    }

    /// Sets the type of service; 0 otherwise.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// Sets the identification; 1 otherwise.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Adds IP options; the length is a multiple of 4 and at most 40.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40, "{} bytes of IP options", options.len());
        self.options = options.to_vec();
        self
    }

    /// Lets routers fragment it.
    #[must_use]
    pub fn may_fragment(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// Makes it a fragment that starts at byte `offset`, a multiple of 8, of its datagram, with `more` to follow.
    ///
    /// The bytes stay the same: those of a later fragment look like a transport header to whoever reads them as one.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        assert!(offset.is_multiple_of(8), "a fragment starts at a multiple of 8, not at {offset}");
        (self.offset, self.more_fragments, self.dont_fragment) = (offset / 8, more, false);
        self
    }

    /// Writes another IP version into an otherwise intact header.
    #[must_use]
    pub fn ip_version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// Claims an IP header of `len` bytes, whatever its length is.
    #[must_use]
    pub fn claims_ip_header(mut self, len: usize) -> Self {
        self.header_len = Some(len);
        self
    }

    /// Claims an IP packet of `len` bytes, whatever its length is.
    #[must_use]
    pub fn claims_ip_len(mut self, len: u16) -> Self {
        self.total_len = Some(len);
        self
    }

    /// The length that the IP header claims.
    #[must_use]
    pub fn claimed_len(&self) -> u16 {
        let ip = self.ip_bytes();
        u16::from_be_bytes([ip[2], ip[3]])
    }

    /// The IP packet without the frame.
    #[must_use]
    pub fn ip_bytes(&self) -> Vec<u8> {
        let content = self.transport.bytes(self.src, self.dst);
        let header_len = 20 + self.options.len();
        let total_len = self.total_len.unwrap_or((header_len + content.len()) as u16);
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        let mut bytes = Vec::with_capacity(header_len + content.len());
        bytes.push(self.version << 4 | (self.header_len.unwrap_or(header_len) / 4) as u8);
        bytes.push(self.tos);
        bytes.extend(total_len.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend((flags | self.offset).to_be_bytes());
        bytes.extend([self.ttl, self.transport.proto(), 0, 0]);
        bytes.extend(self.src.ip().octets());
        bytes.extend(self.dst.ip().octets());
        bytes.extend(&self.options);
        let check = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(content);
        bytes
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        self.finish.apply(self.ether.frame(ether::IPV4, &self.ip_bytes()))
    }

    /// Length of the frame's headers in front of the transport header.
    #[must_use]
    pub fn transport_offset(&self) -> usize {
        14 + 4 * self.ether.tags.len() + 20 + self.options.len()
    }
}

/// One end of a packet: an address with or without a port.
pub trait ToEnd {
    /// The address and the port; 0 without one.
    fn to_end(&self) -> SocketAddrV4;
}

impl ToEnd for &str {
    #[track_caller]
    fn to_end(&self) -> SocketAddrV4 {
        self.parse()
            .or_else(|_| self.parse().map(|ip| SocketAddrV4::new(ip, 0)))
            .unwrap_or_else(|_| panic!("{self:?} is no IPv4 address with or without a port"))
    }
}

impl ToEnd for SocketAddrV4 {
    fn to_end(&self) -> SocketAddrV4 {
        *self
    }
}

impl ToEnd for Ipv4Addr {
    fn to_end(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self, 0)
    }
}

impl<A: Into<Ipv4Addr> + Copy> ToEnd for (A, u16) {
    fn to_end(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.0.into(), self.1)
    }
}

//! Everything a director meets that is not TCP over IPv4: UDP, ICMP errors and echoes, other protocols, ARP, IPv6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{
    Mac, Packet, Payload, Transport, checksum,
    ether::{self, Ethernet, Finish},
};

/// A UDP datagram (RFC 768).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    payload: Vec<u8>,
}

/// The start of a UDP sentence.
#[must_use]
pub fn udp() -> Packet<Udp> {
    Packet::new(Udp { payload: Vec::new() })
}

impl Packet<Udp> {
    /// Sets the payload: bytes, or a number of bytes to make up.
    #[must_use]
    pub fn payload(mut self, payload: impl Payload) -> Self {
        self.transport.payload = payload.bytes();
        self
    }
}

impl Transport for Udp {
    fn proto(&self) -> u8 {
        17
    }

    fn bytes(&self, src: SocketAddrV4, dst: SocketAddrV4) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.payload.len());
        bytes.extend(src.port().to_be_bytes());
        bytes.extend(dst.port().to_be_bytes());
        bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.payload);
        // RFC 768: a sum of zero is sent as all ones, zero means "no checksum".
        let check = match checksum::of_segment(*src.ip(), *dst.ip(), self.proto(), &bytes) {
            0 => 0xffff,
            check => check,
        };
        bytes[6..8].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

/// An ICMP message (RFC 792).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body: Vec<u8>,
}

/// The start of a sentence about an ICMP error that quotes an IP packet ([`Packet::ip_bytes`]).
///
/// `mtu` is that of the next hop when the type is 3 and the code 4 (RFC 1191), else 0.
#[must_use]
pub fn icmp_error(kind: u8, code: u8, mtu: u16, inner: &[u8]) -> Packet<Icmp> {
    let mtu = mtu.to_be_bytes();
    Packet::new(Icmp { kind, code, rest: [0, 0, mtu[0], mtu[1]], body: inner.to_vec() })
}

/// The start of a sentence about an echo request.
#[must_use]
pub fn icmp_echo(id: u16, seq: u16) -> Packet<Icmp> {
    let (id, seq) = (id.to_be_bytes(), seq.to_be_bytes());
    Packet::new(Icmp { kind: 8, code: 0, rest: [id[0], id[1], seq[0], seq[1]], body: 56.bytes() })
}

impl Packet<Icmp> {
    /// Cuts the quoted packet to `len` bytes; a host quotes at least its header and 8 bytes.
    #[must_use]
    pub fn quotes(mut self, len: usize) -> Self {
        self.transport.body.truncate(len);
        self
    }
}

impl Transport for Icmp {
    fn proto(&self) -> u8 {
        1
    }

    fn bytes(&self, _src: SocketAddrV4, _dst: SocketAddrV4) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        bytes.extend(&self.body);
        let check = checksum::of(&bytes);
        bytes[2..4].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

/// The content of an IPv4 packet of any other protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    proto: u8,
    content: Vec<u8>,
}

/// The start of a sentence about an IPv4 packet of protocol `proto`.
#[must_use]
pub fn ipv4(proto: u8, content: impl Payload) -> Packet<Other> {
    Packet::new(Other { proto, content: content.bytes() })
}

impl Transport for Other {
    fn proto(&self) -> u8 {
        self.proto
    }

    fn bytes(&self, _src: SocketAddrV4, _dst: SocketAddrV4) -> Vec<u8> {
        self.content.clone()
    }
}

/// A frame that is not IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    ether: Ethernet,
    finish: Finish,
    ether_type: u16,
    content: Vec<u8>,
}

impl Frame {
    ether::frame_methods!();

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        self.finish.apply(self.ether.frame(self.ether_type, &self.content))
    }
}

/// A frame of any type with any content.
#[must_use]
pub fn frame(ether_type: u16, content: impl Payload) -> Frame {
    Frame { ether: Ethernet::default(), finish: Finish::default(), ether_type, content: content.bytes() }
}

/// "Who has `target`? Tell `sender`" (RFC 826), broadcast.
#[must_use]
pub fn arp_request(mac: Mac, sender: &str, target: &str) -> Frame {
    arp(1, mac, sender, [0; 6], target).macs(mac, [0xff; 6])
}

/// "`sender` is at `mac`" (RFC 826), to one host.
#[must_use]
pub fn arp_reply(mac: Mac, sender: &str, target_mac: Mac, target: &str) -> Frame {
    arp(2, mac, sender, target_mac, target).macs(mac, target_mac)
}

fn arp(operation: u16, mac: Mac, sender: &str, target_mac: Mac, target: &str) -> Frame {
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap_or_else(|_| panic!("{text:?} is no IPv4 address"));
    let mut content = vec![0, 1, 8, 0, 6, 4];
    content.extend(operation.to_be_bytes());
    content.extend(mac);
    content.extend(address(sender).octets());
    content.extend(target_mac);
    content.extend(address(target).octets());
    frame(ether::ARP, content)
}

/// A TCP segment over IPv6 (RFC 8200): nothing but a header in front of the segment's bytes.
#[must_use]
pub fn ipv6_tcp(src: Ipv6Addr, dst: Ipv6Addr, segment: &[u8]) -> Frame {
    let mut content = vec![0x60, 0, 0, 0];
    content.extend((segment.len() as u16).to_be_bytes());
    content.extend([6, 64]);
    content.extend(src.octets());
    content.extend(dst.octets());
    content.extend(segment);
    frame(ether::IPV6, content)
}

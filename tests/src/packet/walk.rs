//! Finds the layers of a frame for `describe` and `verify`: slices, no values.

use std::net::Ipv4Addr;

use super::ether;

/// The layers of a frame as far as it goes.
pub(super) struct Layers<'a> {
    pub(super) frame: &'a [u8],
    /// Identifier of each VLAN tag, outermost first.
    pub(super) tags: Vec<u16>,
    pub(super) ether_type: u16,
    pub(super) ip: Option<Ip<'a>>,
}

/// An IPv4 packet whose lengths fit its frame.
pub(super) struct Ip<'a> {
    pub(super) header: &'a [u8],
    /// Up to the IP packet's end: Ethernet's padding is not part of it.
    pub(super) content: &'a [u8],
    pub(super) src: Ipv4Addr,
    pub(super) dst: Ipv4Addr,
    pub(super) proto: u8,
    pub(super) ttl: u8,
    /// In bytes.
    pub(super) fragment_offset: u16,
    pub(super) more_fragments: bool,
}

/// A big-endian word.
pub(super) fn word16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A big-endian double word.
pub(super) fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from(word16(bytes, at)) << 16 | u32::from(word16(bytes, at + 2))
}

impl<'a> Layers<'a> {
    /// `None`: not even an Ethernet header.
    pub(super) fn of(frame: &'a [u8]) -> Option<Self> {
        let mut at = 12;
        let mut tags = Vec::new();
        let ether_type = loop {
            let word = frame.get(at..at + 2).map(|b| word16(b, 0))?;
            at += 2;
            if word != ether::VLAN && word != ether::SERVICE_VLAN {
                break word;
            }
            tags.push(frame.get(at..at + 2).map(|b| word16(b, 0) & 0xfff)?);
            at += 2;
        };
        let ip = if ether_type == ether::IPV4 { Ip::of(&frame[at..]) } else { None };
        Some(Self { frame, tags, ether_type, ip })
    }
}

impl<'a> Ip<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header_len = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_len < 20 || bytes.len() < header_len {
            return None;
        }
        let (header, rest) = bytes.split_at(header_len);
        let content = rest.get(..usize::from(word16(header, 2)).checked_sub(header_len)?)?;
        let frags = word16(header, 6);
        Some(Self {
            header,
            content,
            src: word32(header, 12).into(),
            dst: word32(header, 16).into(),
            proto: header[9],
            ttl: header[8],
            fragment_offset: (frags & 0x1fff) * 8,
            more_fragments: frags & 0x2000 != 0,
        })
    }

    /// Part of a datagram: its transport checksum covers more than is here.
    pub(super) fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

//! A second parser, written from the RFCs with slices and nothing else: what a frame is, and where its parts lie.

use lb_common::{addr::Ipv4, conn::FlowKey};

/// What a frame is. Offsets count from its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Tcp {
        ip: usize,
        tcp: usize,
        tags: u8,
        fragment: bool,
        /// Of the IP packet, of the segment, of its payload.
        lengths: [u16; 3],
        key: FlowKey,
        /// Sequence, acknowledgement, and the number that follows.
        numbers: [u32; 3],
        flags: u8,
        ttl: u8,
    },
    IcmpError {
        ip: usize,
        icmp: usize,
        inner: usize,
        tcp: usize,
        has_check: bool,
        tags: u8,
        key: FlowKey,
        ttl: u8,
    },
    ArpRequest {
        target: [u8; 4],
    },
    Foreign,
    Short,
    Malformed,
}

impl Seen {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::IcmpError { .. } => "icmp error",
            Self::ArpRequest { .. } => "arp request",
            Self::Foreign => "foreign",
            Self::Short => "short",
            Self::Malformed => "malformed",
        }
    }
}

/// Big-endian numbers of a frame; none beyond its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn word16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn word32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn addr(&self, at: usize) -> Option<Ipv4> {
        Some(Ipv4::new(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn has(&self, end: usize) -> Option<()> {
        (end <= self.0.len()).then_some(())
    }
}

/// What the frame is.
pub(crate) fn expected(frame: &[u8]) -> Seen {
    // Whatever lies beyond the end makes it short.
    link(&Bytes(frame)).unwrap_or(Seen::Short)
}

/// Ethernet; one tag of either kind, then at most one of IEEE 802.1Q.
fn link(frame: &Bytes<'_>) -> Option<Seen> {
    frame.has(14)?;
    let (mut at, mut tags) = (12, 0);
    while matches!((tags, frame.word16(at)?), (0, 0x8100 | 0x88a8) | (1, 0x8100)) {
        (at, tags) = (at + 4, tags + 1);
        frame.has(at + 2)?;
    }
    match frame.word16(at)? {
        0x0800 => network(frame, at + 2, tags),
        0x0806 => {
            frame.has(at + 2 + 28)?;
            let is_request = frame.word16(at + 2 + 6)? == 1;
            let target = frame.addr(at + 2 + 24)?.octets;
            Some(if is_request { Seen::ArpRequest { target } } else { Seen::Foreign })
        }
        _ => Some(Seen::Foreign),
    }
}

/// RFC 791.
fn network(frame: &Bytes<'_>, ip: usize, tags: u8) -> Option<Seen> {
    frame.has(ip + 20)?;
    let (first, proto, fragment) = (frame.byte(ip)?, frame.byte(ip + 9)?, frame.word16(ip + 6)?);
    if first >> 4 != 4 || !matches!(proto, 1 | 6) || fragment & 0x1fff != 0 {
        return Some(Seen::Foreign);
    }
    let header = usize::from(first & 15) * 4;
    if header < 20 {
        return Some(Seen::Malformed);
    }
    let more_fragments = fragment & 0x2000 != 0;
    if proto == 1 {
        icmp(frame, ip, ip + header, tags, more_fragments)
    } else {
        tcp(frame, ip, ip + header, tags, more_fragments)
    }
}

/// RFC 9293 §3.1.
fn tcp(frame: &Bytes<'_>, ip: usize, tcp: usize, tags: u8, fragment: bool) -> Option<Seen> {
    frame.has(tcp + 20)?;
    let ip_len = frame.word16(ip + 2)?;
    let header = u16::from(frame.byte(tcp + 12)? >> 4) * 4;
    let lengths = || {
        let tcp_len = ip_len.checked_sub((tcp - ip) as u16)?;
        Some([ip_len, tcp_len, tcp_len.checked_sub(header)?])
    };
    let Some(lengths) = lengths().filter(|_| header >= 20) else { return Some(Seen::Malformed) };
    let flags = frame.byte(tcp + 13)?;
    let seq = frame.word32(tcp + 4)?;
    let taken = u32::from(lengths[2]) + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
    Some(Seen::Tcp {
        ip,
        tcp,
        tags,
        fragment,
        lengths,
        key: FlowKey::tcp(frame.addr(ip + 12)?, frame.word16(tcp)?, frame.addr(ip + 16)?, frame.word16(tcp + 2)?),
        numbers: [seq, frame.word32(tcp + 8)?, seq.wrapping_add(taken)],
        flags,
        ttl: frame.byte(ip + 8)?,
    })
}

/// RFC 792: an error quotes an IP header and at least 8 bytes of what follows.
fn icmp(frame: &Bytes<'_>, ip: usize, icmp: usize, tags: u8, fragment: bool) -> Option<Seen> {
    let inner = icmp + 8;
    frame.has(inner + 20)?;
    let first = frame.byte(inner)?;
    let is_error = matches!(frame.byte(icmp)?, 3 | 11 | 12) && !fragment;
    let quotes_tcp = frame.byte(inner + 9)? == 6 && frame.word16(inner + 6)? & 0x1fff == 0;
    let header = usize::from(first & 15) * 4;
    if !is_error || !quotes_tcp || first >> 4 != 4 || header < 20 {
        return Some(Seen::Foreign);
    }
    let tcp = inner + header;
    frame.has(tcp + 8)?;
    Some(Seen::IcmpError {
        ip,
        icmp,
        inner,
        tcp,
        has_check: frame.has(tcp + 18).is_some(),
        tags,
        // The flow that would answer the quoted segment.
        key: FlowKey::tcp(frame.addr(inner + 16)?, frame.word16(tcp + 2)?, frame.addr(inner + 12)?, frame.word16(tcp)?),
        ttl: frame.byte(ip + 8)?,
    })
}

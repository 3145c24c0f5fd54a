//! The RST as bytes: IPv4 and TCP headers without options (RFC 791, RFC 9293 §3.1). Pure.
//!
//! A receiver believes a RST exactly where it waits for the next byte (RFC 5961 §3.2). Where that is follows from what it
//! last acknowledged, or from what was last sent to it; when the two differ, each gets its own segment.

use lb_common::{conn::FlowKey, csum, seq, tcp::flag};

use super::End;

/// IPv4 and TCP headers.
pub(super) const LEN: usize = 40;

/// One RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its own 5-tuple.
    pub(super) flow: FlowKey,
    /// Its sequence number, host order.
    pub(super) seq: u32,
}

impl Segment {
    /// The segments that reset an end: none if nothing is known about it, two if it is in doubt where it waits.
    pub(super) fn of(end: &End) -> Vec<Self> {
        let at = |seq| Self { flow: end.flow, seq };
        match (end.acked, end.sent) {
            (seq::UNKNOWN, seq::UNKNOWN) => Vec::new(),
            (seq::UNKNOWN, one) | (one, seq::UNKNOWN) => vec![at(one)],
            // Behind what was acknowledged, it waits for nothing.
            (acked, sent) if !seq::after(sent, acked) => vec![at(acked)],
            (acked, sent) => vec![at(acked), at(sent)],
        }
    }

    /// The IP packet.
    pub(super) fn bytes(&self) -> [u8; LEN] {
        let (src, dst) = (self.flow.src.octets, self.flow.dst.octets);
        let mut bytes = [0; LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        // Version 4, 20 bytes of header; don't fragment; TTL 64, TCP. The kernel fills in an identification.
        put(0, &[0x45, 0, 0, LEN as u8, 0, 0, 0x40, 0, 64, 6]);
        put(12, &src);
        put(16, &dst);
        put(20, &self.flow.sport.to_be_bytes());
        put(22, &self.flow.dport.to_be_bytes());
        put(24, &self.seq.to_be_bytes());
        // 20 bytes of header.
        put(32, &[0x50, flag::RST]);
        let ip_check = !csum::fold(sum(&bytes[..20]));
        bytes[10..12].copy_from_slice(&ip_check.to_ne_bytes());
        let pseudo = csum::pseudo_header(self.flow.src.word(), self.flow.dst.word(), 6, 20);
        let tcp_check = !csum::fold(u64::from(pseudo) + sum(&bytes[20..]));
        bytes[36..38].copy_from_slice(&tcp_check.to_ne_bytes());
        bytes
    }
}

/// The sum of words as they lie in memory; an even number of bytes.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::{
        addr::Ipv4,
        parse::{Parsed, parse},
    };
    use proptest::prelude::*;

    fn flow() -> FlowKey {
        FlowKey::tcp(Ipv4::new([10, 80, 1, 243]), 3306, Ipv4::new([10, 80, 1, 1]), 40000)
    }

    fn numbers(acked: u32, sent: u32) -> Vec<u32> {
        Segment::of(&End { flow: flow(), acked, sent }).iter().map(|segment| segment.seq).collect()
    }

    #[test]
    fn an_end_is_reset_where_it_may_wait() {
        assert_eq!(numbers(1000, 1000), [1000], "it has acknowledged all it got");
        assert_eq!(numbers(1000, 5000), [1000, 5000], "data in flight");
        assert_eq!(numbers(1000, 900), [1000], "an old segment was the last to come");
        assert_eq!(numbers(0, 5000), [5000]);
        assert_eq!(numbers(1000, 0), [1000]);
        assert!(numbers(0, 0).is_empty(), "nothing is known");
        assert_eq!(numbers(u32::MAX - 9, 90), [u32::MAX - 9, 90], "across the wrap");
    }

    #[test]
    fn the_bytes_are_those_of_the_rfcs() {
        let bytes = Segment { flow: flow(), seq: 0x0102_0304 }.bytes();
        assert_eq!(bytes[..10], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        assert_eq!(bytes[12..24], [10, 80, 1, 243, 10, 80, 1, 1, 0x0c, 0xea, 0x9c, 0x40]);
        assert_eq!(bytes[24..36], [1, 2, 3, 4, 0, 0, 0, 0, 0x50, 0x04, 0, 0]);
        // 0x4500 + 0x0028 + 0x4000 + 0x4006 + 0x0a50 + 0x01f3 + 0x0a50 + 0x0101 is 0xdcc2; the field is its complement.
        assert_eq!(bytes[10..12], [0x23, 0x3d]);
    }

    proptest! {
        #[test]
        fn a_receiver_finds_both_checksums_right_and_reads_what_was_written(
            addrs: ([u8; 4], [u8; 4]), ports: (u16, u16), number: u32,
        ) {
            let flow = FlowKey::tcp(Ipv4::new(addrs.0), ports.0, Ipv4::new(addrs.1), ports.1);
            let bytes = Segment { flow, seq: number }.bytes();
            prop_assert_eq!(csum::fold(sum(&bytes[..20])), 0xffff);
            let pseudo = csum::pseudo_header(flow.src.word(), flow.dst.word(), 6, 20);
            prop_assert_eq!(csum::fold(u64::from(pseudo) + sum(&bytes[20..])), 0xffff);

            let frame = [&[0; 12][..], &[8, 0], &bytes].concat();
            let start = frame.as_ptr() as usize;
            // SAFETY: the bounds are those of the frame.
            let Parsed::Tcp(packet) = (unsafe { parse(start, start + frame.len()) }) else { panic!("no segment") };
            prop_assert_eq!((packet.key(), packet.seq(), packet.flags), (flow, number, flag::RST));
        }
    }
}

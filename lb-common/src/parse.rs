//! Finds the headers of a frame: Ethernet, up to two VLAN tags, IPv4 with options, TCP.
//!
//! Works on the raw bounds of a frame, so that the same code runs under the verifier, in host tests and under the
//! fuzzer. It reads, it never writes. Lengths are checked against each other, not against the frame's end beyond the
//! headers: the payload may lie in fragments the hook cannot see. Layouts are those of `network-types`.

use core::mem::offset_of;

use network_types::{arp::ArpHdr, eth::EthHdr, ip::Ipv4Hdr, tcp::TcpHdr, vlan::VlanHdr};

use crate::{
    conn::{FlowKey, Proto},
    icmp::{self, IcmpError, Unfit},
    word,
};

const ETH_P_IP: u16 = 0x0800_u16.to_be();
const ETH_P_ARP: u16 = 0x0806_u16.to_be();
const ETH_P_8021Q: u16 = 0x8100_u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8_u16.to_be();
const IPPROTO_ICMP: u8 = 1;
/// More fragments follow, or this is not the first one.
const IP_MF: u16 = 0x2000_u16.to_be();
const IP_OFFSET: u16 = 0x1fff_u16.to_be();

/// What a frame turned out to be.
pub enum Parsed {
    /// A TCP segment over IPv4 with complete headers.
    Tcp(Tcp),
    /// An ICMP error about a TCP segment.
    IcmpError(IcmpError),
    /// A request for the link-layer address of an IPv4 address (RFC 826).
    ArpRequest {
        /// The address asked for, as loaded.
        target: u32,
    },
    /// Nothing this packet path translates.
    Foreign,
    /// The frame ends before its headers do.
    Short,
    /// TCP over IPv4 whose lengths contradict each other.
    Malformed,
}

/// The headers of a TCP segment. The pointers are valid as long as the frame's bounds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The Ethernet header.
    pub eth: *mut u8,
    /// The IPv4 header.
    pub ip: *mut u8,
    /// The TCP header.
    pub tcp: *mut u8,
    /// Source address as loaded.
    pub src: u32,
    /// Destination address as loaded.
    pub dst: u32,
    /// Source port as loaded (network order).
    pub sport: u16,
    /// Destination port as loaded (network order).
    pub dport: u16,
    /// Flag bits, [`crate::tcp::flag`].
    pub flags: u8,
    /// The first fragment of a fragmented packet.
    pub fragment: bool,
    /// VLAN tags in front of the IPv4 header.
    pub tags: u8,
    /// Length of the IP packet in bytes.
    pub ip_len: u16,
    /// Length of the TCP header and payload in bytes.
    pub tcp_len: u16,
    /// Length of the payload in bytes.
    pub payload: u16,
}

impl Tcp {
    /// The packet's own 5-tuple.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> FlowKey {
        // SAFETY: `parse` checked the whole IPv4 header, where the addresses follow each other.
        let addrs = unsafe { word::load(self.ip.add(offset_of!(Ipv4Hdr, src_addr))) };
        FlowKey::from_packet(addrs, u16::from_be(self.sport), u16::from_be(self.dport))
    }

    /// The sequence number, host order.
    #[inline(always)]
    #[must_use]
    pub fn seq(&self) -> u32 {
        // SAFETY: `parse` checked the whole TCP header.
        u32::from_be(unsafe { word::load(self.tcp.add(offset_of!(TcpHdr, seq))) })
    }

    /// The acknowledgement number, host order.
    #[inline(always)]
    #[must_use]
    pub fn ack(&self) -> u32 {
        // SAFETY: `parse` checked the whole TCP header.
        u32::from_be(unsafe { word::load(self.tcp.add(offset_of!(TcpHdr, ack_seq))) })
    }

    /// The sequence number that follows this segment: SYN and FIN take one each (RFC 9293 §3.4).
    #[inline(always)]
    #[must_use]
    pub fn seq_end(&self) -> u32 {
        use crate::tcp::flag;
        let phantom = u32::from(self.flags & flag::FIN != 0) + u32::from(self.flags & flag::SYN != 0);
        self.seq().wrapping_add(u32::from(self.payload)).wrapping_add(phantom)
    }

    /// The time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        // SAFETY: `parse` checked the whole IPv4 header.
        unsafe { word::load(self.ip.add(offset_of!(Ipv4Hdr, ttl))) }
    }
}

/// Finds the headers of a frame of the one shape that nearly all have: Ethernet without tags, IPv4 without options and
/// not fragmented, TCP. `None` tells only that this frame is of another shape, or broken: [`parse`] knows.
///
/// All offsets are constants, and one comparison checks all bounds.
///
/// # Safety
///
/// As for [`parse`].
#[inline(always)]
#[must_use]
pub unsafe fn parse_plain(start: usize, end: usize) -> Option<Tcp> {
    const IP: usize = EthHdr::LEN;
    const TCP: usize = IP + Ipv4Hdr::LEN;
    if start + TCP + TcpHdr::LEN > end {
        return None;
    }
    let eth = start as *mut u8;
    // SAFETY: the fixed parts of all three headers were checked.
    let (ip, tcp) = unsafe { (eth.add(IP), eth.add(TCP)) };
    // SAFETY: as above.
    let (ether_type, vihl, proto, frags, ip_len, offset): (u16, u8, u8, u16, u16, u8) = unsafe {
        (
            word::load(eth.add(offset_of!(EthHdr, ether_type))),
            word::load(ip),
            word::load(ip.add(offset_of!(Ipv4Hdr, proto))),
            word::load(ip.add(offset_of!(Ipv4Hdr, frags))),
            u16::from_be(word::load(ip.add(offset_of!(Ipv4Hdr, tot_len)))),
            word::load(tcp.add(TCP_OFFSET)),
        )
    };
    if ether_type != ETH_P_IP || vihl != PLAIN_IPV4 || proto != Proto::Tcp as u8 || frags & (IP_MF | IP_OFFSET) != 0 {
        return None;
    }
    let (tcp_len, payload) = tcp_lengths(ip_len, Ipv4Hdr::LEN as u32, offset)?;
    // SAFETY: as above.
    let (src, dst, sport, dport, flags) = unsafe {
        (
            word::load(ip.add(offset_of!(Ipv4Hdr, src_addr))),
            word::load(ip.add(offset_of!(Ipv4Hdr, dst_addr))),
            word::load(tcp.add(offset_of!(TcpHdr, source))),
            word::load(tcp.add(offset_of!(TcpHdr, dest))),
            word::load(tcp.add(TCP_FLAGS)),
        )
    };
    Some(Tcp { eth, ip, tcp, src, dst, sport, dport, flags, fragment: false, tags: 0, ip_len, tcp_len, payload })
}

/// Version 4, no options.
const PLAIN_IPV4: u8 = 0x45;

/// The lengths of the segment and of its payload; `None` if the headers' lengths contradict each other.
#[inline(always)]
fn tcp_lengths(ip_len: u16, ihl: u32, offset: u8) -> Option<(u16, u16)> {
    let header = u32::from(offset >> 4) * 4;
    let tcp_len = u32::from(ip_len).wrapping_sub(ihl);
    if header < TcpHdr::LEN as u32 || tcp_len > 0xffff || header > tcp_len {
        return None;
    }
    Some((tcp_len as u16, (tcp_len - header) as u16))
}

/// Finds the headers of the frame that lies in `start..end`.
///
/// # Safety
///
/// The memory from `start` to `end` is readable.
#[inline(always)]
#[must_use]
pub unsafe fn parse(start: usize, end: usize) -> Parsed {
    let eth = start as *mut u8;
    if start + EthHdr::LEN > end {
        return Parsed::Short;
    }
    // SAFETY: the bound was checked just before, as it is before every other load of this function.
    let mut ether_type: u16 = unsafe { word::load(eth.add(offset_of!(EthHdr, ether_type))) };
    let mut tags = 0;
    if ether_type == ETH_P_8021Q || ether_type == ETH_P_8021AD {
        if start + EthHdr::LEN + VlanHdr::LEN > end {
            return Parsed::Short;
        }
        // SAFETY: checked.
        ether_type = unsafe { word::load(eth.add(EthHdr::LEN + offset_of!(VlanHdr, ether_type))) };
        tags = 1;
        if ether_type == ETH_P_8021Q {
            if start + EthHdr::LEN + 2 * VlanHdr::LEN > end {
                return Parsed::Short;
            }
            // SAFETY: checked.
            ether_type = unsafe { word::load(eth.add(EthHdr::LEN + VlanHdr::LEN + offset_of!(VlanHdr, ether_type))) };
            tags = 2;
        }
    }
    if ether_type != ETH_P_IP {
        // SAFETY: the tags were checked.
        return if ether_type == ETH_P_ARP { unsafe { arp(eth, tags, end) } } else { Parsed::Foreign };
    }
    // SAFETY: the tags were checked.
    unsafe { ipv4(eth, tags, end) }
}

/// Finds the IPv4 and TCP headers behind an Ethernet header with `tags` VLAN tags.
///
/// # Safety
///
/// As for [`parse`]; the Ethernet header and the tags lie before `end`.
#[inline(always)]
unsafe fn ipv4(eth: *mut u8, tags: u8, end: usize) -> Parsed {
    // SAFETY: within the frame or at its end.
    let ip = unsafe { eth.add(EthHdr::LEN + usize::from(tags) * VlanHdr::LEN) };
    if ip as usize + Ipv4Hdr::LEN > end {
        return Parsed::Short;
    }
    // SAFETY: the fixed part of the header was checked.
    let (vihl, proto, frags): (u8, u8, u16) = unsafe {
        (word::load(ip), word::load(ip.add(offset_of!(Ipv4Hdr, proto))), word::load(ip.add(offset_of!(Ipv4Hdr, frags))))
    };
    // A later fragment carries no ports: the kernel forwards or reassembles it as it would without us.
    let known = proto == Proto::Tcp as u8 || proto == IPPROTO_ICMP;
    if vihl & 0xf0 != 0x40 || !known || frags & IP_OFFSET != 0 {
        return Parsed::Foreign;
    }
    let ihl = usize::from(vihl & 0xf) * 4;
    if ihl < Ipv4Hdr::LEN {
        return Parsed::Malformed;
    }
    if proto == IPPROTO_ICMP {
        // SAFETY: the fixed part of the header was checked.
        return match unsafe { icmp::parse(eth, ip, ihl, tags, end) } {
            Ok(error) => Parsed::IcmpError(error),
            Err(Unfit::Foreign) => Parsed::Foreign,
            Err(Unfit::Short) => Parsed::Short,
        };
    }
    // SAFETY: at most 60 bytes on, and checked before it is read.
    let tcp = unsafe { ip.add(ihl) };
    if tcp as usize + TcpHdr::LEN > end {
        return Parsed::Short;
    }
    // SAFETY: both headers' fixed parts were checked.
    let (ip_len, src, dst, sport, dport, offset, flags): (u16, u32, u32, u16, u16, u8, u8) = unsafe {
        (
            u16::from_be(word::load(ip.add(offset_of!(Ipv4Hdr, tot_len)))),
            word::load(ip.add(offset_of!(Ipv4Hdr, src_addr))),
            word::load(ip.add(offset_of!(Ipv4Hdr, dst_addr))),
            word::load(tcp.add(offset_of!(TcpHdr, source))),
            word::load(tcp.add(offset_of!(TcpHdr, dest))),
            word::load(tcp.add(TCP_OFFSET)),
            word::load(tcp.add(TCP_FLAGS)),
        )
    };
    let Some((tcp_len, payload)) = tcp_lengths(ip_len, ihl as u32, offset) else { return Parsed::Malformed };
    Parsed::Tcp(Tcp {
        eth,
        ip,
        tcp,
        src,
        dst,
        sport,
        dport,
        flags,
        fragment: frags & IP_MF != 0,
        tags,
        ip_len,
        tcp_len,
        payload,
    })
}

/// Reads an ARP packet for IPv4 over Ethernet behind `tags` VLAN tags.
///
/// # Safety
///
/// As for [`ipv4`].
#[inline(always)]
unsafe fn arp(eth: *mut u8, tags: u8, end: usize) -> Parsed {
    // SAFETY: within the frame or at its end.
    let arp = unsafe { eth.add(EthHdr::LEN + usize::from(tags) * VlanHdr::LEN) };
    if arp as usize + ArpHdr::LEN > end {
        return Parsed::Short;
    }
    // SAFETY: checked.
    let (op, target): (u16, u32) =
        unsafe { (word::load(arp.add(offset_of!(ArpHdr, oper))), word::load(arp.add(offset_of!(ArpHdr, tpa)))) };
    if op == ARP_REQUEST { Parsed::ArpRequest { target } } else { Parsed::Foreign }
}

const ARP_REQUEST: u16 = 1_u16.to_be();

/// Offset of the byte with the data offset (upper four bits, in words).
const TCP_OFFSET: usize = offset_of!(TcpHdr, ack_seq) + 4;
/// Offset of the flags.
const TCP_FLAGS: usize = TCP_OFFSET + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::Ipv4, tcp::flag};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A frame with `tags` VLAN tags, `options` bytes of IP options and 3 bytes of payload.
    fn frame(tags: usize, options: usize) -> Vec<u8> {
        let mut f = std::vec![0xaa; 12];
        for tag in 0..tags {
            f.extend(if tag + 1 == tags { [0x81, 0x00] } else { [0x88, 0xa8] });
            f.extend([0, 7]);
        }
        f.extend([0x08, 0x00]);
        let tot_len = (20 + options + 20 + 3) as u16;
        f.push(0x40 | (5 + options / 4) as u8);
        f.push(0);
        f.extend(tot_len.to_be_bytes());
        f.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 80, 1, 1, 10, 80, 1, 243]);
        f.extend(std::iter::repeat_n(1, options));
        f.extend(40000_u16.to_be_bytes());
        f.extend(3306_u16.to_be_bytes());
        f.extend(7_u32.to_be_bytes());
        f.extend(9_u32.to_be_bytes());
        f.extend([0x50, flag::ACK | flag::FIN, 1, 0, 0, 0, 0, 0]);
        f.extend([1, 2, 3]);
        f
    }

    fn run(frame: &[u8]) -> Parsed {
        let start = frame.as_ptr() as usize;
        // SAFETY: the bounds are those of the slice.
        unsafe { parse(start, start + frame.len()) }
    }

    #[test]
    fn tags_and_options_move_the_headers() {
        for tags in 0..=2 {
            for options in [0, 4, 40] {
                let f = frame(tags, options);
                let Parsed::Tcp(p) = run(&f) else { panic!("{tags} tags, {options} bytes of options") };
                assert_eq!(p.key(), FlowKey::tcp(Ipv4::new([10, 80, 1, 1]), 40000, Ipv4::new([10, 80, 1, 243]), 3306));
                assert_eq!((p.seq(), p.ack(), p.payload, p.ttl()), (7, 9, 3, 64));
                assert_eq!(p.seq_end(), 7 + 3 + 1);
                assert_eq!(p.tcp_len, 23);
                assert_eq!(p.tcp as usize - p.eth as usize, 14 + 4 * tags + 20 + options);
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_in_its_headers_is_short() {
        let f = frame(2, 8);
        let headers = f.len() - 3;
        for len in 0..headers {
            assert!(matches!(run(&f[..len]), Parsed::Short), "{len} bytes");
        }
        assert!(matches!(run(&f[..headers]), Parsed::Tcp(_)));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        let ip = 14;
        for (at, value, what) in [
            (ip, 0x44, "IPv4 header of 16 bytes"),
            (ip + 20 + 12, 0x40, "TCP header of 16 bytes"),
            (ip + 20 + 12, 0xf0, "TCP header longer than the packet"),
            (ip + 3, 39, "IP packet shorter than its headers"),
        ] {
            let mut f = frame(0, 0);
            f[at] = value;
            assert!(matches!(run(&f), Parsed::Malformed), "{what}");
        }
    }

    #[test]
    fn what_is_not_tcp_over_ipv4_is_foreign() {
        for (at, value) in [(12, 0x86), (14, 0x65), (14 + 9, 17), (14 + 7, 1)] {
            let mut f = frame(0, 0);
            f[at] = value;
            assert!(matches!(run(&f), Parsed::Foreign), "byte {at} = {value}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_frame_is_what_the_whole_parser_finds_without_tags_options_and_fragments(
            tags in 0_usize..2,
            options in prop::sample::select(std::vec![0_usize, 4]),
            changes in prop::collection::vec((12_usize..54, any::<u8>()), 0..3),
            cut in 0_usize..80,
        ) {
            let mut f = frame(tags, options);
            changes.into_iter().for_each(|(at, byte)| f[at] = byte);
            f.truncate(cut.max(30));
            let start = f.as_ptr() as usize;
            // SAFETY: the bounds are those of the vector.
            let plain = unsafe { parse_plain(start, start + f.len()) };
            let whole = match run(&f) {
                Parsed::Tcp(p) if p.tags == 0 && !p.fragment && p.tcp as usize - p.ip as usize == 20 => Some(p),
                _ => None,
            };
            prop_assert_eq!(plain, whole);
        }

        #[test]
        fn no_frame_is_read_past_its_end(mut f in prop::collection::vec(any::<u8>(), 0..120), like_ip: bool) {
            if like_ip && f.len() > 24 {
                f[12..15].copy_from_slice(&[8, 0, 0x45]);
                f[23] = 6;
            }
            if let Parsed::Tcp(p) = run(&f) {
                let tcp = p.tcp as usize - f.as_ptr() as usize;
                prop_assert!(tcp + 20 <= f.len());
                prop_assert!(p.payload <= p.tcp_len && p.tcp_len < p.ip_len);
            }
        }
    }
}

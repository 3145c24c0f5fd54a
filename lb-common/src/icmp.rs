//! ICMP errors (RFC 792; RFC 1812 §4.3.2) that quote a TCP segment: destination unreachable, time exceeded, parameter
//! problem. Path-MTU discovery lives on them, so they are translated outside and inside (RFC 5508 §4).

use core::mem::offset_of;

use network_types::{icmp::Icmpv4Hdr, ip::Ipv4Hdr, tcp::TcpHdr};

use crate::{
    addr::Ipv4,
    conn::{FlowKey, Proto},
    csum::{Delta, ONE_HOP},
    word,
};

/// The quote holds at least this much of the TCP header: ports and sequence number.
const QUOTED: usize = 8;
/// Anything but "don't fragment".
const IP_FRAGMENT: u16 = 0x3fff_u16.to_be();

/// The headers of an ICMP error about a TCP segment. The pointers are valid as long as the frame's bounds are.
#[derive(Clone, Copy)]
pub struct IcmpError {
    /// The Ethernet header.
    pub eth: *mut u8,
    /// The outer IPv4 header.
    pub ip: *mut u8,
    /// The ICMP header.
    pub icmp: *mut u8,
    /// The quoted IPv4 header.
    pub inner: *mut u8,
    /// The quoted TCP header.
    pub tcp: *mut u8,
    /// The quote reaches to the TCP checksum.
    pub has_check: bool,
    /// VLAN tags in front of the outer header.
    pub tags: u8,
    /// Outer addresses as loaded: source, destination.
    pub outer: [u32; 2],
    /// Quoted addresses as loaded: source, destination.
    pub addrs: [u32; 2],
    /// Quoted ports as loaded (network order): source, destination.
    pub ports: [u16; 2],
}

/// What a translated error looks like. Addresses as words of the packet, ports in network order.
#[derive(Clone, Copy)]
pub struct Translation {
    /// Outer addresses: source, destination.
    pub outer: [u32; 2],
    /// Quoted addresses: source, destination.
    pub addrs: [u32; 2],
    /// Quoted ports: source, destination.
    pub ports: [u16; 2],
}

/// Why an ICMP message is none of ours.
pub(crate) enum Unfit {
    /// No error, or not about a TCP segment.
    Foreign,
    /// The frame ends before the quoted headers do.
    Short,
}

/// Finds the headers behind the outer IPv4 header at `ip`, which is `ihl` bytes long.
///
/// # Errors
///
/// It is not an error about a TCP segment.
///
/// # Safety
///
/// The fixed part of the outer header lies before `end`, and `end` is the end of the frame.
#[inline(always)]
pub(crate) unsafe fn parse(eth: *mut u8, ip: *mut u8, ihl: usize, tags: u8, end: usize) -> Result<IcmpError, Unfit> {
    // SAFETY: at most 60 bytes on, and checked before it is read.
    let icmp = unsafe { ip.add(ihl) };
    if icmp as usize + Icmpv4Hdr::LEN + Ipv4Hdr::LEN > end {
        return Err(Unfit::Short);
    }
    // SAFETY: the ICMP header and the fixed part of the quoted one were checked; so was the outer one by the caller.
    let (kind, frags, vihl, proto, inner_frags): (u8, u16, u8, u8, u16) = unsafe {
        let inner = icmp.add(Icmpv4Hdr::LEN);
        (
            word::load(icmp),
            word::load(ip.add(offset_of!(Ipv4Hdr, frags))),
            word::load(inner),
            word::load(inner.add(offset_of!(Ipv4Hdr, proto))),
            word::load(inner.add(offset_of!(Ipv4Hdr, frags))),
        )
    };
    let is_error = kind == 3 || kind == 11 || kind == 12;
    let inner_ihl = usize::from(vihl & 0xf) * 4;
    if !is_error
        || frags & IP_FRAGMENT != 0
        || vihl & 0xf0 != 0x40
        || inner_ihl < Ipv4Hdr::LEN
        || proto != Proto::Tcp as u8
        || inner_frags & 0x1fff_u16.to_be() != 0
    {
        return Err(Unfit::Foreign);
    }
    // SAFETY: the ICMP header was checked; the quoted TCP header is checked before it is read.
    let (inner, tcp) = unsafe { (icmp.add(Icmpv4Hdr::LEN), icmp.add(Icmpv4Hdr::LEN + inner_ihl)) };
    if tcp as usize + QUOTED > end {
        return Err(Unfit::Short);
    }
    let has_check = tcp as usize + offset_of!(TcpHdr, check) + 2 <= end;
    // SAFETY: checked.
    unsafe {
        Ok(IcmpError {
            eth,
            ip,
            icmp,
            inner,
            tcp,
            has_check,
            tags,
            outer: [
                word::load(ip.add(offset_of!(Ipv4Hdr, src_addr))),
                word::load(ip.add(offset_of!(Ipv4Hdr, dst_addr))),
            ],
            addrs: [
                word::load(inner.add(offset_of!(Ipv4Hdr, src_addr))),
                word::load(inner.add(offset_of!(Ipv4Hdr, dst_addr))),
            ],
            ports: [word::load(tcp.add(offset_of!(TcpHdr, source))), word::load(tcp.add(offset_of!(TcpHdr, dest)))],
        })
    }
}

impl IcmpError {
    /// The key of the flow that the error travels with: the quoted segment went the other way.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        FlowKey::tcp(
            Ipv4::from_word(self.addrs[1]),
            u16::from_be(self.ports[1]),
            Ipv4::from_word(self.addrs[0]),
            u16::from_be(self.ports[0]),
        )
    }

    /// The outer time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        // SAFETY: `parse` checked the header.
        unsafe { word::load(self.ip.add(offset_of!(Ipv4Hdr, ttl))) }
    }

    /// Rewrites outer header, ICMP checksum and quote; decrements the outer TTL, which is above 1.
    ///
    /// `end` is the end of the frame, once more: the quote's last word is optional.
    #[inline(always)]
    pub fn rewrite(&self, new: &Translation, end: usize) {
        let quoted = Delta::new().words32(self.addrs, new.addrs);
        let ports = Delta::new().words16(self.ports, new.ports);
        // SAFETY: `parse` checked every header; the TCP checksum is checked here.
        unsafe {
            let ttl_at = self.ip.add(offset_of!(Ipv4Hdr, ttl));
            let old: u16 = word::load(ttl_at);
            let outer = Delta::new().words32(self.outer, new.outer).less16(ONE_HOP);
            let check_at = self.ip.add(offset_of!(Ipv4Hdr, check));
            word::store(check_at, outer.apply(word::load(check_at)));
            word::store(ttl_at, old.wrapping_sub(ONE_HOP));
            word::store(self.ip.add(offset_of!(Ipv4Hdr, src_addr)), new.outer[0]);
            word::store(self.ip.add(offset_of!(Ipv4Hdr, dst_addr)), new.outer[1]);

            let inner_check_at = self.inner.add(offset_of!(Ipv4Hdr, check));
            let inner_check: u16 = word::load(inner_check_at);
            let new_inner_check = quoted.apply(inner_check);
            word::store(inner_check_at, new_inner_check);
            word::store(self.inner.add(offset_of!(Ipv4Hdr, src_addr)), new.addrs[0]);
            word::store(self.inner.add(offset_of!(Ipv4Hdr, dst_addr)), new.addrs[1]);
            word::store(self.tcp.add(offset_of!(TcpHdr, source)), new.ports[0]);
            word::store(self.tcp.add(offset_of!(TcpHdr, dest)), new.ports[1]);

            // The ICMP checksum covers all of the quote.
            let mut all = quoted.plus(ports).word16(inner_check, new_inner_check);
            let tcp_check_at = self.tcp.add(offset_of!(TcpHdr, check));
            if self.has_check && tcp_check_at as usize + 2 <= end {
                let tcp_check: u16 = word::load(tcp_check_at);
                let new_tcp_check = quoted.plus(ports).apply(tcp_check);
                word::store(tcp_check_at, new_tcp_check);
                all = all.word16(tcp_check, new_tcp_check);
            }
            let icmp_check_at = self.icmp.add(offset_of!(Icmpv4Hdr, check));
            word::store(icmp_check_at, all.apply(word::load(icmp_check_at)));
        }
    }
}

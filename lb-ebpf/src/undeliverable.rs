//! An ICMP error of our own about a packet that cannot go on, made of the packet itself (RFC 792, RFC 1812 §4.3.2):
//! too big for the link to the next hop (RFC 1191), or out of time.
//!
//! The kernel could not tell: it would take a client's packet for one to this host, and it knows a backend's packet only
//! untranslated. The answer comes from the VIP, the one address that both ends may see, and leaves the way the packet
//! came. It quotes the IP header and the first bytes of TCP, from which the sender finds its connection.

use core::mem::offset_of;

use lb_common::{
    conn::Direction,
    csum::fold,
    parse::{Parsed, Tcp, parse},
    word,
};
use network_types::{eth::EthHdr, icmp::Icmpv4Hdr, ip::Ipv4Hdr, tcp::TcpHdr};

use crate::{
    hook::Hook,
    maps::{CONNS, HALF_OPEN},
};

/// The outer IPv4 header and the ICMP header.
const IN_FRONT: usize = Ipv4Hdr::LEN + Icmpv4Hdr::LEN;
/// Bytes of TCP that are quoted: ports and sequence number.
const QUOTED: u16 = 8;
/// Bytes of TCP up to the end of its checksum.
const WITH_CHECK: u16 = offset_of!(TcpHdr, check) as u16 + 2;
/// Fragmentation needed and "don't fragment" set; and time exceeded in transit: type and code.
const TOO_BIG: u16 = u16::from_be_bytes([3, 4]);
const OUT_OF_TIME: u16 = u16::from_be_bytes([11, 0]);

/// What is wrong, and who says so.
struct Complaint {
    /// Type and code of the ICMP message, host order.
    kind: u16,
    /// The next hop's MTU, host order; 0 where it does not matter.
    mtu: u16,
    /// The VIP, as a word of the packet.
    from: u32,
}

/// Answers the segment that the frame holds, or drops it where that cannot be done.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> H::Action {
    let (start, end) = hook.bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    match unsafe { parse(start, end) } {
        Parsed::Tcp(packet) if is_host(packet.src) => match complaint(&packet) {
            Some(complaint) if write(hook, &packet, &complaint) => hook.reflect(),
            _ => H::DROP,
        },
        _ => H::DROP,
    }
}

/// One host, and one that can be answered (RFC 1122 §3.2.2).
#[inline(always)]
fn is_host(addr: u32) -> bool {
    let first = addr.to_ne_bytes()[0];
    first != 0 && first != 127 && first < 224
}

/// The reason is found anew: it lies in the packet, or in its conn's entry.
#[inline(always)]
fn complaint(packet: &Tcp) -> Option<Complaint> {
    if packet.ttl() <= 1 {
        return Some(Complaint { kind: OUT_OF_TIME, mtu: 0, from: packet.dst });
    }
    let key = packet.key();
    let conn = CONNS.get_ptr(&key).or_else(|| HALF_OPEN.get_ptr(&key))?;
    // SAFETY: the entry is only read.
    let (mtu, dir, src) = unsafe { ((*conn).mtu, (*conn).dir, (*conn).src) };
    let from = if matches!(dir, Direction::Forward) { packet.dst } else { src.word() };
    Some(Complaint { kind: TOO_BIG, mtu, from })
}

/// Turns the frame into the answer; `false` if the kernel would not let it be changed.
#[inline(always)]
fn write<H: Hook>(hook: &H, packet: &Tcp, complaint: &Complaint) -> bool {
    if packet.tags != 0 {
        return false;
    }
    let header = packet.tcp as usize - packet.ip as usize;
    // SAFETY: `parse` checked the headers up to the end of TCP's fixed part.
    let (dst_head, dst_tail, src_head, src_tail, seq, check): (u32, u16, u32, u16, u32, u16) = unsafe {
        (
            word::load(packet.eth.add(6)),
            word::load(packet.eth.add(10)),
            word::load(packet.eth),
            word::load(packet.eth.add(4)),
            word::load(packet.tcp.add(offset_of!(TcpHdr, seq))),
            word::load(packet.tcp.add(offset_of!(TcpHdr, check))),
        )
    };
    let (src, dst) = (complaint.from, packet.src);
    let kept = (EthHdr::LEN + header) as u32;
    // The quoted IP header sums up to nothing, as every header with a valid checksum.
    let (quoted, sum) = if hook.resize(kept + u32::from(QUOTED)) {
        (QUOTED, u64::from(packet.sport) + u64::from(packet.dport) + u64::from(seq))
    } else if H::COMPLETE && hook.resize(kept + u32::from(WITH_CHECK)) {
        // The kernel does not cut off a checksum that a device is to finish. When that has summed up all that is left,
        // it has written the complement over the pseudo-header's sum, which alone is then missing from nothing.
        (WITH_CHECK, u64::from(!check))
    } else {
        return false;
    };
    if !hook.prepend(IN_FRONT as u32) {
        return false;
    }
    let (start, end) = hook.bounds();
    if start + EthHdr::LEN + IN_FRONT > end {
        return false;
    }
    let frame = start as *mut u8;
    let len = (IN_FRONT + header) as u16 + quoted;
    // Version 4, 20 bytes of header, internetwork control (RFC 1812 §4.3.2.5); don't fragment; TTL 64, ICMP.
    let ip = [0x45c0_u16.to_be(), len.to_be(), 0, 0x4000_u16.to_be(), 0x4001_u16.to_be()];
    let ip_sum = u64::from(ip[0]) + u64::from(ip[1]) + u64::from(ip[3]) + u64::from(ip[4]);
    let (kind, mtu) = (complaint.kind.to_be(), complaint.mtu.to_be());
    // SAFETY: all 42 bytes were checked just before.
    unsafe {
        word::store(frame, dst_head);
        word::store(frame.add(4), dst_tail);
        word::store(frame.add(6), src_head);
        word::store(frame.add(10), src_tail);
        word::store(frame.add(12), 0x0800_u16.to_be());
        word::store(frame.add(14), ip[0]);
        word::store(frame.add(16), ip[1]);
        word::store(frame.add(18), ip[2]);
        word::store(frame.add(20), ip[3]);
        word::store(frame.add(22), ip[4]);
        word::store(frame.add(24), !fold(ip_sum + u64::from(src) + u64::from(dst)));
        word::store(frame.add(26), src);
        word::store(frame.add(30), dst);
        word::store(frame.add(34), kind);
        word::store(frame.add(36), !fold(sum + u64::from(kind) + u64::from(mtu)));
        word::store(frame.add(38), 0_u16);
        word::store(frame.add(40), mtu);
    }
    true
}

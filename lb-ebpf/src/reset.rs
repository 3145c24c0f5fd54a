//! A RST in answer to a packet, made of the packet itself (RFC 9293 §3.10.7.1).
//!
//! The answer's sequence number is what the packet's sender acknowledged, so it stands exactly where the sender waits
//! (RFC 5961 §3.2) and is believed. It leaves the way the packet came, with its VLAN tags: no route is asked.

use lb_common::{
    csum::{fold, pseudo_header},
    parse::{Parsed, Tcp, parse},
    tcp::flag,
    word,
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr, tcp::TcpHdr, vlan::VlanHdr};

use crate::{hook::Hook, nat};

/// IPv4 and TCP without options.
const ANSWER: usize = Ipv4Hdr::LEN + TcpHdr::LEN;

/// Answers the segment that the frame holds, or drops it where that cannot be done.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> H::Action {
    let (start, end) = hook.bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    match unsafe { parse(start, end) } {
        // Nobody answers a RST with a RST.
        Parsed::Tcp(packet) if packet.flags & flag::RST == 0 && write(hook, &packet) => hook.reflect(),
        _ => H::DROP,
    }
}

/// Turns the frame into the answer; `false` if the kernel would not let it be shortened.
#[inline(always)]
fn write<H: Hook>(hook: &H, packet: &Tcp) -> bool {
    // The tags stay where they are. The mask shows the verifier that there are few.
    let link = EthHdr::LEN + usize::from(packet.tags & 3) * VlanHdr::LEN;
    let unfinished = H::COMPLETE && nat::maybe_partial(packet);
    // SAFETY: `parse` checked the Ethernet header.
    let (dst_head, dst_tail, src_head, src_tail): (u32, u16, u32, u16) = unsafe {
        (
            word::load(packet.eth.add(6)),
            word::load(packet.eth.add(10)),
            word::load(packet.eth),
            word::load(packet.eth.add(4)),
        )
    };
    // Without an ACK there is no number to reset at: acknowledge the packet instead.
    let (seq, ack, flags) = if packet.flags & flag::ACK != 0 {
        (packet.ack().to_be(), 0, flag::RST)
    } else {
        (0, packet.seq_end().to_be(), flag::RST | flag::ACK)
    };
    let (src, dst, sport, dport) = (packet.dst, packet.src, packet.dport, packet.sport);
    if !hook.resize((link + ANSWER) as u32) {
        return false;
    }
    let (start, end) = hook.bounds();
    let (frame, answer) = (start as *mut u8, (start + link) as *mut u8);
    if answer as usize + ANSWER > end {
        return false;
    }
    // Version 4, 20 bytes of header; length 40; don't fragment; TTL 64, TCP.
    let ip = [0x4500_u16.to_be(), 40_u16.to_be(), 0, 0x4000_u16.to_be(), 0x4006_u16.to_be()];
    let ip_sum = u64::from(ip[0]) + u64::from(ip[1]) + u64::from(ip[3]) + u64::from(ip[4]);
    let offset_flags = (0x5000 | u16::from(flags)).to_be();
    let pseudo = pseudo_header(src, dst, 6, 20);
    let tcp_sum = u64::from(pseudo)
        + u64::from(sport)
        + u64::from(dport)
        + u64::from(seq)
        + u64::from(ack)
        + u64::from(offset_flags);
    // SAFETY: all bytes up to the end of the answer were checked just before.
    unsafe {
        word::store(frame, dst_head);
        word::store(frame.add(4), dst_tail);
        word::store(frame.add(6), src_head);
        word::store(frame.add(10), src_tail);
        word::store(answer, ip[0]);
        word::store(answer.add(2), ip[1]);
        word::store(answer.add(4), ip[2]);
        word::store(answer.add(6), ip[3]);
        word::store(answer.add(8), ip[4]);
        word::store(answer.add(10), !fold(ip_sum + u64::from(src) + u64::from(dst)));
        word::store(answer.add(12), src);
        word::store(answer.add(16), dst);
        word::store(answer.add(20), sport);
        word::store(answer.add(22), dport);
        word::store(answer.add(24), seq);
        word::store(answer.add(28), ack);
        word::store(answer.add(32), offset_flags);
        word::store(answer.add(34), 0_u16);
        // What the buffer says about the checksum outlives the rewrite: keep the field to it.
        word::store(answer.add(36), if unfinished { pseudo } else { !fold(tcp_sum) });
        word::store(answer.add(38), 0_u16);
    }
    true
}

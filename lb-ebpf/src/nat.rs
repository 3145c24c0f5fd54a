//! The rewrite: addresses, ports, checksums by RFC 1624 deltas, TTL, then the Ethernet addresses. Never the payload.

use core::mem::offset_of;

use lb_common::{
    conn::Conn,
    csum::{self, Delta, ONE_HOP},
    parse::Tcp,
    word,
};
use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};

/// The 12 bytes from the TTL to the end of the fixed IPv4 header, as they leave.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct IpTail {
    ttl_proto: u16,
    check: u16,
    src: u32,
    dst: u32,
}

/// The rewritten words of a packet.
pub(crate) struct Plan {
    /// The end of the IPv4 header.
    pub(crate) ip: IpTail,
    /// Both ports, network order.
    pub(crate) tcp_ports: [u16; 2],
    /// What the addresses change in any checksum that covers them.
    pub(crate) addresses: Delta,
    /// What the ports change in the TCP checksum.
    pub(crate) ports: Delta,
}

impl Plan {
    /// The words of `packet` once it is translated for `conn`.
    #[inline(always)]
    pub(crate) fn new(packet: &Tcp, conn: &Conn) -> Self {
        let (src, dst) = (conn.src.word(), conn.dst.word());
        let tcp_ports = [conn.sport.to_be(), conn.dport.to_be()];
        let addresses = Delta::new().words32([packet.src, packet.dst], [src, dst]);
        let ports = Delta::new().words16([packet.sport, packet.dport], tcp_ports);
        // SAFETY: `parse` checked the whole header.
        let (old, check): (u16, u16) = unsafe {
            (word::load(packet.ip.add(offset_of!(Ipv4Hdr, ttl))), word::load(packet.ip.add(offset_of!(Ipv4Hdr, check))))
        };
        // The TTL was checked to be above 1.
        let ttl_proto = old.wrapping_sub(ONE_HOP);
        let check = addresses.less16(ONE_HOP).apply(check);
        Self { ip: IpTail { ttl_proto, check, src, dst }, tcp_ports, addresses, ports }
    }
}

/// Rewrites a packet whose TCP checksum is finished, in place.
#[inline(always)]
pub(crate) fn rewrite(packet: &Tcp, conn: &Conn) {
    let plan = Plan::new(packet, conn);
    // SAFETY: `parse` checked both headers.
    unsafe {
        let check_at = packet.tcp.add(offset_of!(TcpHdr, check));
        let check = plan.addresses.plus(plan.ports).apply(word::load(check_at));
        let tail = packet.ip.add(offset_of!(Ipv4Hdr, ttl));
        word::store(tail, plan.ip.ttl_proto);
        word::store(tail.add(2), plan.ip.check);
        word::store(tail.add(4), word::pair32(plan.ip.src, plan.ip.dst));
        let [sport, dport] = plan.tcp_ports;
        word::store(packet.tcp.add(offset_of!(TcpHdr, source)), word::pair16(sport, dport));
        word::store(check_at, check);
    }
}

/// Writes the Ethernet addresses of the next hop.
#[inline(always)]
pub(crate) fn readdress(eth: *mut u8, conn: &Conn) {
    let macs = (&raw const conn.macs).cast::<u32>();
    // SAFETY: `parse` checked the Ethernet header; `macs` is 12 bytes, 4-aligned.
    unsafe {
        word::store(eth, macs.read());
        word::store(eth.add(4), macs.add(1).read());
        word::store(eth.add(8), macs.add(2).read());
    }
}

/// Tells that the TCP checksum holds what a sender leaves there that counts on its device; see [`csum::maybe_partial`].
#[inline(always)]
pub(crate) fn maybe_partial(packet: &Tcp) -> bool {
    // SAFETY: `parse` checked the whole header.
    let check = unsafe { word::load(packet.tcp.add(offset_of!(TcpHdr, check))) };
    csum::maybe_partial(check, csum::pseudo_header(packet.src, packet.dst, 6, packet.tcp_len))
}

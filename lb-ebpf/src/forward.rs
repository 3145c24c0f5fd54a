//! A packet whose conn is known: record it, rewrite it, send it on.

use lb_common::{
    conn::{Conn, Direction, Origin},
    control::Control,
    counter::Counter,
    parse::Tcp,
    seq,
    tcp::flag,
};

use crate::{Verdict, clock, count, hook::Hook, hop, nat};

/// Records the packet in its entry, rewrites it and sends it on.
#[inline(always)]
pub(crate) fn packet<H: Hook>(hook: &H, packet: &Tcp, control: &Control, conn: &mut Conn) -> Result<Verdict, Verdict> {
    let hop = hop::ensure(hook, conn, control.hop_gen)?;
    if hop.is_resolved() {
        check_length(hook, packet, conn)?;
    }
    translate(hook, packet, conn)?;
    Ok(hop.verdict())
}

/// Records the packet in its entry, whose next hop is current, and rewrites it.
#[inline(always)]
pub(crate) fn translate<H: Hook>(hook: &H, packet: &Tcp, conn: &mut Conn) -> Result<(), Verdict> {
    touch(packet, conn);
    count::traffic(conn.backend, conn.dir, packet.ip_len);
    // Look up first, rewrite last: from here on the packet is fully translated or dropped.
    hook.rewrite(packet, conn).map_err(Verdict::Drop)?;
    hook.readdress(packet.eth, packet.tags, conn).map_err(Verdict::Drop)
}

/// Ends packets that must not, or cannot at this hook, be translated. Comes before everything that changes a conn.
#[inline(always)]
pub(crate) fn check<H: Hook>(packet: &Tcp, dir: Direction) -> Result<(), Verdict> {
    if packet.fragment {
        return Err(Verdict::Drop(Counter::Fragment));
    }
    if !H::COMPLETE && (packet.tags != 0 || nat::maybe_partial(packet)) {
        return Err(Verdict::Defer);
    }
    if packet.ttl() <= 1 {
        return Err(match dir {
            // It is for an address of this host: the kernel would not look at its TTL and answer with a RST.
            Direction::Forward => Verdict::Undeliverable(Counter::Ttl),
            // The kernel would forward it: it answers with an ICMP error.
            Direction::Reverse => Verdict::Pass,
        });
    }
    Ok(())
}

/// Ends a packet that is too long for the link to the entry's next hop, which is current. Whether it may be fragmented
/// does not matter: later fragments would carry no ports.
#[inline(always)]
pub(crate) fn check_length<H: Hook>(hook: &H, packet: &Tcp, conn: &Conn) -> Result<(), Verdict> {
    if hook.fits(packet, conn.mtu) { Ok(()) } else { Err(Verdict::Undeliverable(Counter::TooBig)) }
}

/// Writes what this packet tells about its direction: one entry, one cache line, one writer.
#[inline(always)]
fn touch(packet: &Tcp, conn: &mut Conn) {
    conn.last_seen = clock::now();
    conn.bytes += u64::from(packet.ip_len);
    learn(packet, conn);
}

/// Lets the first packet of an entry that the other director told of say how far its sender has come: it may have sent
/// more since than a window allows. Such an entry has no next hop yet.
#[inline(always)]
pub(crate) fn catch_up(packet: &Tcp, conn: &mut Conn) {
    if conn.hop_gen != 0 || conn.origin != Origin::Peer || packet.flags & flag::RST != 0 {
        return;
    }
    conn.seq = seq::UNKNOWN;
    if packet.flags & flag::ACK != 0 {
        conn.ack = packet.ack();
    }
}

/// Notes how far the sender has come. A RST tells nothing: it may be forged, and it needs these numbers to be believed.
/// Nor does a packet that claims a leap no window allows.
#[inline(always)]
pub(crate) fn learn(packet: &Tcp, conn: &mut Conn) {
    if packet.flags & flag::RST != 0 {
        return;
    }
    let end = packet.seq_end();
    if seq::shortly_after(end, conn.seq) {
        conn.seq = end;
    }
    let ack = packet.ack();
    if packet.flags & flag::ACK != 0 && seq::after(ack, conn.ack) {
        conn.ack = ack;
    }
}

//! Packets that can change the state of an established conn: SYN, FIN, RST. Rare, so they may look at both entries.
//! A SYN may also end a conn that is closed or has lost its backend: a new one takes over the flow key.

use lb_common::{
    conn::{Conn, Direction, FlowKey},
    counter::Counter,
    event::EventKind,
    parse::Tcp,
    seq,
    tcp::{self, State, flag},
};

use crate::{
    atomic, count,
    events::{self, Progress},
    forward, hop, load,
    maps::CONNS,
};

/// What such a packet means.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on like any other.
    Continue,
    /// A SYN took over the key of a closed or lost conn, which is gone: a new one begins.
    Replaced,
}

/// Notes the flags of the packet in its direction's entry.
#[inline(always)]
pub(crate) fn note(packet: &Tcp, key: &FlowKey, conn: &mut Conn) -> Outcome {
    let is_forward = matches!(conn.dir, Direction::Forward);
    let other = CONNS.get_ptr_mut(&conn.other_key());
    let peer = match other {
        // SAFETY: the other entry is only read; it is written by packets of its own direction.
        Some(other) => unsafe { Progress::of(&*other) },
        None => Progress { seen: 0, ack: conn.seq, seq: conn.ack },
    };
    let before = state(is_forward, conn.seen, peer.seen);
    let mut flags = packet.flags;
    if flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN {
        // Whoever lost a conn with its backend may come back from the same port.
        if is_forward && (before.may_be_reused() || hop::is_dead(conn.backend)) {
            if before.is_active() {
                // SAFETY: it is the forward entry.
                unsafe { load::uncount(conn) };
            }
            count::one(Counter::Reused);
            events::conn(EventKind::Replaced, key, conn, &peer);
            let other_key = conn.other_key();
            let _ = (CONNS.remove(key), CONNS.remove(&other_key));
            return Outcome::Replaced;
        }
        return Outcome::Continue;
    }
    // A RST that its receiver would not take ends nothing. It is forwarded: the receiver decides for itself.
    if flags & flag::RST != 0 && !seq::plausible_rst(packet.seq(), conn.seq, peer.ack) {
        count::one(Counter::BlindRst);
        flags = 0;
    }
    if flags & flag::FIN != 0 && !seq::plausible_fin(packet.seq_end(), conn.seq) {
        flags &= !flag::FIN;
    }
    forward::learn(packet, conn);
    conn.seen = tcp::note(conn.seen, peer.seen, flags, is_forward);
    let after = state(is_forward, conn.seen, peer.seen);
    if after != before {
        if before.is_active() {
            let entry = if is_forward { &raw mut *conn } else { other.unwrap_or(core::ptr::null_mut()) };
            let entry = atomic::opaque(entry);
            if !entry.is_null() {
                // SAFETY: that it is.
                unsafe { load::uncount(entry) };
            }
        }
        let kind = if matches!(after, State::TimeWait | State::Close) { EventKind::Closed } else { EventKind::Closing };
        events::conn(kind, key, conn, &peer);
    }
    Outcome::Continue
}

#[inline(always)]
fn state(is_forward: bool, own: u8, peer: u8) -> State {
    if is_forward { State::of(own, peer) } else { State::of(peer, own) }
}

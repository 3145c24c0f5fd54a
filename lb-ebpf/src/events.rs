//! The ring buffer to the agent: one record per change of a conn.
//!
//! A wake-up costs as much as a packet, so only a reader that has read everything gets one, and it pauses after having
//! read: at most one for each of its looks.

use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use lb_common::{
    abi,
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey},
    counter::Counter,
    event::{Event, EventKind},
    service::Service,
};

use crate::{
    clock, count,
    maps::{BACKENDS, EVENTS},
};

/// Flags of a submission; see `bpf_ringbuf_commit` in the kernel's `ringbuf.c`.
const WAKE_WHO_HAS_READ_ALL: u64 = 0;

/// How far the sender of one direction has come.
pub(crate) struct Progress {
    pub(crate) seen: u8,
    pub(crate) ack: u32,
    pub(crate) seq: u32,
}

impl Progress {
    /// That of an entry.
    #[inline(always)]
    pub(crate) fn of(entry: &Conn) -> Self {
        Self { seen: entry.seen, ack: entry.ack, seq: entry.seq }
    }
}

/// Tells the agent about a change of a conn. `key` and `own` are those of the packet's direction, `peer` is the other
/// entry's.
#[inline(never)]
pub(crate) fn conn(kind: EventKind, key: &FlowKey, own: &Conn, peer: &Progress) {
    let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) else {
        count::one(Counter::EventLost);
        return;
    };
    let event = record.as_mut_ptr();
    let (other_key, mine) = (own.other_key(), Progress::of(own));
    let (forward, reverse) = match own.dir {
        Direction::Forward => ((key, &mine), (&other_key, peer)),
        Direction::Reverse => ((&other_key, peer), (key, &mine)),
    };
    // SAFETY: the reserved record is valid for writes; every field is written, one by one.
    unsafe {
        (*event).jiffies = clock::jiffies();
        (&raw mut (*event).key).write(*forward.0);
        (*event).backend_addr = reverse.0.src;
        (*event).backend_port = reverse.0.sport;
        (*event).client_port = reverse.0.dport;
        (*event).forward_ack = forward.1.ack;
        (*event).reverse_ack = reverse.1.ack;
        (*event).forward_seq = forward.1.seq;
        (*event).reverse_seq = reverse.1.seq;
        (*event).forward_seen = forward.1.seen;
        (*event).reverse_seen = reverse.1.seen;
        (*event).created = own.created;
        (&raw mut (*event).reserved).write_volatile(0);
        (*event).backend = own.backend;
        (*event).service = BACKENDS.get(u32::from(own.backend)).map_or(0, |backend| backend.service);
        (*event).kind = kind;
        (*event).reason = 0;
    }
    record.submit(WAKE_WHO_HAS_READ_ALL);
}

/// Tells the agent about a packet that was refused. Anyone can send such packets, so they get at most half of the ring:
/// the changes of conns always find room.
#[inline(never)]
pub(crate) fn refused(kind: EventKind, key: &FlowKey, service: &Service, reason: Counter) {
    // SAFETY: the helper only reads the map.
    let used = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), 0) };
    if used > u64::from(abi::EVENTS_BYTES / 2) {
        return;
    }
    let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) else { return };
    let event = record.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        (*event).jiffies = clock::jiffies();
        (&raw mut (*event).key).write(*key);
        // Volatile: otherwise the compiler makes the run of zeros a call to memset, a loop over the bytes.
        (&raw mut (*event).backend_addr).write_volatile(Ipv4::from_word(0));
        (*event).backend_port = 0;
        (*event).client_port = 0;
        (&raw mut (*event).forward_ack).write_volatile(0);
        (&raw mut (*event).reverse_ack).write_volatile(0);
        (&raw mut (*event).forward_seq).write_volatile(0);
        (&raw mut (*event).reverse_seq).write_volatile(0);
        (&raw mut (*event).created).write_volatile(0);
        (&raw mut (*event).reserved).write_volatile(0);
        (*event).forward_seen = 0;
        (*event).reverse_seen = 0;
        (*event).backend = 0;
        (*event).service = service.id;
        (*event).kind = kind;
        (*event).reason = reason as u8;
    }
    record.submit(WAKE_WHO_HAS_READ_ALL);
}

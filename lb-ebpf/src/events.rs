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
};

use crate::{
    clock, count,
    maps::{BACKENDS, EVENTS},
};

/// Flags of a submission; see `bpf_ringbuf_commit` in the kernel's `ringbuf.c`.
const WAKE_WHO_HAS_READ_ALL: u64 = 0;

/// What an event tells of the entry that the packet did not come by.
pub(crate) struct Other {
    pub(crate) seen: u8,
    pub(crate) ack: u32,
    pub(crate) seq: u32,
}

/// Tells the agent about a change of a conn. `key` and `own` are those of the packet's direction.
#[inline(always)]
pub(crate) fn conn(kind: EventKind, key: &FlowKey, own: &Conn, peer: &Other) {
    let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) else {
        count::one(Counter::EventLost);
        return;
    };
    let event = record.as_mut_ptr();
    let forward = matches!(own.dir, Direction::Forward);
    // SAFETY: the reserved record is valid for writes; every field is written, one by one.
    unsafe {
        (*event).jiffies = clock::jiffies();
        if forward {
            write_key(&raw mut (*event).key, key.src, key.sport, key.dst, key.dport);
            (*event).backend_addr = own.dst;
            (*event).backend_port = own.dport;
            (*event).client_port = own.sport;
            (*event).forward_ack = own.ack;
            (*event).reverse_ack = peer.ack;
            (*event).forward_seq = own.seq;
            (*event).reverse_seq = peer.seq;
            (*event).forward_seen = own.seen;
            (*event).reverse_seen = peer.seen;
        } else {
            write_key(&raw mut (*event).key, own.dst, own.dport, own.src, own.sport);
            (*event).backend_addr = key.src;
            (*event).backend_port = key.sport;
            (*event).client_port = key.dport;
            (*event).forward_ack = peer.ack;
            (*event).reverse_ack = own.ack;
            (*event).forward_seq = peer.seq;
            (*event).reverse_seq = own.seq;
            (*event).forward_seen = peer.seen;
            (*event).reverse_seen = own.seen;
        }
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
#[inline(always)]
pub(crate) fn refused(kind: EventKind, key: &FlowKey, service: u16, reason: Counter) {
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
        write_key(&raw mut (*event).key, key.src, key.sport, key.dst, key.dport);
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
        (*event).service = service;
        (*event).kind = kind;
        (*event).reason = reason as u8;
    }
    record.submit(WAKE_WHO_HAS_READ_ALL);
}

/// # Safety
///
/// `to` is valid for writes.
#[inline(always)]
unsafe fn write_key(to: *mut FlowKey, src: Ipv4, sport: u16, dst: Ipv4, dport: u16) {
    // SAFETY: upheld by the caller.
    unsafe { to.write(FlowKey::tcp(src, sport, dst, dport)) };
}

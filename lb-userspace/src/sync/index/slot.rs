//! One conn in the index, in one cache line: what is known of it, and what the peer knows of that.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::tcp::State;

use crate::sync::{
    conn::{Conn, Half, Key, is_over},
    time::Tick,
};

/// What is known of a slot's conn, and what the peer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sync) struct Bits(u16);

impl Bits {
    /// The conn is in the packet path's table.
    pub(in crate::sync) const LIVE: Self = Self(1);
    /// It is no more, and the peer may not know yet.
    pub(in crate::sync) const DEAD: Self = Self(1 << 1);
    /// The slot is in the queue, whatever conn it holds.
    pub(in crate::sync) const QUEUED: Self = Self(1 << 2);
    /// The colour of the scan that has seen it last.
    pub(in crate::sync) const COLOUR: Self = Self(1 << 3);
    /// It died of silence.
    pub(in crate::sync) const AGED: Self = Self(1 << 4);
    /// The peer was told something of this key, or told us.
    pub(in crate::sync) const TOLD: Self = Self(1 << 5);
    /// The peer has this very conn: it said so, or acknowledged it.
    pub(in crate::sync) const HAS: Self = Self(1 << 6);
    /// The peer is who sees its packets.
    pub(in crate::sync) const THEIRS: Self = Self(1 << 7);
    /// It was sent, and is not acknowledged.
    pub(in crate::sync) const FLIGHT: Self = Self(1 << 8);
    /// It has changed since it was sent.
    pub(in crate::sync) const DIRTY: Self = Self(1 << 9);

    /// The slot waits to be reported as active, whatever conn it holds.
    pub(in crate::sync) const REPORT: Self = Self(1 << 10);
    /// The peer takes it for dead, and the packet path is asked.
    pub(in crate::sync) const DOUBT: Self = Self(1 << 11);
    /// Its packets went to a peer that has lost its memory, or to nobody knows whom before this process was there.
    pub(in crate::sync) const ORPHAN: Self = Self(1 << 12);
    /// Another director may have something of this key, even one that has lost its memory since.
    pub(in crate::sync) const SPREAD: Self = Self(1 << 13);
    /// The first conn of the key began here, under the eyes of this process.
    pub(in crate::sync) const HERE: Self = Self(1 << 14);

    /// What belongs to the slot's number, not to its conn.
    pub(super) const OF_NUMBER: Self = Self(Self::QUEUED.0 | Self::REPORT.0);
    /// What is forgotten with a peer that has lost its memory.
    pub(super) const OF_PEER: Self =
        Self(Self::TOLD.0 | Self::HAS.0 | Self::THEIRS.0 | Self::FLIGHT.0 | Self::DIRTY.0 | Self::DOUBT.0);

    pub(in crate::sync) const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    pub(in crate::sync) const fn set(&mut self, bits: Self) {
        self.0 |= bits.0;
    }

    pub(in crate::sync) const fn clear(&mut self, bits: Self) {
        self.0 &= !bits.0;
    }

    pub(in crate::sync) const fn put(&mut self, bits: Self, on: bool) {
        if on { self.set(bits) } else { self.clear(bits) }
    }

    pub(super) const fn only(self, bits: Self) -> Self {
        Self(self.0 & bits.0)
    }

    /// What is left when the peer has lost its memory.
    pub(super) const fn bereft(mut self) -> Self {
        if self.has(Self::THEIRS) {
            self.set(Self::ORPHAN);
        }
        self.clear(Self::OF_PEER);
        self
    }

    pub(in crate::sync) const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
}

/// One direction.
#[derive(Clone, Copy, Debug)]
pub(in crate::sync) struct Side {
    pub(in crate::sync) ack: u32,
    pub(in crate::sync) seq: u32,
    pub(in crate::sync) last: Tick,
}

/// One conn.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::sync) struct Slot {
    pub(in crate::sync) key: Key,
    pub(in crate::sync) backend: SocketAddrV4,
    pub(in crate::sync) client_port: u16,
    pub(in crate::sync) forward: Side,
    pub(in crate::sync) reverse: Side,
    pub(in crate::sync) created: Tick,
    /// Logical time of its beginning; 0: not known. In a free slot: the next free one.
    pub(in crate::sync) born: u64,
    pub(in crate::sync) forward_seen: u8,
    pub(in crate::sync) reverse_seen: u8,
    pub(in crate::sync) bits: Bits,
    /// The low bits of the number of the frame that told of it last.
    pub(in crate::sync) sent: u16,
    pub(super) spare: u16,
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    pub(super) const FREE: Self = {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let never = Tick::NEVER;
        let side = Side { ack: 0, seq: 0, last: never };
        Self {
            key: Key { client: nowhere, vip: nowhere },
            backend: nowhere,
            client_port: 0,
            forward: side,
            reverse: side,
            created: never,
            born: 0,
            forward_seen: 0,
            reverse_seen: 0,
            bits: Bits(0),
            sent: 0,
            spare: 0,
        }
    };

    pub(in crate::sync) const fn is_live(&self) -> bool {
        self.bits.has(Bits::LIVE)
    }

    pub(in crate::sync) const fn is_dead(&self) -> bool {
        self.bits.has(Bits::DEAD)
    }

    pub(in crate::sync) const fn state(&self) -> State {
        State::of(self.forward_seen, self.reverse_seen)
    }

    pub(in crate::sync) const fn is_over(&self) -> bool {
        is_over(self.state())
    }

    /// When anything was seen of it last.
    pub(in crate::sync) fn last(&self) -> Tick {
        self.forward.last.max(self.reverse.last)
    }

    /// Takes over a conn as it is at `now`; the bits stay.
    pub(in crate::sync) fn fill(&mut self, conn: &Conn, now: Tick) {
        let Conn { key, backend, client_port, forward, reverse, age } = *conn;
        let side = |half: Half| Side { ack: half.ack, seq: half.seq, last: now.before(half.idle) };
        (self.key, self.backend, self.client_port) = (key, backend, client_port);
        (self.forward, self.reverse) = (side(forward), side(reverse));
        (self.forward_seen, self.reverse_seen) = (forward.seen, reverse.seen);
        self.created = now.before(age);
    }

    /// The conn as it is at `now`.
    pub(in crate::sync) fn conn(&self, now: Tick) -> Conn {
        let half = |side: Side, seen| Half { seen, ack: side.ack, seq: side.seq, idle: now.since(side.last) };
        Conn {
            key: self.key,
            backend: self.backend,
            client_port: self.client_port,
            forward: half(self.forward, self.forward_seen),
            reverse: half(self.reverse, self.reverse_seen),
            age: now.since(self.created),
        }
    }
}

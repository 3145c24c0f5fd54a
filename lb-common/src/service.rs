//! Services and their schedulers: a scheduler is a ring of backend ids and a way to pick an index.
//!
//! The agent interleaves the backends of a service into its ring by weight. rr and wrr step a shared cursor through
//! it, sh and mh index it by a hash of the client, lc and wlc walk it for the least active backend.

use crate::{
    addr::Ipv4,
    conn::Proto,
    layout::{byte_enum, map_type},
};

byte_enum! {
    /// How a new conn picks its backend; names as in IPVS.
    pub enum Scheduler {
        /// Round robin.
        Rr = 0 => "rr",
        /// Weighted round robin.
        Wrr = 1 => "wrr",
        /// Least connections.
        Lc = 2 => "lc",
        /// Weighted least connections.
        Wlc = 3 => "wlc",
        /// Source hashing.
        Sh = 4 => "sh",
        /// Maglev hashing.
        Mh = 5 => "mh",
    }
}

byte_enum! {
    /// How a packet is refused.
    pub enum Refusal {
        /// It is dropped: who sends it again may find that it is welcome by then.
        Drop = 0 => "drop",
        /// It is answered with a RST: its sender knows at once.
        Rst = 1 => "rst",
    }
}

byte_enum! {
    /// What happens to the conns of a backend that is down.
    pub enum OnDown {
        /// Both ends are reset, so that pools reconnect at once.
        Rst = 0 => "rst",
        /// They stay; the backend may come back.
        Keep = 1 => "keep",
    }
}

/// The address clients connect to. Port in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ServiceKey {
    /// The VIP.
    pub vip: Ipv4,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub proto: Proto,
    /// Always 0.
    pub reserved: u8,
}

map_type!(ServiceKey, size = 8, enums = { proto: Proto });

impl ServiceKey {
    /// A TCP service.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(vip: Ipv4, port: u16) -> Self {
        Self { vip, port, proto: Proto::Tcp, reserved: 0 }
    }
}

/// A service. The agent writes it as a whole, so that a packet sees the old ring or the new one, never a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Index into `cursors`.
    pub id: u16,
    /// How a new conn picks its backend.
    pub scheduler: Scheduler,
    /// How a packet that belongs to no conn and opens none is refused.
    pub no_conn: Refusal,
    /// First slot of the ring in use.
    pub ring_start: u32,
    /// Number of slots; 0: no backend takes new conns.
    pub ring_len: u32,
    /// How a SYN is refused when no backend takes new conns.
    pub no_backend: Refusal,
    /// Always 0.
    pub reserved: [u8; 3],
}

map_type!(Service, size = 16, enums = { scheduler: Scheduler, no_conn: Refusal, no_backend: Refusal });

/// One slot of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RingSlot {
    /// The backend's id.
    pub backend: u32,
}

map_type!(RingSlot, size = 4, enums = {});

/// The round-robin cursor of a service: how many backends it has handed out. It outlives every change of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cursor {
    /// Number of picks so far.
    pub next: u64,
}

map_type!(Cursor, size = 8, enums = {});

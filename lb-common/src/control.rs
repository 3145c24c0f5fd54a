//! The few words by which the agent steers the packet path: one element, read on every packet.

use crate::layout::map_type;

/// The only element of `control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Raised by the agent on every change of routes, neighbours or links: a cached next hop of another generation
    /// is looked up again. Never 0.
    pub hop_gen: u32,
    /// Half-open conns without a packet for this many jiffies are dead.
    pub syn_recv_jiffies: u32,
    /// Written by `lb_clock`: the kernel's jiffies, and…
    pub clock_jiffies: u64,
    /// …`CLOCK_MONOTONIC` in nanoseconds at the same moment.
    pub clock_ns: u64,
}

map_type!(Control, size = 24, enums = {});

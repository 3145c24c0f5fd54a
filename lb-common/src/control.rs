//! The few words by which the agent steers the packet path: one element, read on every packet.

use crate::{
    addr::Ipv4,
    layout::{byte_enum, map_type},
};

/// Words of the filter.
pub const FILTER_WORDS: usize = 16;
/// VIPs the ARP gate can guard.
pub const MAX_VIPS: usize = 8;

byte_enum! {
    /// What the ARP gate does.
    pub enum ArpGate {
        /// It is not used: the kernel answers as it likes.
        Off = 0 => "off",
        /// This director is not Active: requests for a VIP are dropped.
        Closed = 1 => "closed",
        /// This director is Active: requests pass while the agent's heartbeat is fresh.
        Open = 2 => "open",
    }
}

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
    /// The VIPs that the ARP gate guards; 0.0.0.0 in the places not used.
    pub vips: [Ipv4; MAX_VIPS],
    /// What the gate does.
    pub arp_gate: ArpGate,
    /// Always 0.
    pub reserved: [u8; 3],
    /// Jiffies after which a heartbeat is stale.
    pub heartbeat_jiffies: u32,
    /// Low word of the jiffies of the agent's last heartbeat.
    pub heartbeat: u32,
    /// Always 0.
    pub reserved1: u32,
    /// A bit for every address and port that the packet path knows: services and backends. A packet whose source and
    /// destination both miss it is foreign, and costs no map lookup.
    pub filter: [u64; FILTER_WORDS],
}

map_type!(Control, size = 200, enums = { arp_gate: ArpGate });

impl Default for Control {
    fn default() -> Self {
        Self {
            hop_gen: 1,
            syn_recv_jiffies: 15_000,
            clock_jiffies: 0,
            clock_ns: 0,
            vips: [Ipv4::new([0; 4]); MAX_VIPS],
            arp_gate: ArpGate::Off,
            reserved: [0; 3],
            heartbeat_jiffies: 0,
            heartbeat: 0,
            reserved1: 0,
            filter: [0; FILTER_WORDS],
        }
    }
}

impl Control {
    /// Makes every cached next hop be looked up again.
    pub fn new_hops(&mut self) {
        self.hop_gen = self.hop_gen.wrapping_add(1).max(1);
    }

    /// Lets packets from and to `addr:port` through the filter. For every service and every backend, the removed ones
    /// that still have conns among them.
    pub fn admit(&mut self, addr: Ipv4, port: u16) {
        let bit = filter_bit(addr.word(), port);
        self.filter[bit as usize / 64] |= 1 << (bit % 64);
    }
}

/// The filter's bit for an address (as loaded from the packet) and a port (host order), 0..1024.
#[inline(always)]
#[must_use]
pub const fn filter_bit(addr: u32, port: u16) -> u32 {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the factor.
    (addr ^ ((port as u32) << 16)).wrapping_mul(0x9e37_79b1) >> 22
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_admits_what_it_was_told_and_little_else() {
        let mut control = Control::default();
        let vip = Ipv4::new([10, 80, 1, 243]);
        control.admit(vip, 3306);
        let bit = filter_bit(vip.word(), 3306);
        assert!(bit < 64 * FILTER_WORDS as u32);
        assert_eq!(control.filter.iter().map(|w| w.count_ones()).sum::<u32>(), 1);
        let others = (0..1000).filter(|port| filter_bit(vip.word(), *port) == bit).count();
        assert!(others < 10, "{others} of 1000 other ports share the bit");
    }
}

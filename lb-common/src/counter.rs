//! The counters of the packet path: every drop has a name, and so has every turn off the straight way.

use crate::layout::{byte_enum, map_type};

/// The enum and the struct of the same list: `Variant = number => field`.
macro_rules! counters {
    ($($(#[$meta:meta])* $variant:ident = $value:literal => $field:ident),+ $(,)?) => {
        byte_enum! {
            /// One counter; its number is the place of its word in [`Counters`].
            pub enum Counter { $($(#[$meta])* $variant = $value => stringify!($field)),+ }
        }

        /// The counters of one CPU. Each has the name of its field, so that `bpftool map dump` prints it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Counters { $($(#[$meta])* pub $field: u64),+ }

        map_type!(Counters, size = 8 * Counter::ALL.len(), enums = {});
    };
}

counters! {
    /// A SYN for a service found no backend that takes new conns.
    NoBackend = 0 => no_backend,
    /// A packet of a service belongs to no conn and opens none.
    NoConn = 1 => no_conn,
    /// The table of established conns is full.
    TableFull = 2 => table_full,
    /// The table of half-open conns took no entry.
    HalfOpenFull = 3 => half_open_full,
    /// The ACK that should complete a handshake does not acknowledge the backend's SYN.
    BadHandshake = 4 => bad_handshake,
    /// No free source port towards the backend: another conn of the client uses the same 4-tuple.
    PortCollision = 5 => port_collision,
    /// A fragment of a packet of a service.
    Fragment = 6 => fragment,
    /// The time to live ran out: the sender was told, where that is not the kernel's work.
    Ttl = 7 => ttl_exceeded,
    /// No route to the next hop.
    NoRoute = 8 => no_route,
    /// The next hop's link-layer address is not known, and the hook cannot ask for it.
    NoNeighbour = 9 => no_neighbour,
    /// A helper of the kernel refused to rewrite the packet.
    RewriteFailed = 10 => rewrite_failed,

    /// A conn of a backend that is down: its sender was answered with a RST.
    ResetDown = 11 => reset_backend_down,
    /// A packet of a service without a conn: its sender was answered with a RST.
    ResetNoConn = 12 => reset_no_conn,
    /// An ARP request for a VIP that this director must not answer.
    ArpGate = 13 => arp_gate,
    /// Longer than the link to the next hop takes: its sender was told how long a packet may be.
    TooBig = 14 => too_big,
    /// A new conn that no backend has room for: the client was answered with a RST.
    ResetFull = 15 => reset_full,

    /// A TCP header whose lengths contradict each other or the IP header: left to the kernel, which discards it.
    Malformed = 16 => malformed,
    /// A conn was opened: its SYN was forwarded.
    Opened = 17 => conns_opened,
    /// A conn's handshake completed.
    Established = 18 => conns_established,
    /// A SYN was sent again.
    SynAgain = 19 => syn_again,
    /// A SYN took over the flow key of a closed conn, or of one whose backend is dead.
    Reused = 20 => keys_reused,
    /// A conn got another source port towards the backend.
    PortRemapped = 21 => ports_remapped,
    /// A RST outside the sequence: forwarded, but the conn stays.
    BlindRst = 22 => rst_implausible,
    /// A next hop was looked up.
    HopLookup = 23 => hop_lookups,
    /// A packet was left to the TC program behind XDP, untouched.
    Deferred = 24 => deferred_to_tc,
    /// The event ring was full: the agent must scan the tables.
    EventLost = 25 => events_lost,
    /// An ICMP error about a packet of a conn was translated.
    IcmpError = 26 => icmp_errors,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The packet was dropped.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        (self as u8) < Self::Malformed as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn numbers_are_the_positions() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index, "{counter}");
        }
        assert!(Counter::RewriteFailed.is_drop() && !Counter::Malformed.is_drop());
    }
}

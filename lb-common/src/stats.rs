//! Traffic counters of a backend, per CPU. Those of a service are the sum over its backends.

use crate::layout::map_type;

/// Traffic of one backend on one CPU. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendStats {
    /// Conns opened.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

map_type!(BackendStats, size = 40, enums = {});

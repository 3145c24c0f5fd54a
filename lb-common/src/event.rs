//! One ring-buffer record per change of a conn, and for the packets that need the agent's attention.

use crate::{
    addr::Ipv4,
    conn::FlowKey,
    layout::{byte_enum, map_type},
};

byte_enum! {
    /// What happened.
    pub enum EventKind {
        /// The handshake of a conn completed.
        Established = 0 => "established",
        /// The first side of a conn closed it.
        Closing = 1 => "closing",
        /// Both sides closed, or one reset the conn.
        Closed = 2 => "closed",
        /// A SYN took over the key of a closed conn.
        Replaced = 3 => "replaced",
        /// A packet of a service belongs to no conn.
        Miss = 4 => "miss",
        /// A new conn was refused; `reason` says why.
        Refused = 5 => "refused",
    }
}

/// One record of the event ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The kernel's jiffies.
    pub jiffies: u64,
    /// The key of the conn's forward entry: client → VIP.
    pub key: FlowKey,
    /// The backend's address; 0.0.0.0 when none was chosen.
    pub backend_addr: Ipv4,
    /// The backend's port, host order.
    pub backend_port: u16,
    /// The client's port as the backend sees it, host order.
    pub client_port: u16,
    /// The last acknowledgement number of the client, host order.
    pub forward_ack: u32,
    /// The last acknowledgement number of the backend, host order.
    pub reverse_ack: u32,
    /// The sequence number after the last byte of the client, host order.
    pub forward_seq: u32,
    /// The sequence number after the last byte of the backend, host order.
    pub reverse_seq: u32,
    /// Low word of the jiffies when the conn was created.
    pub created: u32,
    /// The backend's id.
    pub backend: u16,
    /// The service's id.
    pub service: u16,
    /// What happened.
    pub kind: EventKind,
    /// A [`crate::counter::Counter`] when refused or missed, else 0.
    pub reason: u8,
    /// Flags seen from the client.
    pub forward_seen: u8,
    /// Flags seen from the backend.
    pub reverse_seen: u8,
    /// Always 0.
    pub reserved: u32,
}

map_type!(Event, size = 64, enums = { key.proto: crate::conn::Proto, kind: EventKind });

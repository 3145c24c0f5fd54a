//! Conns of the other director: the agent says what connection sync brought, the packet path's own program writes it.
//!
//! User space could not: flags are added while packets add others, the load of a backend is counted by the packet path,
//! and what the packet path has seen meanwhile must not be overwritten by what the agent last knew.

use crate::{
    addr::Ipv4,
    conn::FlowKey,
    layout::{byte_enum, map_type},
};

byte_enum! {
    /// What is to be done.
    pub enum Op {
        /// A conn begins here. If another one has its key, that one goes, if it may.
        Create = 0 => "create",
        /// Flags are added; numbers and times go forward. Only if the conn is there, and of about that age.
        Update = 1 => "update",
        /// The conn goes, if it may.
        Remove = 2 => "remove",
        /// The conn goes unless something was seen of it since; that it is over does not matter.
        Retire = 3 => "retire",
    }
}

byte_enum! {
    /// What became of it.
    pub enum Outcome {
        /// Nothing was done: there is no such conn.
        Nothing = 0 => "nothing",
        /// It was done.
        Done = 1 => "done",
        /// The conn that is there stays: the agent knew of none, or something was seen of it since.
        Kept = 2 => "kept",
        /// The table has no room for it, or the backend's side of it is taken.
        Full = 3 => "full",
    }
}

/// One change. A run of `lb_replica` takes a frame of up to [`BATCH`] of them, one behind the other. Ports and numbers in
/// host order; times are low words of jiffies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// The key of the forward entry.
    pub key: FlowKey,
    /// The backend's address.
    pub backend_addr: Ipv4,
    /// The backend's port.
    pub backend_port: u16,
    /// The client's port as the backend sees it.
    pub client_port: u16,
    /// The backend's id.
    pub backend: u16,
    /// What is to be done.
    pub op: Op,
    /// Written by the program.
    pub outcome: Outcome,
    /// Flags seen from the client.
    pub forward_seen: u8,
    /// Flags seen from the backend.
    pub reverse_seen: u8,
    /// 1: the agent knows of a conn of this key, of which something was seen last at `known`. 0: it knows of none.
    pub knows: u16,
    /// The client's last acknowledgement number.
    pub forward_ack: u32,
    /// The sequence number after the last byte of the client.
    pub forward_seq: u32,
    /// The backend's last acknowledgement number.
    pub reverse_ack: u32,
    /// The sequence number after the last byte of the backend.
    pub reverse_seq: u32,
    /// When the client was last heard.
    pub forward_last: u32,
    /// When the backend was last heard.
    pub reverse_last: u32,
    /// When the conn was established.
    pub created: u32,
    /// A conn that is not over and of which something was seen after this moment stays. For an update: by how much its
    /// creation may differ from `created`.
    pub known: u32,
}

map_type!(Request, size = 64, enums = { key.proto: crate::conn::Proto, op: Op, outcome: Outcome });

/// Requests in one run: what fits into the frame that the kernel runs a program over.
pub const BATCH: usize = 48;

//! The removal of expired conns: the agent names them, the packet path's own program removes them.
//!
//! The agent decides from a scan that is already old. The program looks again, in the kernel, and removes a conn only if
//! no packet came since; it also keeps the load of the backend right, which user space could not do atomically. What it
//! removes it gives back: the sequence numbers by which both ends can be told.

use crate::{conn::FlowKey, layout::map_type};

/// Names one conn to remove. A run of `lb_retire` takes a frame of up to [`BATCH`] of them, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// The key of its forward entry.
    pub key: FlowKey,
    /// `last_seen` of the forward entry when the agent saw it.
    pub forward_seen: u32,
    /// `last_seen` of the reverse entry when the agent saw it.
    pub reverse_seen: u32,
}

map_type!(Request, size = 24, enums = { key.proto: crate::conn::Proto });

/// What became of the conn of a [`Request`]. It is written over the request, so that the frame comes back with one for
/// each. The numbers are those of a removed conn with both entries, else 0, [`crate::seq::UNKNOWN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// 1: it was removed. 0: a packet of it came meanwhile, or it was gone.
    pub removed: u32,
    /// The client's last acknowledgement number, host order.
    pub forward_ack: u32,
    /// The sequence number after the last byte the client sent, host order.
    pub forward_seq: u32,
    /// The backend's last acknowledgement number, host order.
    pub reverse_ack: u32,
    /// The sequence number after the last byte the backend sent, host order.
    pub reverse_seq: u32,
    /// Always 0.
    pub reserved: u32,
}

map_type!(Outcome, size = 24, enums = {});

const _: () = assert!(size_of::<Outcome>() == size_of::<Request>());

/// Requests in one run.
pub const BATCH: usize = 128;

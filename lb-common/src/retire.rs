//! The removal of expired conns: the agent names them, the packet path's own program removes them.
//!
//! The agent decides from a scan that is already old. The program looks again, in the kernel, and removes a conn only if
//! no packet came since; it also keeps the load of the backend right, which user space could not do atomically.

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

/// Requests in one run.
pub const BATCH: usize = 128;

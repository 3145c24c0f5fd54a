//! Backends: the MySQL servers of a service. A record outlives the last conn that refers to its id.

use crate::{
    addr::Ipv4,
    layout::{byte_enum, map_type},
    service::OnDown,
};

byte_enum! {
    /// The life of a backend.
    pub enum BackendState {
        /// The id is free.
        Unused = 0 => "unused",
        /// Takes new conns.
        Up = 1 => "up",
        /// Takes no new conns, keeps the ones it has.
        Draining = 2 => "draining",
        /// Found dead; what happens to its conns is the service's `on_down`.
        Down = 3 => "down",
        /// No longer in the config; some conns still refer to it.
        Removed = 4 => "removed",
    }
}

/// A backend of one service. Port in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Its address.
    pub addr: Ipv4,
    /// Its port.
    pub port: u16,
    /// The id of the service it belongs to.
    pub service: u16,
    /// Its weight; 0 takes no new conns.
    pub weight: u16,
    /// Its state.
    pub state: BackendState,
    /// What happens to its conns while it is down.
    pub on_down: OnDown,
    /// Most established conns; 0: no limit.
    pub max_conn: u32,
}

map_type!(Backend, size = 16, enums = { state: BackendState, on_down: OnDown });

/// How busy a backend is. Stepped atomically when a conn is established and when it leaves that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Load {
    /// Established conns.
    pub active: u64,
}

map_type!(Load, size = 8, enums = {});

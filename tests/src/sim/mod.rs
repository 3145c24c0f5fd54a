//! A simulator for the election: two hosts, three segments, a virtual clock, and everything that can go wrong.
//!
//! Runs the real codec, the real machines and the real election; sockets, links and time are made up. A world is a
//! function of its seed. What must never happen is checked after every step; see [`World::violation`].
//!
//! ```text
//!   neighbours ── ext ──┬── int ── neighbours       ARP caches, filled by gratuitous ARP only
//!            host 0 ────┤
//!            host 1 ────┴── sync (heartbeats)
//! ```

mod chaos;
mod host;
mod net;
mod queue;
mod setup;
pub mod sync;
mod world;

use crate::chance::Chance;
pub use chaos::chaos;
pub use host::{Host, Kind};
pub use net::{EXT, INT, NEIGHBOURS, Net, SYNC};
pub use setup::Setup;
pub use world::{Fault, Sleep, World};

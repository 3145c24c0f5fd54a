//! What the packet path and the agent must agree on, and the pure code that both run.
//!
//! Owns every map key and value, the event record, the counters with their names, the names and sizes of the maps,
//! and the pure parts of the packet path: header parsing, RFC 1624 checksum deltas, the TCP states. No I/O, no `std`.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod addr;
pub mod backend;
pub mod conn;
pub mod control;
pub mod counter;
pub mod csum;
pub mod event;
pub mod icmp;
mod layout;
pub mod link;
pub mod parse;
pub mod replica;
pub mod retire;
pub mod seq;
pub mod service;
pub mod stats;
pub mod tcp;
pub mod word;

pub use layout::{Invalid, MapType};

//! The wire: a clear header, then sealed items of type, length and body; what a version does not know it skips.
//!
//! Pure encoding and decoding, no decision. A frame is one datagram and never longer than the path's MTU. The format is
//! this project's own; what it learns from others is in the design notes of `sync`.

mod bytes;
mod fuzz;
mod greeting;
mod header;
mod item;
mod record;
#[cfg(test)]
mod tests;

pub(super) use bytes::Writer;
pub use fuzz::fuzz;
pub(super) use greeting::{GREETING, Greeting, STATES};
pub(super) use header::{Foreign, HEADER, Header, Kind};
pub(super) use item::{Ack, Beat, Item, Items, Mark, Missing, write};
pub(super) use record::{ConnRecord, GoneRecord, Record, Why};

/// Directors of different major versions do not speak to each other.
pub(super) const MAJOR: u8 = 1;
/// Directors of different minor versions do.
pub(super) const MINOR: u8 = 1;

/// A frame of the peer that this version cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

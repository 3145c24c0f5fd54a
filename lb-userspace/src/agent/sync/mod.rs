//! Connection sync in the agent. [`table`] is the packet path as the core sees it.

mod convert;
mod table;

pub use table::ConnTable;

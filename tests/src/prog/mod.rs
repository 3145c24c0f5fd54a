//! Runs the real eBPF programs on single packets, in a network of their own, and looks into their maps.
//!
//! `Bench` loads and runs, `Tables` reads and writes the maps, `World` is the network, `Site` a configuration, `Flow`
//! one conn, and a `Case` one sentence of the tables in `tests/prog_*.rs`.

mod bench;
mod case;
mod check;
mod flow;
mod site;
mod tables;
pub mod world;

pub use crate::hook::Hook;
pub use bench::{Bench, Outcome, Sizes, Verdict};
pub use case::{Case, case};
pub use check::{put, run};
pub use flow::{BACKEND_ISN, CLIENT_ISN, Flow, Side};
pub use site::{SYN_RECV_JIFFIES, Site};
pub use tables::{Counters, Tables};
pub use world::{Port, World};

//! Runs the real eBPF programs on single packets, in a network of their own, and looks into their maps.
//!
//! `Bench` loads and runs, `Tables` reads and writes the maps, `Network` is what surrounds it, `Site` a configuration,
//! `Flow` one conn, and a `Case` one sentence of the tables in `tests/prog_*.rs`.

mod bench;
mod case;
mod check;
mod flow;
pub mod network;
mod site;
mod tables;

pub use crate::hook::Hook;
pub use bench::{Bench, Outcome, Sizes, Verdict};
pub use case::{Case, case};
pub use check::{put, run};
pub use flow::{BACKEND_ISN, CLIENT_ISN, Flow, Side};
pub use network::{Network, Port};
pub use site::{SYN_RECV_JIFFIES, Site};
pub use tables::{Counters, Tables};

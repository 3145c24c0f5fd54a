//! The agent of a director and the operator's tool, as a library: the binaries `lb-agent` and `lbctl` are thin.
//!
//! The parts do not know each other: [`config`] reads the file, [`datapath`] owns the eBPF object and its maps,
//! [`vrrp`] speaks to the other director, [`ha`] decides which of them is Active, [`sync`] replicates conns to the other
//! director, [`reset`] tells the ends of a conn that it is over, [`control`] answers the operator, [`ctl`] asks on the
//! operator's behalf. [`agent`] wires them.

pub mod agent;
pub mod config;
pub mod control;
pub mod ctl;
pub mod datapath;
pub mod failover;
pub mod ha;
pub mod health;
mod netlink;
mod printable;
pub mod reset;
mod socket;
pub mod sync;
pub mod vrrp;

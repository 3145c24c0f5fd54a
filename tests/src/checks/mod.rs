//! Statements about an agent at work in a lab, each checked with real MySQL traffic against the servers' own account.
//! The demo shows them one after the other, the tests prove them in every mode. An error says what was seen instead.

mod firewall;
mod pair;
mod sessions;
mod setting;
mod spread;
mod transfers;

pub use firewall::behind_firewall;
pub use pair::{Daemon, Pair, at_length};
pub use sessions::{Sessions, by_servers};
pub use setting::Setting;
pub use spread::{Share, Spread, exact_shares, rounds, spread};
pub use transfers::both_ways;

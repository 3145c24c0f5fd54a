//! The sockets and clocks of the checks: one task per backend, so that no backend waits for another.
//!
//! `probe` runs one check, on the connection it keeps; `live` moves bytes between a socket and a session; `watch`
//! drives the checkers. Every wait has a limit.

mod live;
mod probe;
mod tcp;
mod tls;
mod watch;

pub use probe::Probe;
pub use watch::{Report, Target, Watch, WatchView};

//! Backends that are really alive: MySQL checks, and the life of the backends of a service.
//!
//! Two pure cores with the same four verbs: [`checker`] turns the outcomes of one backend's checks into its health,
//! [`pool`] turns the health of a service's backends, and what the operator wants, into shares of new conns, resets
//! and events. [`mysql`] is the protocol without sockets; `io` has the sockets and clocks. Nothing here knows maps.

pub mod cadence;
pub mod checker;
pub mod condition;
pub mod exchange;
pub mod grants;
pub mod history;
pub mod io;
pub mod mysql;
pub mod outcome;
pub mod plan;
pub mod pool;
pub mod secret;

pub use cadence::Cadence;
pub use checker::{Checker, Health, Trouble};
pub use condition::Condition;
pub use outcome::{Fault, Outcome, Phase};
pub use plan::{Facts, Level, Plan, Tls};
pub use secret::Secret;

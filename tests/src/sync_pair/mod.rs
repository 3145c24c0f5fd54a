//! Two directors without clients and servers: the real programs and the real sync of both, each in a network namespace,
//! with a veth as sync path. Conns are made by the packets of their handshakes (`BPF_PROG_TEST_RUN`).
//!
//! [`host`] is one of them. Used by a test of the whole way of a conn, and to measure what that costs.

mod host;
mod logins;
mod measure;
mod report;

pub use host::{Ends, Host, Setup, Written, pair};
pub use logins::LoginCpu;
pub use measure::{Options, measure};
pub use report::Report;

//! MySQL's client protocol as far as a check needs it: bytes in, bytes out, no sockets.
//!
//! Scrambles, RSA and the packets that we send are `mysql_common`'s; all that is received is read here, because that
//! crate trusts its server (it panics on some greetings and keys) and this one does not. Protocol: dev.mysql.com, "Client/Server Protocol"; MariaDB, "Clientserver Protocol".

mod auth;
mod frame;
mod greeting;
mod reader;
pub mod rows;
mod rsa;
mod session;
#[cfg(test)]
mod tests;

pub use session::{Command, Login, Reply, Session, Wants};

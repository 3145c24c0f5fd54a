//! MySQL's client protocol as far as a check needs it: bytes in, bytes out, no sockets.
//!
//! Packets and scrambles are `mysql_common`'s; framing, limits and every decision are here, because that crate trusts
//! its server and this one does not. Protocol: dev.mysql.com, "Client/Server Protocol"; MariaDB, "Clientserver Protocol".

mod auth;
mod frame;
mod reader;
pub mod rows;
mod rsa;
mod session;
#[cfg(test)]
mod tests;

pub use session::{Command, Login, Reply, Session, Wants};

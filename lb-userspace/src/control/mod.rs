//! The control socket: how `lbctl` and the agent talk.
//!
//! Owns the protocol ([`protocol`]), the agent's side of the socket ([`server`]) and the client ([`client`]). Knows
//! nothing about maps or config: the agent answers through [`server::Handler`].
//!
//! A unix stream carries JSON lines. Who may talk is decided by the permissions of the socket file.

pub mod client;
mod drops;
pub mod protocol;
pub mod server;

/// Where the agent listens unless the config names another path.
pub const DEFAULT_SOCKET: &str = "/run/lb/agent.sock";

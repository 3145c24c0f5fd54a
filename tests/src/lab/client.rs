//! A client of the lab: a host from which real MySQL sessions are opened. What it can do is in `workload` (many
//! short sessions), `transfer` (big results and loads) and `sysbench`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use super::addr;
use super::host::Host;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const IO_LIMIT: Duration = Duration::from_secs(10);

/// A client host.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
    address: Ipv4Addr,
}

/// Who is at the other end of a session, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@bind_address`: the server's own address.
    pub backend: Ipv4Addr,
    /// The address that MariaDB's processlist shows for this session.
    pub client_seen: Ipv4Addr,
}

impl Client {
    pub(crate) fn new(host: Host, address: Ipv4Addr) -> Self {
        Self { host, address }
    }

    /// The host that it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Opens a session from this client. It can be used from any thread; reconnecting is left to the caller.
    ///
    /// # Errors
    /// When there is no answer within 5 s, or the login fails.
    pub fn connect(&self, server: SocketAddrV4) -> Result<Conn> {
        self.host.enter(|| login(server))
    }

    /// As [`Client::connect`], for a session whose queries may take as long as `patience` without an answer.
    ///
    /// # Errors
    /// As there.
    pub fn connect_patiently(&self, server: SocketAddrV4, patience: Duration) -> Result<Conn> {
        self.host.enter(|| login_with(server, patience))
    }
}

/// Opens a session from the namespace of the calling thread.
pub(crate) fn login(server: SocketAddrV4) -> Result<Conn> {
    login_with(server, IO_LIMIT)
}

fn login_with(server: SocketAddrV4, patience: Duration) -> Result<Conn> {
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(server.ip().to_string()))
        .tcp_port(server.port())
        .prefer_socket(false)
        .user(Some(addr::USER))
        .pass(Some(addr::PASSWORD))
        .db_name(Some(addr::DATABASE))
        .tcp_connect_timeout(Some(CONNECT_LIMIT))
        .read_timeout(Some(patience))
        .write_timeout(Some(patience));
    Conn::new(options).with_context(|| format!("log in to {server}"))
}

/// Asks a session who is at its other end.
///
/// # Errors
/// When the query fails or answers nonsense.
pub fn peer(session: &mut Conn) -> Result<Peer> {
    let row: Option<(u32, String, String)> = session
        .query_first(
            "SELECT @@server_id, @@bind_address, host FROM information_schema.processlist WHERE id = CONNECTION_ID()",
        )
        .context("ask the server who it is")?;
    let (server_id, backend, host) = row.context("the server does not list this session")?;
    let seen = host.split(':').next().unwrap_or_default();
    Ok(Peer {
        server_id,
        backend: backend.parse().with_context(|| format!("bind_address is `{backend}`"))?,
        client_seen: seen.parse().with_context(|| format!("the processlist shows `{host}`"))?,
    })
}

//! Sessions that stay open, and what the agent says about them: its listings are held against the servers' own
//! processlists, port by port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_common::tcp::State;
use lb_userspace::control::protocol::{ConnView, ServiceView};
use mysql::Conn;

use crate::lab::{Lab, Peer, addr, now, peer};

const MOMENT: Duration = Duration::from_secs(2);

/// Open sessions of the first client. Dropping it closes them.
#[derive(Debug)]
pub struct Sessions {
    open: Vec<(Conn, Peer)>,
}

impl Sessions {
    /// Opens `count` sessions through the service.
    ///
    /// # Errors
    /// When one cannot log in.
    pub fn open(lab: &Lab, count: usize) -> Result<Self> {
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            let mut session = lab.client().connect(addr::SERVICE)?;
            let peer = peer(&mut session)?;
            open.push((session, peer));
        }
        Ok(Self { open })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many of them each server answers.
    pub fn by_backend(&self) -> BTreeMap<Ipv4Addr, u64> {
        let mut counts = BTreeMap::new();
        for (_, peer) in &self.open {
            *counts.entry(peer.backend).or_default() += 1;
        }
        counts
    }

    /// Asks a question in every session; each must be answered by the server that it was opened with.
    ///
    /// # Errors
    /// When a session was lost or moved.
    pub fn answer(&mut self) -> Result<()> {
        for (number, (session, opened)) in self.open.iter_mut().enumerate() {
            let now = peer(session).with_context(|| format!("session {number} to {}", opened.backend))?;
            if now != *opened {
                bail!("session {number} was with {opened:?}, now with {now:?}");
            }
        }
        Ok(())
    }

    /// Checks that `lbctl conns` lists exactly the sessions that the servers list, and that `lbctl services` counts as
    /// many. Nothing else may be connected; sessions that were closed just now get a moment to go. Returns the conns.
    ///
    /// # Errors
    /// What differs.
    pub fn agree(&self, lab: &Lab) -> Result<Vec<ConnView>> {
        let started = now();
        loop {
            match self.compare(lab) {
                Err(_) if started.elapsed() < MOMENT => thread::sleep(MOMENT / 20),
                compared => return compared,
            }
        }
    }

    fn compare(&self, lab: &Lab) -> Result<Vec<ConnView>> {
        let truth = by_servers(lab)?;
        if truth.len() != self.len() {
            bail!("{} sessions are open, the servers list {}: {truth:?}", self.len(), truth.len());
        }
        let conns: Vec<ConnView> = lab.d1().ctl(&["conns", "--state", State::Established.name()])?;
        let listed: BTreeSet<_> = conns.iter().map(|conn| (at_backend(conn), conn.destination)).collect();
        if listed != truth || conns.len() != truth.len() {
            bail!("lbctl conns lists {listed:?}, the servers {truth:?}");
        }
        let services: Vec<ServiceView> = lab.d1().ctl(&["services"])?;
        let counted: BTreeMap<_, _> = services
            .iter()
            .flat_map(|service| &service.backends)
            .filter(|backend| backend.active > 0)
            .map(|backend| (*backend.address.ip(), backend.active))
            .collect();
        if counted != self.by_backend() {
            bail!("lbctl services counts {counted:?}, open are {:?}", self.by_backend());
        }
        Ok(conns)
    }
}

/// The client of a conn as its backend sees it.
fn at_backend(conn: &ConnView) -> SocketAddrV4 {
    SocketAddrV4::new(*conn.client.ip(), conn.client_port_at_backend.unwrap_or(conn.client.port()))
}

/// All sessions of clients by the servers' account: client and server.
///
/// # Errors
/// When a server does not answer over its unix socket.
pub fn by_servers(lab: &Lab) -> Result<BTreeSet<(SocketAddrV4, SocketAddrV4)>> {
    let mut sessions = BTreeSet::new();
    for server in lab.servers() {
        let backend = SocketAddrV4::new(server.address(), addr::MYSQL_PORT);
        let query = format!("SELECT host FROM information_schema.processlist WHERE user = '{}'", addr::USER);
        for row in server.sql(&query)? {
            let host = row.first().context("a row without a column")?;
            sessions.insert((host.parse().with_context(|| format!("the processlist shows {host}"))?, backend));
        }
    }
    Ok(sessions)
}

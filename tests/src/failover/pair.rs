//! A pair of directors in a lab of its own, ours or the alternative, and how each is started, stopped, killed and
//! brought back.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Result;

use super::Timing;
use crate::lab::{AgentOptions, Director, EchoServer, Lab, LabOptions, Server, VipWatch, VrrpOptions, addr};

/// For an election, on a busy machine.
pub(super) const ELECTED: Duration = Duration::from_secs(30);

/// Who directs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Our agent.
    Lb,
    /// keepalived, nftables and conntrackd.
    Keepalived,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lb => "lb",
            Self::Keepalived => "keepalived",
        })
    }
}

/// A running pair; d1 is Active.
pub(super) struct Pair {
    pub(super) contender: Contender,
    pub(super) timing: Timing,
    pub(super) watch: VipWatch,
    // Before the lab: they live in it.
    _servers: Vec<EchoServer>,
    pub(super) lab: Lab,
    vrrp: VrrpOptions,
}

impl Pair {
    /// Builds the lab and starts both directors, d1 first.
    pub(super) fn up(contender: Contender, timing: Timing) -> Result<Self> {
        let lab = LabOptions { directors: 2, mariadb: None, ..LabOptions::default() }.up()?;
        let servers = lab
            .servers()
            .iter()
            .map(|server| EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)));
        let servers = servers.collect::<Result<_>>()?;
        let watch = VipWatch::start(&lab)?;
        let pair = Self { contender, timing, watch, _servers: servers, lab, vrrp: timing.vrrp() };
        pair.boot(pair.lab.d1())?;
        pair.watch.wait_for(0, ELECTED)?;
        pair.boot(pair.lab.d2())?;
        Ok(pair)
    }

    /// Starts a director that knows nothing.
    pub(super) fn boot(&self, director: &Director) -> Result<()> {
        match self.contender {
            Contender::Lb => director.start_agent(&self.agent()),
            Contender::Keepalived => director.start_rival(&self.vrrp, &self.backends()),
        }
    }

    /// Ends the daemon in order.
    pub(super) fn stop(&self, director: &Director) -> Result<()> {
        match self.contender {
            Contender::Lb => director.stop_agent().map(drop),
            Contender::Keepalived => director.stop_keepalived(),
        }
    }

    /// Starts the daemon again that was ended in order; everything else has gone on.
    pub(super) fn start(&self, director: &Director) -> Result<()> {
        match self.contender {
            Contender::Lb => director.restart_agent(),
            Contender::Keepalived => director.restart_keepalived(),
        }
    }

    /// Kills the daemon.
    pub(super) fn kill(&self, director: &Director) -> Result<()> {
        match self.contender {
            Contender::Lb => director.kill_agent().map(drop),
            Contender::Keepalived => director.kill_keepalived(),
        }
    }

    /// Takes everything off that a reboot would: the daemons, the VIPs, all state.
    pub(super) fn wipe(&self, director: &Director) -> Result<()> {
        match self.contender {
            Contender::Lb => {
                if director.agent_pid().is_ok() {
                    director.kill_agent()?;
                }
                director.drop_vips()?;
                director.unload(&director.write_config(&self.agent())?).map(drop)
            }
            Contender::Keepalived => director.wipe_rival(),
        }
    }

    fn agent(&self) -> AgentOptions {
        AgentOptions::classic(self.backends()).vrrp(&self.vrrp)
    }

    fn backends(&self) -> Vec<Ipv4Addr> {
        self.lab.servers().iter().map(Server::address).collect()
    }
}

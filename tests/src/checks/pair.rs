//! A pair of directors, each run by our agent or by keepalived, put through starts, stops, deaths and disturbances. What
//! is judged is what others can see: addresses, by the kernels' own account, and who answers ARP.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::{
    AgentOptions, Director, EchoServer, History, Lab, LabOptions, Segment, Server, VipWatch, VrrpOptions, addr,
    wait_for,
};

/// For what takes a moment on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);
/// How long answers to an ARP question are collected. A host answers at once.
const WINDOW: Duration = Duration::from_millis(100);
/// Two addresses take two system calls, and on a busy machine there may be a pause between them.
const TOGETHER: Duration = Duration::from_millis(500);

/// The short length that a test takes everywhere, or the long one of a run with `LB_LONG` set.
pub fn at_length<T>(short: T, long: T) -> T {
    if std::env::var_os("LB_LONG").is_some() { long } else { short }
}

/// What runs on a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Ours.
    Agent,
    /// The distribution's keepalived. It moves addresses only; it has no packet path.
    Keepalived,
    /// keepalived with nftables and conntrackd.
    Rival,
}

/// A lab with three clients, two servers that echo on the service's port, and two directors.
#[derive(Debug)]
pub struct Pair {
    /// Who holds the VIPs.
    pub watch: VipWatch,
    _servers: Vec<EchoServer>,
    /// The lab.
    pub lab: Lab,
    daemons: [Daemon; 2],
    agent: AgentOptions,
    vrrp: VrrpOptions,
}

impl Pair {
    /// Builds the lab. No daemon runs yet.
    ///
    /// # Errors
    /// As [`LabOptions::up`].
    pub fn new(daemons: [Daemon; 2], vrrp: VrrpOptions) -> Result<Self> {
        let lab = LabOptions { clients: 3, directors: 2, mariadb: None, ..LabOptions::default() }.up()?;
        let servers = lab
            .servers()
            .iter()
            .map(|server| EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)));
        let servers = servers.collect::<Result<_>>()?;
        let agent = lab.agent_options().vrrp(&vrrp);
        let watch = VipWatch::start(&lab)?;
        Ok(Self { watch, _servers: servers, lab, daemons, agent, vrrp })
    }

    /// Two agents of a lab that is there, with real servers and with whatever `agent` says. None runs yet.
    ///
    /// # Errors
    /// When the addresses cannot be watched.
    pub fn of(lab: Lab, vrrp: VrrpOptions, agent: AgentOptions) -> Result<Self> {
        let watch = VipWatch::start(&lab)?;
        let agent = agent.vrrp(&vrrp);
        Ok(Self { watch, _servers: Vec::new(), lab, daemons: [Daemon::Agent; 2], agent, vrrp })
    }

    /// Lets the agents, which do not run yet, tell each other of their conns.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn synced(mut self) -> Result<Self> {
        self.agent = self.agent.sync(self.lab.sync_options()?);
        Ok(self)
    }

    /// Builds the lab and starts both, d1 first; d1 is Active then.
    ///
    /// # Errors
    /// As [`Pair::new`] and [`Pair::begun`].
    pub fn up(daemons: [Daemon; 2], vrrp: VrrpOptions) -> Result<Self> {
        Self::new(daemons, vrrp)?.begun()
    }

    /// Starts both, d1 first; d1 is Active then.
    ///
    /// # Errors
    /// When a daemon does not start or no Active is elected.
    pub fn begun(self) -> Result<Self> {
        self.start(0)?;
        self.gets(0)?;
        self.start(1)?;
        Ok(self)
    }

    /// A director, 0 or 1.
    pub fn director(&self, number: usize) -> &Director {
        &self.lab.directors()[number]
    }

    /// How they speak.
    pub fn vrrp(&self) -> &VrrpOptions {
        &self.vrrp
    }

    /// How long the other director waits at most until it takes over from a silent one.
    pub fn down_after(&self) -> Duration {
        self.vrrp.priorities.iter().map(|priority| self.vrrp.down_after(*priority)).max().unwrap_or_default()
    }

    /// Starts the daemon of a director.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, number: usize) -> Result<()> {
        let director = self.director(number);
        match self.daemons[number] {
            Daemon::Agent => director.start_agent(&self.agent),
            Daemon::Keepalived => director.start_keepalived(&self.vrrp, None),
            Daemon::Rival => director.start_rival(&self.vrrp, &self.backends()),
        }
    }

    /// Starts it again with what it had, after [`Pair::stop`] or [`Pair::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self, number: usize) -> Result<()> {
        let director = self.director(number);
        match self.daemons[number] {
            Daemon::Agent => director.restart_agent(),
            Daemon::Keepalived | Daemon::Rival => director.restart_keepalived(),
        }
    }

    /// Takes everything off a director that a reboot would: its daemons, whether they run or not, the VIPs, all state.
    ///
    /// # Errors
    /// When something cannot be taken off.
    pub fn wipe(&self, number: usize) -> Result<()> {
        let director = self.director(number);
        match self.daemons[number] {
            Daemon::Agent => {
                if director.agent_pid().is_ok() {
                    director.kill_agent()?;
                }
                director.drop_vips()?;
                director.unload(&director.write_config(&self.agent)?).map(drop)
            }
            Daemon::Keepalived => {
                if director.runs_keepalived() {
                    director.kill_keepalived()?;
                }
                director.drop_vips()
            }
            Daemon::Rival => director.wipe_rival(),
        }
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// When none runs.
    pub fn stop(&self, number: usize) -> Result<()> {
        let director = self.director(number);
        match self.daemons[number] {
            Daemon::Agent => director.stop_agent().map(drop),
            Daemon::Keepalived | Daemon::Rival => director.stop_keepalived(),
        }
    }

    /// Kills it.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill(&self, number: usize) -> Result<()> {
        let director = self.director(number);
        match self.daemons[number] {
            Daemon::Agent => director.kill_agent().map(drop),
            Daemon::Keepalived | Daemon::Rival => director.kill_keepalived(),
        }
    }

    /// Waits until a director holds both VIPs and the other none; answers since when.
    ///
    /// # Errors
    /// When that does not come true.
    pub fn gets(&self, number: usize) -> Result<Instant> {
        self.watch.wait_for(number, LIMIT)
    }

    /// Waits until a director holds both VIPs, whatever the other one holds; answers since when.
    ///
    /// # Errors
    /// When that does not come true.
    pub fn takes(&self, number: usize) -> Result<Instant> {
        let holds = || Ok(self.watch.history()?.complete_since(number));
        wait_for(&format!("both VIPs on d{}", number + 1), LIMIT, holds).with_context(|| self.told())
    }

    /// Waits for `time`, and makes sure that no address comes or goes meanwhile.
    ///
    /// # Errors
    /// When one does.
    pub fn nothing_moves_for(&self, time: Duration) -> Result<()> {
        let before = self.watch.history()?.changes.len();
        thread::sleep(time);
        let after = self.watch.history()?.changes.len();
        ensure!(before == after, "something moved within {time:?}:\n{}", self.told());
        Ok(())
    }

    /// Waits longer than a director waits for adverts, and makes sure that no address comes or goes meanwhile.
    ///
    /// # Errors
    /// When one does.
    pub fn nothing_moves(&self) -> Result<()> {
        self.nothing_moves_for(self.down_after() + self.vrrp.advert)
    }

    /// Makes sure that every client that asks for the VIP, and every server that asks for the internal one, hears one
    /// answer, and that it is this director's.
    ///
    /// # Errors
    /// When somebody hears another answer, none, or more than one.
    pub fn answers_alone(&self, number: usize) -> Result<()> {
        for asker in self.lab.askers()? {
            let segment = if asker.vip() == addr::VIP { Segment::Client } else { Segment::Server };
            let address = self.director(number).address(segment).context("a director on both segments")?;
            let (heard, expected) = (asker.ask(WINDOW)?, addr::link(address));
            ensure!(
                heard == [expected],
                "{} asked for {} and heard {heard:02x?} instead of d{}'s {expected:02x?}",
                asker.name(),
                asker.vip(),
                number + 1
            );
        }
        Ok(())
    }

    /// Waits until [`Pair::answers_alone`] is true: after a takeover it may take a moment.
    ///
    /// # Errors
    /// When it does not come true.
    pub fn answers_alone_soon(&self, number: usize) -> Result<()> {
        let mut last = None;
        let told = wait_for("ARP answers of one director", LIMIT, || match self.answers_alone(number) {
            Ok(()) => Ok(Some(())),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        });
        told.map_err(|error| last.map_or(error, |last| last.context("still")))
    }

    /// Makes sure that the VIPs have moved together all the time.
    ///
    /// # Errors
    /// When one was without the other.
    pub fn never_apart(&self) -> Result<()> {
        let apart = self.watch.history()?.apart();
        ensure!(apart < TOGETHER, "a director held one VIP for {apart:?} without the other:\n{}", self.told());
        Ok(())
    }

    /// What happened to the addresses, for messages.
    pub fn told(&self) -> String {
        self.watch.history().map_or_else(|error| format!("{error:#}"), |history| history.describe())
    }

    /// As [`VipWatch::history`].
    ///
    /// # Errors
    /// As there.
    pub fn history(&self) -> Result<History> {
        self.watch.history()
    }

    fn backends(&self) -> Vec<Ipv4Addr> {
        self.lab.servers().iter().map(Server::address).collect()
    }
}

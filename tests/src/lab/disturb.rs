//! What goes wrong with a network: a link goes down, frames are lost in one direction, multicast is filtered, a switch
//! splits, a machine's CPU is taken. All of it at the switch, so that the hosts cannot know.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use super::Lab;
use super::host::Host;
use super::process::Process;
use super::segment::{Segment, port};

/// Which frames a disturbance loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Every one, ARP included.
    All,
    /// IPv4 multicast: a switch that filters it.
    Multicast,
    /// So many of a hundred IPv4 packets, by chance; 1 to 99.
    Percent(u8),
}

impl Loss {
    fn rule(self) -> String {
        match self {
            Self::All => "drop".to_owned(),
            Self::Multicast => "ip daddr 224.0.0.0/4 drop".to_owned(),
            Self::Percent(share) => format!("ip version 4 numgen random mod 100 < {share} drop"),
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the host sends.
    From,
    /// What the host is to receive.
    To,
}

/// A disturbance. It ends when it is dropped; [`Disturbance::end`] says when that fails.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Disturbance {
    switch: Host,
    remedy: Option<Remedy>,
}

#[derive(Debug)]
enum Remedy {
    /// Lines for `ip -batch`.
    Ip(String),
    /// An nftables table of the netdev family.
    Table(String),
}

impl Disturbance {
    /// Ends it.
    ///
    /// # Errors
    /// When the switch cannot be put right.
    pub fn end(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        match self.remedy.take() {
            Some(Remedy::Ip(lines)) => self.switch.ip_batch(&lines),
            Some(Remedy::Table(table)) => self.switch.check(&["nft", "delete", "table", "netdev", &table]).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// A process that takes all the CPU time that it gets. It ends when it is dropped, and after 30 s of CPU time.
#[derive(Debug)]
pub struct Hog {
    _process: Process,
}

impl Lab {
    /// Takes the carrier of a host's interfaces away, all in one step; both ends see it.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn cut(&self, host: &Host, interfaces: &[&str]) -> Result<Disturbance> {
        let lines = |verb: &str| {
            interfaces.iter().fold(String::new(), |mut text, interface| {
                let _ = writeln!(text, "link set {} {verb}", port(host.name(), interface));
                text
            })
        };
        self.switch.ip_batch(&lines("down")).with_context(|| format!("cut {interfaces:?} of {}", host.name()))?;
        Ok(Disturbance { switch: self.switch.clone(), remedy: Some(Remedy::Ip(lines("up"))) })
    }

    /// Loses frames of a host's interface in one direction; the carrier stays.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn lose(&self, host: &Host, interface: &str, way: Way, loss: Loss) -> Result<Disturbance> {
        self.filter(&[(port(host.name(), interface), way)], loss)
    }

    /// Loses frames that the directors send into a segment.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn lose_between_directors(&self, segment: Segment, loss: Loss) -> Result<Disturbance> {
        let interface = segment.director_interface();
        let ports: Vec<_> =
            self.directors.iter().map(|director| (port(director.host().name(), interface), Way::From)).collect();
        self.filter(&ports, loss)
    }

    /// Splits a segment in two: these hosts on one side, everybody else on the other.
    ///
    /// # Errors
    /// When the bridge cannot be changed.
    pub fn split(&self, segment: Segment, apart: &[(&Host, &str)]) -> Result<Disturbance> {
        let (bridge, other) = (segment.bridge(), format!("{}2", segment.bridge()));
        let mut lines =
            format!("link add {other} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {other} up\n");
        let mut remedy = String::new();
        for (host, interface) in apart {
            let end = port(host.name(), interface);
            let _ = writeln!(lines, "link set {end} master {other}");
            let _ = writeln!(remedy, "link set {end} master {bridge}");
        }
        let _ = writeln!(remedy, "link del {other}");
        self.switch.ip_batch(&lines).with_context(|| format!("split {bridge}"))?;
        Ok(Disturbance { switch: self.switch.clone(), remedy: Some(Remedy::Ip(remedy)) })
    }

    /// Takes CPU time from everybody: `count` busy loops.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn hog(&self, count: usize) -> Result<Vec<Hog>> {
        let busy = || {
            let mut command = Command::new("sh");
            // The limit ends it even if nobody else does.
            command.args(["-c", "ulimit -t 30; while :; do :; done"]);
            Ok(Hog { _process: self.switch.spawn("hog", command)? })
        };
        (0..count).map(|_| busy()).collect()
    }

    fn filter(&self, ports: &[(String, Way)], loss: Loss) -> Result<Disturbance> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let table = format!("lose{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut rules = format!("table netdev {table} {{\n");
        for (number, (port, way)) in ports.iter().enumerate() {
            // At the switch, what a host sends comes in.
            let hook = if *way == Way::From { "ingress" } else { "egress" };
            let _ = writeln!(
                rules,
                " chain c{number} {{\n  type filter hook {hook} device \"{port}\" priority 0;\n  {}\n }}",
                loss.rule()
            );
        }
        rules.push_str("}\n");
        self.switch.check_with_input(&["nft", "-f", "-"], &rules)?;
        Ok(Disturbance { switch: self.switch.clone(), remedy: Some(Remedy::Table(table)) })
    }
}

//! The acts of the demo. Each does something with real traffic, checks what must hold, prints what was seen and notes it
//! in the report. All play on one lab; a failed act ends the show.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    checks::{Sessions, Setting, Share, Spread, behind_firewall, both_ways, rounds},
    lab::{Lab, Offload, Transfer, Workload, addr},
};
use lb_userspace::control::protocol::{ConnView, DropView, Status};

use super::{
    report::{Firewall, Pass, Report, Weights},
    screen::{Screen, bar},
};

/// Queries per connection.
const QUERIES: u64 = 10;
/// Sessions that stay open while listings are compared.
const SESSIONS: usize = 7;
/// Size of the big result set, and of the big load.
const MIB: u64 = 64;
/// Conns that are shown.
const SHOWN: usize = 6;

/// A lab with an agent, and where the acts print and note.
pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    setting: &'a Setting,
    connections: u64,
    pub(super) screen: &'a Screen,
    pub(super) report: &'a mut Report,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        lab: &'a Lab,
        setting: &'a Setting,
        connections: u64,
        screen: &'a Screen,
        report: &'a mut Report,
    ) -> Self {
        Self { lab, setting, connections, screen, report }
    }

    pub(super) fn heading(&self, text: &str) {
        self.screen.heading(text);
    }

    /// Who is there.
    pub(super) fn lab(&self) {
        let lab = self.lab;
        let servers: Vec<_> = lab.servers().iter().map(|server| server.address().to_string()).collect();
        let text = format!(
            "client {} -> VIP {} on the Active of d1 and d2 -> MariaDB {}\nThe servers' default gateway is {}, on the same director.",
            lab.client().address(),
            addr::SERVICE,
            servers.join(", "),
            addr::INTERNAL_VIP
        );
        self.screen.fact("lab", &text);
        if self.setting.firewall {
            self.screen.fact("firewall", "d1: nftables input and forward, policy drop, until the end");
        }
    }

    /// The agent starts and tells where the packet path runs.
    pub(super) fn agent(&mut self) -> Result<()> {
        let d1 = self.lab.d1();
        self.screen.doing("agents", "load the packet path and elect one of them");
        self.setting.start(self.lab)?;
        let status: Status = d1.ctl(&["status"])?;
        let first = status.interfaces.first().context("the agent runs on no interface")?;
        self.report.mode = first.mode.to_string();
        let mut text = format!("lb-agent {} on d1 and d2; d1 is Active", status.agent_version);
        for interface in &status.interfaces {
            let _ = write!(text, "\n{}: {}, because {}", interface.name, interface.mode, interface.why);
        }
        self.screen.fact("agents", &text);
        Ok(())
    }

    /// New connections, sessions compared with the servers' own account, big transfers.
    pub(super) fn traffic(&mut self, offload: Offload) -> Result<()> {
        self.heading(&format!("Traffic, checksum offload of the senders {}", offload.name()));
        self.lab.set_offload(offload)?;
        let shares = self.setting.shares(self.lab);
        let work = self.connect(&shares, true)?;

        self.screen.doing("sessions", "compare lbctl with the processlists");
        let mut sessions = Sessions::open(self.lab, SESSIONS)?;
        sessions.answer()?;
        let conns = sessions.agree(self.lab)?;
        let text = format!(
            "{} sessions open: the processlists show {}, the client itself;\nlbctl conns lists the same {}, port by port",
            sessions.len(),
            self.lab.client().address(),
            conns.len()
        );
        self.screen.fact("sessions", &text);

        self.screen.doing("transfers", "big data");
        let [download, upload] = both_ways(self.lab, MIB)?;
        for (what, transfer) in [("result set", &download), ("load", &upload)] {
            self.screen.fact(what, &moved(transfer));
        }
        self.report.passes.push(Pass {
            offload: offload.name(),
            connections: work.connections,
            by_backend: work.by_backend,
            sessions_compared: sessions.len(),
            download: (&download).into(),
            upload: (&upload).into(),
        });
        Ok(())
    }

    /// 3 to 1 by lbctl, with sessions open that must not notice.
    pub(super) fn weights(&mut self) -> Result<()> {
        let mut sessions = Sessions::open(self.lab, SESSIONS)?;
        let weights = [3].into_iter().chain(std::iter::repeat(1));
        let shares: Vec<_> =
            self.lab.servers().iter().zip(weights).map(|(server, weight)| Share::new(server, weight)).collect();
        for share in &shares {
            let answer = self.lab.d1().set_weight(share.address(), share.weight)?;
            let text = format!("lbctl backend weight {} {}", answer.backend.address, answer.backend.weight);
            self.screen.fact("weight", &text);
        }
        let work = self.connect(&shares, false)?;
        sessions.answer().context("an open session noticed the change")?;
        self.report.weights = Some(Weights {
            weights: shares.iter().map(|share| (share.backend, share.weight)).collect(),
            connections: work.connections,
            by_backend: work.by_backend,
        });
        let shares = self.setting.shares(self.lab);
        shares.iter().try_for_each(|share| self.lab.d1().set_weight(share.address(), share.weight).map(drop))?;
        self.screen.fact("weight", "back to those of the start");
        Ok(())
    }

    /// The same traffic while the firewall lets nothing in and nothing through.
    pub(super) fn firewall(&mut self) -> Result<()> {
        let shares = self.setting.shares(self.lab);
        let whole_run = self.setting.firewall;
        let work = if whole_run {
            let refused = self.lab.d1().firewall_drops()?;
            ensure!(refused == 0, "{refused} packets went up to the host firewall, and were refused there");
            self.connect(&shares, false)?
        } else {
            self.screen.fact("firewall", "d1: nftables input and forward, policy drop, no rule for the service");
            let lab = self.lab;
            behind_firewall(lab, || {
                let work = self.connect(&shares, false)?;
                self.screen.doing("transfers", "big data");
                let [download, upload] = both_ways(lab, MIB)?;
                self.screen.fact("result set", &moved(&download));
                self.screen.fact("load", &moved(&upload));
                Ok(work)
            })?
        };
        self.screen.fact("firewall", "refused 0 packets: not one of the service went up to it");
        self.report.firewall = Some(Firewall { whole_run, connections: work.connections, refused: 0 });
        Ok(())
    }

    /// The listings, with a few sessions open so that there is something to see.
    pub(super) fn operator(&mut self) -> Result<()> {
        let d1 = self.lab.d1();
        let sessions = Sessions::open(self.lab, SHOWN / 2)?;
        for verb in ["services", "stats"] {
            self.screen.command(&format!("lbctl {verb}"), &d1.ctl_text(&[verb])?);
        }
        let open = d1.ctl_text(&["conns", "--state", "established"])?;
        let all: Vec<ConnView> = d1.ctl(&["conns"])?;
        let closed = d1.ctl_text(&["conns", "--limit", &SHOWN.to_string()])?;
        let closed: Vec<_> = closed.lines().skip(2).filter(|line| !line.contains("ESTABLISHED")).take(3).collect();
        let text = format!("{}\n{}\n… {} conns in all", open.trim_end(), closed.join("\n"), all.len());
        self.screen.command("lbctl conns", &text);
        self.screen.command("lbctl drops", &d1.ctl_text(&["drops"])?);
        let drops: Vec<DropView> = d1.ctl(&["drops"])?;
        self.report.drops =
            drops.into_iter().filter(|drop| drop.count > 0).map(|drop| (drop.reason, drop.count)).collect();
        ensure!(self.report.drops.is_empty(), "the packet path dropped packets: {:?}", self.report.drops);
        sessions.agree(self.lab).map(drop)
    }

    /// Makes connections, notes them whatever became of them, then checks them.
    fn connect(&mut self, shares: &[Share], weights_of_the_start: bool) -> Result<Workload> {
        let count = rounds(self.connections, shares);
        self.screen.doing("connect", &format!("{count} new connections with {QUERIES} queries each"));
        let spread = Spread::make(self.lab, count, QUERIES)?;
        self.report.count(&spread.work, weights_of_the_start);
        self.screen.fact("connect", &made(&spread.work, shares));
        spread.check(self.lab, shares)?;
        Ok(spread.work)
    }
}

fn made(work: &Workload, shares: &[Share]) -> String {
    let mut text = format!(
        "{} new connections, {} queries, {} failed, {:.2} s",
        work.connections,
        work.queries,
        work.failed_connections + work.failed_queries,
        work.elapsed.as_secs_f64()
    );
    for Share { backend, weight } in shares {
        let count = work.by_backend.get(backend).copied().unwrap_or_default();
        let _ = write!(text, "\n{backend:<16} weight {weight}  {count:>5}  {}", bar(count, work.connections));
    }
    text
}

fn moved(transfer: &Transfer) -> String {
    let Transfer { backend, bytes, sha256, elapsed } = transfer;
    let seconds = elapsed.as_secs_f64();
    let mib = (*bytes as f64) / f64::from(1 << 20);
    let digest = sha256.get(..12).unwrap_or(sha256);
    format!("{mib:.0} MiB, {backend}, {seconds:.2} s, {:.0} MiB/s, SHA-256 {digest}… is right", mib / seconds)
}

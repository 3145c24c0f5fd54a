//! The last acts of the demo: the Active hands over, its successor dies, comes back with nothing of what it knew, and
//! becomes Active again. The client never stops opening connections, and keeps others open all the time; the addresses are
//! watched by the kernels' own account.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::{Director, History, Knocks, VipWatch, addr, now, wait_for};
use lb_tests::survival::Fleet;
use lb_userspace::control::protocol::Status;

use super::{acts::Stage, report::Failover};

/// For what takes a fraction of a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
/// The service answers for so long: it is over.
const CALM: Duration = Duration::from_millis(300);
/// MySQL connections after each event, and their queries.
const CONNECTIONS: (u64, u64) = (50, 4);
/// MySQL sessions that stay open through all events: half of them idle, some with transactions.
const SESSIONS: usize = 50;
/// How long answers to an ARP question are collected.
const WINDOW: Duration = Duration::from_millis(100);

impl Stage<'_> {
    /// All four events.
    pub(super) fn pair(&mut self) -> Result<()> {
        let lab = self.lab;
        let (d1, d2) = (lab.d1(), lab.d2());
        let watch = VipWatch::start(lab)?;
        watch.wait_for(0, LIMIT)?;
        self.roles(["Active", "Backup"])?;
        let fleet = Fleet::open(lab, SESSIONS)?;
        lab.wait_until_safe(LIMIT)?;
        let kinds = "half of them idle, some with a query now and then, some with transactions";
        self.screen.fact("sessions", &format!("{SESSIONS} MySQL sessions stay open from now on, {kinds}"));

        let to_peer = |director: &Director| director.ctl_text(&["failover"]).map(drop);
        self.event(&watch, &fleet, "hand-over", "lbctl failover on d1", Some(1), || to_peer(d1))?;
        self.roles(["Backup", "Active"])?;
        lab.wait_until_safe(LIMIT)?;
        self.event(&watch, &fleet, "crash", "kill -9 of the agent on d2", Some(0), || d2.kill_agent().map(drop))?;
        for asker in lab.askers()? {
            let answers = asker.ask(WINDOW)?.len();
            ensure!(answers == 1, "{answers} directors answer {}, which asks for {}", asker.name(), asker.vip());
        }
        let text = "the killed agent could not take its addresses off, but one director answers for them";
        self.screen.fact("ARP", text);
        let config = d2.host().directory().join("agent.toml");
        d2.unload(&config)?;
        let what = "d2 was wiped, programs and tables, and its agent starts again";
        self.event(&watch, &fleet, "return", what, None, || d2.restart_agent())?;
        watch.wait_for(0, LIMIT)?;
        self.roles(["Active", "Backup"])?;
        lab.wait_until_safe(LIMIT)?;
        self.screen.command("lbctl peer on d2", &d2.ctl_text(&["peer"])?);
        let what = "lbctl failover on d1, back to the wiped d2";
        self.event(&watch, &fleet, "failback", what, Some(1), || to_peer(d1))?;
        self.roles(["Backup", "Active"])?;
        fleet.settle(lab).context("what the sessions wrote")?;
        let text = format!(
            "{SESSIONS} of {SESSIONS} survived the hand-over, the crash and the failback to a director that was wiped; \
             every answer was right, every commit is there"
        );
        self.screen.fact("sessions", &text);
        self.screen.command("lbctl status on d2", &d2.ctl_text(&["status"])?);
        Ok(())
    }

    /// Something happens while new connections are tried every millisecond; then MySQL connections must all work, and
    /// those that were open must be open still.
    fn event(
        &mut self,
        watch: &VipWatch,
        fleet: &Fleet,
        name: &'static str,
        what: &str,
        to: Option<usize>,
        happen: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.screen.doing(name, what);
        let client = self.lab.client();
        let knocks = Knocks::start(client, addr::SERVICE)?;
        knocks.wait_for_calm(CALM, LIMIT)?;
        let (begun, roll) = (now(), fleet.roll());
        happen().with_context(|| what.to_owned())?;
        let moved = to.map(|to| {
            let holds = || Ok(watch.history()?.complete_since(to));
            wait_for(&format!("both VIPs on d{}", to + 1), LIMIT, holds)
        });
        let moved = moved.transpose()?;
        knocks.wait_for_calm(CALM, LIMIT).context("after it")?;
        let gap = knocks.stop()?.gap(begun);
        let history = watch.history()?.since(begun);
        together(&history)?;

        let (connections, queries) = CONNECTIONS;
        let work = client.many_connections(connections, queries, 4)?;
        let failed = work.failed_connections + work.failed_queries;
        ensure!(failed == 0 && work.connections == connections, "afterwards: {work:?}");
        let census = fleet.census(&roll, begun)?;
        let (open, survived) = (census.sessions, census.survived);
        ensure!(survived == open && census.wrong == 0, "{survived} of {open} open sessions survived: {census:?}");
        let vips_ms = moved.map(|moved| millis(moved.saturating_duration_since(begun)));
        let moved = vips_ms.map_or_else(|| "no VIP moved".to_owned(), |ms| format!("both VIPs moved after {ms:.1} ms"));
        let gap_ms = millis(gap);
        let text = format!(
            "{what}: {moved};\nlongest time without an answer {gap_ms:.1} ms; then {connections} new MySQL connections, {failed} failed\n\
             {survived} of {open} open sessions survived, their longest wait for an answer {:.1} ms",
            millis(census.gap)
        );
        self.screen.fact(name, &text);
        let active = self.active()?;
        self.report.failovers.push(Failover {
            event: name,
            active,
            gap_ms,
            vips_ms,
            connections,
            open_sessions: open,
            survived,
            session_gap_ms: millis(census.gap),
        });
        Ok(())
    }

    /// Waits for the roles of d1 and d2, by their own account.
    fn roles(&self, roles: [&str; 2]) -> Result<()> {
        for (director, role) in self.lab.directors().iter().zip(roles) {
            wait_for(&format!("{} as {role}", director.host().name()), LIMIT, || {
                Ok((self::role(director)? == role).then_some(()))
            })?;
        }
        self.screen.fact("roles", &format!("d1 is {}, d2 is {}", roles[0], roles[1]));
        Ok(())
    }

    /// The director that says that it is Active.
    fn active(&self) -> Result<String> {
        // A killed agent says nothing.
        let active = self.lab.directors().iter().find(|director| role(director).is_ok_and(|role| role == "Active"));
        Ok(active.context("no director is Active")?.host().name().to_owned())
    }
}

fn role(director: &Director) -> Result<String> {
    let status: Status = director.ctl(&["status"])?;
    Ok(status.vrrp.context("the agent takes part in no election")?.role)
}

/// The VIPs moved together.
fn together(history: &History) -> Result<()> {
    let apart = history.apart();
    ensure!(apart < Duration::from_millis(500), "one VIP was without the other for {apart:?}:\n{}", history.describe());
    Ok(())
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

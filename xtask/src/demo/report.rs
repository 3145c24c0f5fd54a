//! The result of the demo for programs. Names are stable; what was not reached is absent or zero, and `ok` is false.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    checks::Setting,
    lab::{Transfer, Workload},
};
use serde::{Serialize, Serializer};

/// All that `--json` writes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Every check passed.
    pub(crate) ok: bool,
    /// The first failure.
    error: Option<String>,
    /// The hook in use.
    pub(crate) mode: String,
    mode_requested: String,
    scheduler: String,
    /// Answered connections of the acts with the weights of the start, over all offload settings.
    connections: u64,
    /// Those, by the server that answered.
    by_backend: BTreeMap<Ipv4Addr, u64>,
    /// The client's address in the servers' processlists, over all acts.
    #[serde(serialize_with = "joined")]
    client_seen: BTreeSet<Ipv4Addr>,
    /// Queries with the right answer, over all acts.
    queries: u64,
    failed_connections: u64,
    failed_queries: u64,
    /// An entry per offload setting.
    pub(crate) passes: Vec<Pass>,
    /// After the change of weights at run time.
    pub(crate) weights: Option<Weights>,
    pub(crate) firewall: Option<Firewall>,
    /// What became of the pair, in order.
    pub(crate) failovers: Vec<Failover>,
    /// Packets that the packet path dropped before any failover, by reason; only what happened.
    pub(crate) drops: BTreeMap<String, u64>,
    /// From the start of the command, the build included.
    seconds: f64,
}

/// The traffic with one offload setting of the senders.
#[derive(Debug, Serialize)]
pub(crate) struct Pass {
    /// `on` or `off`.
    pub(crate) offload: &'static str,
    pub(crate) connections: u64,
    pub(crate) by_backend: BTreeMap<Ipv4Addr, u64>,
    /// Sessions that were open when lbctl and the processlists were compared.
    pub(crate) sessions_compared: usize,
    pub(crate) download: Moved,
    pub(crate) upload: Moved,
}

/// A transfer that arrived intact.
#[derive(Debug, Serialize)]
pub(crate) struct Moved {
    backend: Ipv4Addr,
    bytes: u64,
    sha256: String,
    seconds: f64,
}

impl From<&Transfer> for Moved {
    fn from(transfer: &Transfer) -> Self {
        let Transfer { backend, bytes, sha256, elapsed } = transfer;
        Self { backend: *backend, bytes: *bytes, sha256: sha256.clone(), seconds: elapsed.as_secs_f64() }
    }
}

/// Shares after weights were changed.
#[derive(Debug, Serialize)]
pub(crate) struct Weights {
    pub(crate) weights: BTreeMap<Ipv4Addr, u16>,
    pub(crate) connections: u64,
    pub(crate) by_backend: BTreeMap<Ipv4Addr, u64>,
}

/// The role moved, or did not where it must not.
#[derive(Debug, Serialize)]
pub(crate) struct Failover {
    /// `hand-over`, `crash`, `return` or `failback`.
    pub(crate) event: &'static str,
    /// Who is Active afterwards.
    pub(crate) active: String,
    /// The longest time without an answer to a new connection, of which one is tried every millisecond.
    pub(crate) gap_ms: f64,
    /// From the event to both VIPs on the other director; none when nothing moved.
    pub(crate) vips_ms: Option<f64>,
    /// MySQL connections made afterwards, none of which failed.
    pub(crate) connections: u64,
    /// MySQL sessions that were open before.
    pub(crate) open_sessions: usize,
    /// Those of them that were open afterwards.
    pub(crate) survived: usize,
    /// The longest time that one of them waited for an answer.
    pub(crate) session_gap_ms: f64,
}

/// What the host firewall had to do with it.
#[derive(Debug, Serialize)]
pub(crate) struct Firewall {
    /// It was on from beginning to end.
    pub(crate) whole_run: bool,
    /// Connections made while it was on in the act of its own.
    pub(crate) connections: u64,
    /// Packets that it refused, of whatever kind.
    pub(crate) refused: u64,
}

impl Report {
    pub(crate) fn new(mode: &str, setting: &Setting) -> Self {
        Self {
            mode: mode.to_owned(),
            mode_requested: mode.to_owned(),
            scheduler: setting.scheduler.clone(),
            ..Self::default()
        }
    }

    /// Counts the connections of an act; those of the start's weights make up `connections`.
    pub(crate) fn count(&mut self, work: &Workload, weights_of_the_start: bool) {
        if weights_of_the_start {
            self.connections += work.connections;
            for (backend, count) in &work.by_backend {
                *self.by_backend.entry(*backend).or_default() += count;
            }
        }
        self.client_seen.extend(&work.client_seen);
        self.queries += work.queries;
        self.failed_connections += work.failed_connections;
        self.failed_queries += work.failed_queries;
    }

    pub(crate) fn finish(&mut self, elapsed: Duration, error: Option<&anyhow::Error>) {
        self.ok = error.is_none();
        self.error = error.map(|error| format!("{error:#}"));
        self.seconds = elapsed.as_secs_f64();
    }

    /// The result in one sentence.
    pub(crate) fn verdict(&self) -> String {
        let Self { mode, connections, by_backend, queries, failed_connections, failed_queries, seconds, .. } = self;
        let shares: Vec<_> = by_backend.iter().map(|(backend, count)| format!("{backend} {count}")).collect();
        format!(
            "{mode}: {connections} connections, {}; {queries} queries in all, {} failed; {seconds:.1} s.",
            shares.join(", "),
            failed_connections + failed_queries
        )
    }

    /// Writes the file, with the directory it is in.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let mut text = serde_json::to_vec_pretty(self).context("write the report as JSON")?;
        text.push(b'\n');
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// One address is the rule; more are a failure that must be seen.
fn joined<S: Serializer>(addresses: &BTreeSet<Ipv4Addr>, to: S) -> Result<S::Ok, S::Error> {
    let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
    to.serialize_str(&addresses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_names_that_programs_read() {
        let mut report = Report::new("auto", &Setting::default());
        let (client, backend) = (Ipv4Addr::new(10, 80, 1, 1), Ipv4Addr::new(192, 168, 80, 167));
        let work = Workload {
            connections: 200,
            by_backend: BTreeMap::from([(backend, 200)]),
            client_seen: BTreeSet::from([client]),
            queries: 1000,
            failed_queries: 3,
            ..Workload::default()
        };
        report.count(&work, true);
        report.count(&work, false);
        report.finish(Duration::from_millis(1500), Some(&anyhow::anyhow!("no")));
        let json = serde_json::to_value(&report).expect("a report is JSON");
        assert_eq!((&json["ok"], &json["error"]), (&false.into(), &"no".into()));
        assert_eq!((&json["mode"], &json["connections"]), (&"auto".into(), &200.into()));
        assert_eq!(json["by_backend"]["192.168.80.167"], 200);
        assert_eq!((&json["client_seen"], &json["failed_queries"]), (&"10.80.1.1".into(), &6.into()));
        assert_eq!(json["seconds"], 1.5);
        assert_eq!(json["passes"], serde_json::json!([]));
    }
}

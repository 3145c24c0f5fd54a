//! Debian's sysbench on a client: a steady OLTP load through the service, and its report as numbers.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddrV4;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use super::addr;
use super::client::Client;
use super::mariadb::Server;
use super::process::Process;

/// What sysbench runs.
#[derive(Clone, Debug)]
pub struct SysbenchOptions {
    /// Script of /usr/share/sysbench: `oltp_read_write`, `oltp_point_select`, …
    pub script: String,
    /// Where to.
    pub server: SocketAddrV4,
    /// Sessions, one per thread.
    pub threads: u32,
    /// Duration of the run.
    pub seconds: u32,
    /// Rows per table, as given to [`prepare_sysbench`].
    pub table_size: u32,
    /// Further arguments.
    pub extra: Vec<String>,
}

impl Default for SysbenchOptions {
    fn default() -> Self {
        Self {
            script: "oltp_read_write".to_owned(),
            server: addr::SERVICE,
            threads: 8,
            seconds: 10,
            table_size: 10_000,
            extra: Vec::new(),
        }
    }
}

/// What sysbench reported. Without a `fatal` line and with exit status 0 it ran to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SysbenchReport {
    /// Exit status 0.
    pub completed: bool,
    /// Transactions.
    pub transactions: u64,
    /// Queries that succeeded.
    pub queries: u64,
    /// Errors that sysbench went on after (deadlocks and the like).
    pub errors: u64,
    /// Sessions that it opened again.
    pub reconnects: u64,
    /// Messages of errors that ended it.
    pub fatal: Vec<String>,
    /// Mean latency of a transaction in ms.
    pub latency_average_ms: f64,
    /// 95th percentile of it.
    pub latency_p95_ms: f64,
    /// Longest transaction: a gap in the traffic shows here.
    pub latency_max_ms: f64,
}

/// A running sysbench.
#[derive(Debug)]
pub struct Sysbench {
    process: Process,
    limit: Duration,
}

impl Client {
    /// Runs sysbench to its end.
    ///
    /// # Errors
    /// When it cannot run or does not end in time; a failed query is in the report.
    pub fn sysbench(&self, options: &SysbenchOptions) -> Result<SysbenchReport> {
        self.start_sysbench(options)?.wait()
    }

    /// Starts sysbench in the background.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_sysbench(&self, options: &SysbenchOptions) -> Result<Sysbench> {
        let mut command = Command::new("sysbench");
        command.arg(&options.script).args(tables(options.table_size)).args([
            format!("--mysql-host={}", options.server.ip()),
            format!("--mysql-port={}", options.server.port()),
            format!("--mysql-user={}", addr::USER),
            format!("--mysql-password={}", addr::PASSWORD),
            format!("--threads={}", options.threads),
            format!("--time={}", options.seconds),
        ]);
        command.args(&options.extra).arg("run");
        let name = unused_log(self)?;
        let process = self.host().spawn(&name, command)?;
        Ok(Sysbench { process, limit: Duration::from_secs(u64::from(options.seconds) + 30) })
    }
}

impl Sysbench {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When waitpid() fails.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Waits for the end and reads the report.
    ///
    /// # Errors
    /// When it does not end within 30 s after its time, or printed no report and no error.
    pub fn wait(mut self) -> Result<SysbenchReport> {
        let status = self.process.wait(self.limit)?;
        let path = self.process.log_path();
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut report = parse(&text);
        report.completed = status.success();
        if report.fatal.is_empty() && report.queries == 0 {
            bail!("sysbench ended with {status} and without a report:\n{text}");
        }
        Ok(report)
    }
}

/// Creates and fills sysbench's table on every server, past the network.
///
/// # Errors
/// When sysbench fails on one.
pub fn prepare_sysbench(servers: &[Server], table_size: u32) -> Result<()> {
    let prepare = |server: &Server| -> Result<()> {
        let mut command = server.host().command("sysbench")?;
        command.arg("oltp_common").args(tables(table_size));
        command.arg(format!("--mysql-socket={}", server.socket().display())).args(["--mysql-user=root", "prepare"]);
        let output = command.stdin(Stdio::null()).output().context("run sysbench: install Debian's sysbench")?;
        if !output.status.success() {
            bail!("{}: sysbench prepare: {}", server.host().name(), String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let all: Vec<_> = servers.iter().map(|server| scope.spawn(move || prepare(server))).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread that prepares panicked"))?)
    })
}

fn tables(size: u32) -> [String; 4] {
    [
        "--db-driver=mysql".to_owned(),
        format!("--mysql-db={}", addr::DATABASE),
        "--tables=1".to_owned(),
        format!("--table-size={size}"),
    ]
}

/// Every run gets a log of its own, because the report is read from it.
fn unused_log(client: &Client) -> Result<String> {
    let directory = client.host().directory();
    let names = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let runs = names.filter_map(Result::ok).filter(|entry| {
        let name = entry.file_name();
        let name: &OsStr = name.as_ref();
        name.as_encoded_bytes().starts_with(b"sysbench")
    });
    Ok(format!("sysbench-{}", runs.count() + 1))
}

fn parse(text: &str) -> SysbenchReport {
    // The queries line is `queries:  200  (19.9 per sec.)`; `total:` and `queries performed:` are others.
    let value = |label: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(label));
        line.and_then(|rest| rest.split_ascii_whitespace().next())
    };
    let count = |label| value(label).and_then(|word| word.parse().ok()).unwrap_or(0);
    let milliseconds = |label| value(label).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    SysbenchReport {
        completed: false,
        transactions: count("transactions:"),
        queries: count("queries:"),
        errors: count("ignored errors:"),
        reconnects: count("reconnects:"),
        fatal: text.lines().filter(|line| line.contains("FATAL")).map(str::to_owned).collect(),
        latency_average_ms: milliseconds("avg:"),
        latency_p95_ms: milliseconds("95th percentile:"),
        latency_max_ms: milliseconds("max:"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_report_is_read_line_by_line() {
        let text = "SQL statistics:
    queries performed:
        read:                            2884
        total:                           4120
    transactions:                        206    (20.55 per sec.)
    queries:                             4120   (411.06 per sec.)
    ignored errors:                      3      (0.30 per sec.)
    reconnects:                          1      (0.10 per sec.)

Latency (ms):
         min:                                    9.18
         avg:                                   48.61
         max:                                  131.52
         95th percentile:                       73.13
";
        let report = parse(text);
        assert_eq!((report.transactions, report.queries, report.errors, report.reconnects), (206, 4120, 3, 1));
        assert_eq!((report.latency_average_ms, report.latency_p95_ms, report.latency_max_ms), (48.61, 73.13, 131.52));
        assert!(report.fatal.is_empty());
    }

    #[test]
    fn a_lost_session_is_a_fatal_line() {
        let report = parse("FATAL: mysql_drv_query() returned error 2013 (Lost connection to server during query)\n");
        assert_eq!((report.fatal.len(), report.queries), (1, 0));
    }
}

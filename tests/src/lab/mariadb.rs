//! A MySQL server of the lab: a host with a real mariadbd on it, with a data directory of its own.
//!
//! Durability is switched off, the SQL layer is not touched. root logs in over the unix socket without a password,
//! which works from any namespace; clients log in as [`addr::USER`] over TCP.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Row, Value};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

use super::addr;
use super::host::Host;
use super::process::{Files, Process};
use super::template::{self, Template};
use super::wait::wait_for;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How mariadbd runs.
#[derive(Clone, Debug, Default)]
pub struct MariadbOptions {
    /// Switch the performance schema on; it costs memory and start time.
    pub performance_schema: bool,
    /// Look up names of clients, and keep a host cache with errors. The hosts file knows the directors.
    pub resolve_names: bool,
    /// Load the authentication plugin ed25519.
    pub ed25519: bool,
    /// Further arguments, after the lab's own: `--wait-timeout=5`.
    pub extra: Vec<String>,
}

/// One line of the processlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Connection id.
    pub id: u64,
    /// User name.
    pub user: String,
    /// Address that MariaDB sees the client at; None for the unix socket and for its own threads.
    pub address: Option<Ipv4Addr>,
    /// `Sleep`, `Query`, …
    pub command: String,
}

/// A MySQL server. Its server id is the last octet of its address: 167, 136, …
#[derive(Debug)]
pub struct Server {
    host: Host,
    address: Ipv4Addr,
    daemon: Mutex<Daemon>,
}

#[derive(Debug, Default)]
struct Daemon {
    arguments: Vec<String>,
    user: Option<(Uid, Gid)>,
    files: Option<Files>,
    process: Option<Process>,
}

impl Server {
    pub(crate) fn new(host: Host, address: Ipv4Addr) -> Self {
        Self { host, address, daemon: Mutex::default() }
    }

    /// Creates the data directory, starts mariadbd for the first time, and creates the account of the clients.
    pub(crate) fn install(&self, template: &Template, options: &MariadbOptions) -> Result<()> {
        template.copy_to(&self.data())?;
        {
            let mut daemon = self.daemon();
            daemon.arguments = self.arguments(options, template.user.is_some());
            daemon.user = template.user;
            if options.resolve_names {
                daemon.files = Some(Files::default().bind(&known_names(&self.host)?, Path::new("/etc/hosts"))?);
            }
            if let Some((uid, gid)) = template.user {
                std::os::unix::fs::chown(self.host.directory(), Some(uid.as_raw()), Some(gid.as_raw()))
                    .with_context(|| format!("hand {} to mysql", self.host.directory().display()))?;
            }
        }
        self.start()?;
        let (user, password, database) = (addr::USER, addr::PASSWORD, addr::DATABASE);
        for statement in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE USER {user}@'10.80.1.%' IDENTIFIED BY '{password}'"),
            format!("GRANT ALL ON {database}.* TO {user}@'10.80.1.%'"),
        ] {
            self.sql(&statement)?;
        }
        Ok(())
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Address of the server; it listens on port 3306 of it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `@@server_id`.
    pub fn id(&self) -> u32 {
        u32::from(self.address.octets()[3])
    }

    /// Unix socket that root logs in over.
    pub fn socket(&self) -> PathBuf {
        self.host.directory().join("mariadb.sock")
    }

    /// Error log of mariadbd.
    pub fn log_path(&self) -> PathBuf {
        self.host.directory().join("mariadb.log")
    }

    /// Process id of mariadbd.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self) -> Result<u32> {
        self.with_process(|process| Ok(process.pid()))
    }

    /// Runs one statement as root over the unix socket, past the network. Rows of text; NULL is `NULL`.
    ///
    /// # Errors
    /// MariaDB's own, with the statement.
    pub fn sql(&self, statement: &str) -> Result<Vec<Vec<String>>> {
        let what = || format!("{}: {statement}", self.host.name());
        let mut session = self.root_session().with_context(what)?;
        let rows: Vec<Row> = session.query(statement).with_context(what)?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// Every session but the one that asks.
    ///
    /// # Errors
    /// As [`Server::sql`].
    pub fn processlist(&self) -> Result<Vec<Session>> {
        let rows = self.sql(
            "SELECT id, user, host, command FROM information_schema.processlist WHERE id <> CONNECTION_ID() ORDER BY id",
        )?;
        rows.into_iter()
            .map(|row| {
                let [id, user, host, command] =
                    row.try_into().map_err(|row| anyhow!("unexpected processlist row {row:?}"))?;
                let address = host.split(':').next().and_then(|address| address.parse().ok());
                Ok(Session { id: id.parse().context("connection id")?, user, address, command })
            })
            .collect()
    }

    /// Starts mariadbd and waits until it answers a query.
    ///
    /// # Errors
    /// When it runs already, exits, or does not answer within 30 s; the message holds its log.
    pub fn start(&self) -> Result<()> {
        let name = self.host.name();
        let mut daemon = self.daemon();
        if daemon.arguments.is_empty() {
            bail!("{name}: the lab was built without MariaDB");
        }
        if let Some(running) = &mut daemon.process
            && running.try_wait()?.is_none()
        {
            bail!("{name}: mariadbd runs already (pid {})", running.pid());
        }
        let mut command = Command::new("mariadbd");
        command.args(&daemon.arguments);
        let mut process = self.host.spawn_as("mariadbd", command, daemon.user, daemon.files.clone())?;
        let expected = self.id().to_string();
        let ready = wait_for(&format!("{name}: mariadbd's answer"), START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("{name}: mariadbd ended with {status}");
            }
            match self.sql("SELECT @@server_id") {
                Ok(rows) if rows == [[expected.clone()]] => Ok(Some(())),
                Ok(rows) => bail!("{name}: another server answers: {rows:?}"),
                Err(_) => Ok(None),
            }
        });
        if let Err(error) = ready {
            let log = super::process::tail(&self.log_path(), 20);
            return Err(error.context(format!("{log}\n{}", process.log_tail(10))));
        }
        daemon.process = Some(process);
        Ok(())
    }

    /// Stops mariadbd: SIGTERM, after 10 s SIGKILL.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop(&self) -> Result<()> {
        self.end(|process| process.terminate(STOP_LIMIT).map(drop))
    }

    /// Kills mariadbd with SIGKILL; its kernel closes the connections at once.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill9(&self) -> Result<()> {
        self.end(|process| process.kill9().map(drop))
    }

    /// Stops mariadbd's threads with SIGSTOP: the kernel still accepts connections, nobody answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.with_process(|process| process.signal(Signal::SIGSTOP))
    }

    /// Undoes [`Server::freeze`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.with_process(|process| process.signal(Signal::SIGCONT))
    }

    fn root_session(&self) -> Result<Conn> {
        let options = OptsBuilder::new()
            .socket(Some(self.socket().display().to_string()))
            .user(Some("root"))
            .read_timeout(Some(Duration::from_secs(60)))
            .write_timeout(Some(Duration::from_secs(60)));
        Ok(Conn::new(options)?)
    }

    fn data(&self) -> PathBuf {
        self.host.directory().join("data")
    }

    fn arguments(&self, options: &MariadbOptions, as_mysql: bool) -> Vec<String> {
        let directory = self.host.directory().display();
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", self.data().display()),
            format!("--socket={}", self.socket().display()),
            format!("--pid-file={directory}/mariadb.pid"),
            format!("--log-error={}", self.log_path().display()),
            format!("--tmpdir={directory}"),
            format!("--bind-address={}", self.address),
            format!("--port={}", addr::MYSQL_PORT),
            format!("--server-id={}", self.id()),
            format!("--report-host={}", self.address),
            format!("--performance-schema={}", if options.performance_schema { "ON" } else { "OFF" }),
            template::INNODB_LOG_SIZE.to_owned(),
        ];
        if options.ed25519 {
            arguments.push(format!("--plugin-dir={}", plugins().display()));
            arguments.push("--plugin-load-add=auth_ed25519".to_owned());
        }
        if !as_mysql {
            arguments.push("--user=root".to_owned());
        }
        arguments.extend(
            [
                if options.resolve_names { "--skip-name-resolve=OFF" } else { "--skip-name-resolve" },
                "--max-connections=2000",
                "--max-allowed-packet=64M",
                "--local-infile=ON",
                // Small and forgetful: a lab's data is never read again.
                "--innodb-buffer-pool-size=64M",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-doublewrite=OFF",
                "--innodb-use-native-aio=0",
                "--innodb-buffer-pool-dump-at-shutdown=OFF",
                "--innodb-buffer-pool-load-at-startup=OFF",
                "--key-buffer-size=1M",
                "--aria-pagecache-buffer-size=16M",
                "--table-open-cache=400",
                "--loose-feedback=OFF",
            ]
            .map(str::to_owned),
        );
        arguments.extend(options.extra.iter().cloned());
        arguments
    }

    fn end(&self, how: impl FnOnce(&mut Process) -> Result<()>) -> Result<()> {
        let mut daemon = self.daemon();
        let mut process = daemon.process.take().with_context(|| format!("{}: mariadbd is down", self.host.name()))?;
        how(&mut process)
    }

    fn with_process<T>(&self, work: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let daemon = self.daemon();
        work(daemon.process.as_ref().with_context(|| format!("{}: mariadbd is down", self.host.name()))?)
    }

    fn daemon(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where MariaDB's plugins are: with the installed server, or where `cargo xtask` has unpacked them.
fn plugins() -> PathBuf {
    const INSTALLED: &str = "/usr/lib/mysql/plugin";
    if Path::new(INSTALLED).join("auth_ed25519.so").is_file() {
        return INSTALLED.into();
    }
    template::target_directory().join("tools/mariadb").join(&INSTALLED[1..])
}

/// A hosts file with the directors in it. No name server is asked: nobody shall wait for one that is not there.
pub(crate) fn known_names(host: &Host) -> Result<PathBuf> {
    let path = host.directory().join("hosts");
    let line = |at| format!("{} d{}.lab\n", addr::director_internal(at), at + 1);
    std::fs::write(&path, format!("127.0.0.1 localhost\n{}{}", line(0), line(1)))
        .with_context(|| format!("write {}", path.display()))?;
    host.ip_batch("route replace unreachable default\n")?;
    Ok(path)
}

pub(crate) fn text(value: Value) -> String {
    match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}

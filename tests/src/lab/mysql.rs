//! A server of the lab that runs a MySQL of today: Debian's unstable packages in a root directory of their own, because
//! the stable ones hold MariaDB only. Root and initialised data directory are made once and kept in target/lab.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Row};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use super::addr;
use super::host::Host;
use super::mariadb::{known_names, text};
use super::process::{Files, Process};
use super::template::{run, target_directory};
use super::wait::wait_for;

/// Raised when what is kept changes.
const FORMAT: u32 = 1;
const SUITE: &str = "sid";
const PACKAGES: &str = "mysql-server-core,mysql-client-core";
const START_LIMIT: Duration = Duration::from_secs(60);
/// Where a server sees its own files.
const FILES: &str = "srv";

/// A running mysqld on a host of the lab. Dropping it kills it.
#[derive(Debug)]
pub struct Mysql {
    host: Host,
    address: Ipv4Addr,
    root: PathBuf,
    extra: Vec<String>,
    process: Process,
}

impl Mysql {
    /// Starts mysqld on `host` at `address`, with `extra` arguments. It looks up names of clients; its hosts file knows
    /// the directors.
    ///
    /// # Errors
    /// When the packages cannot be had, or it does not answer in time; the message holds its log.
    pub fn start(host: &Host, address: Ipv4Addr, extra: &[&str]) -> Result<Self> {
        let (root, data) = ensure()?;
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&data).arg(host.directory().join("mysql")))?;
        // The server's identity: it gives itself a new one.
        let identity = host.directory().join("mysql/auto.cnf");
        fs::remove_file(&identity).with_context(|| format!("remove {}", identity.display()))?;
        let extra: Vec<String> = extra.iter().map(|&argument| argument.to_owned()).collect();
        let process = Self::launch(host, address, &root, &extra)?;
        let mut mysql = Self { host: host.clone(), address, root, extra, process };
        mysql.wait_until_ready()?;
        Ok(mysql)
    }

    fn launch(host: &Host, address: Ipv4Addr, root: &Path, extra: &[String]) -> Result<Process> {
        let names = known_names(host)?;
        let files = Files::default()
            .bind(host.directory(), &root.join(FILES))?
            .bind(&names, &root.join("etc/hosts"))?
            .root(root)?;
        let mut command = Command::new("/usr/sbin/mysqld");
        command.args(["--no-defaults", "--user=root", "--mysqlx=OFF", "--skip-log-bin"]);
        command.args([
            "--innodb-buffer-pool-size=32M",
            // What is committed survives a kill -9 of the server.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=OFF",
        ]);
        command.args(["--innodb-use-native-aio=0", "--table-open-cache=200"]);
        command.arg(format!("--datadir=/{FILES}/mysql"));
        command.arg(format!("--socket=/{FILES}/mysql.sock"));
        command.arg(format!("--pid-file=/{FILES}/mysql.pid"));
        command.arg(format!("--log-error=/{FILES}/mysql.err"));
        command.arg(format!("--bind-address={address}"));
        command.arg(format!("--port={}", addr::MYSQL_PORT));
        command.args(extra);
        host.spawn_as("mysqld", command, None, Some(files))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let what = format!("{}: mysqld's answer", self.host.name());
        let ready = wait_for(&what, START_LIMIT, || {
            if let Some(status) = self.process.try_wait()? {
                bail!("mysqld ended with {status}");
            }
            Ok(self.sql("SELECT 1").is_ok().then_some(()))
        });
        ready.map_err(|error| {
            let log = super::process::tail(&self.host.directory().join("mysql.err"), 20);
            error.context(format!("{log}\n{}", self.process.log_tail(10)))
        })
    }

    /// Ends mysqld, in order or with SIGKILL, and starts it again when [`Mysql::start_again`] is called.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(&mut self, kill: bool) -> Result<()> {
        let ended = if kill { self.process.kill9() } else { self.process.terminate(START_LIMIT) };
        ended.map(drop)
    }

    /// Starts it with the data it had.
    ///
    /// # Errors
    /// When it does not answer in time; the message holds its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::launch(&self.host, self.address, &self.root, &self.extra)?;
        self.wait_until_ready()
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.host.directory().join("mysql.sock")
    }

    /// Address of the server; it listens on port 3306 of it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Runs one statement as root over the unix socket. Rows of text; NULL is `NULL`.
    ///
    /// # Errors
    /// MySQL's own, with the statement.
    pub fn sql(&self, statement: &str) -> Result<Vec<Vec<String>>> {
        let what = || format!("{}: {statement}", self.host.name());
        let options = OptsBuilder::new()
            .socket(Some(self.host.directory().join("mysql.sock").display().to_string()))
            .user(Some("root"))
            .read_timeout(Some(Duration::from_secs(60)));
        let mut session = Conn::new(options).with_context(what)?;
        let rows: Vec<Row> = session.query(statement).with_context(what)?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// Sends a signal to mysqld.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// The data directory, with the keys and certificates that it made.
    pub fn data(&self) -> PathBuf {
        self.host.directory().join("mysql")
    }
}

/// The root directory with the packages, and an initialised data directory.
fn ensure() -> Result<(PathBuf, PathBuf)> {
    let cache = target_directory().join("lab");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // Several tests may come here at once, each in a process of its own.
    let lock = cache.join("mysql.lock");
    let file = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", lock.display()))?;
    let root = cache.join(format!("mysql-root-{FORMAT}"));
    if !root.exists() {
        println!("lab: fetching MySQL from Debian {SUITE} (half a minute or more, once)");
        make(&root, unpack)?;
    }
    let data = cache.join(format!("mysql-data-{FORMAT}"));
    if !data.exists() {
        make(&data, |draft| initialise(&root, draft))?;
    }
    Ok((root, data))
}

/// Makes a directory that is there as a whole or not at all.
fn make(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let draft = path.with_extension("draft");
    super::cleanup::remove_tree(&draft)?;
    fill(&draft)?;
    fs::rename(&draft, path).with_context(|| format!("create {}", path.display()))
}

fn unpack(root: &Path) -> Result<()> {
    let include = format!("--include={PACKAGES}");
    run(Command::new("debootstrap").args(["--variant=minbase", &include, SUITE]).arg(root))
        .context("install Debian's debootstrap; it needs a package source that has the suite")?;
    for waste in ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"] {
        super::cleanup::remove_tree(&root.join(waste))?;
    }
    // mysqld does not start without it.
    let directory = root.join("var/lib/mysql-files");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // A place for the bind mount.
    let hosts = root.join("etc/hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").with_context(|| format!("write {}", hosts.display()))
}

fn initialise(root: &Path, data: &Path) -> Result<()> {
    let inside = root.join("var/tmp/data");
    super::cleanup::remove_tree(&inside)?;
    run(Command::new("chroot").arg(root).args([
        "/usr/sbin/mysqld",
        "--no-defaults",
        "--initialize-insecure",
        "--user=root",
        "--datadir=/var/tmp/data",
        "--innodb-redo-log-capacity=16M",
    ]))?;
    fs::rename(&inside, data).with_context(|| format!("move {}", inside.display()))
}

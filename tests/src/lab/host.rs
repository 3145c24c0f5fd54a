//! A host of the lab: a network namespace with a name, in which commands run. The file system, /sys/fs/bpf included,
//! is the machine's; the host name is the host's own (a UTS namespace per command).

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid};

use super::netns::Namespace;
use super::process::{Files, Lifetime, Process, Setup};
use super::record::{self, Record};

/// Name of the namespace of `host` in lab `id`.
pub(crate) fn namespace_of(id: &str, host: &str) -> String {
    format!("lb-{id}-{host}")
}

/// A host. Clones name the same host.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    lifetime: Lifetime,
    /// None when the lab belongs to another process: then nothing can be started that outlives the caller.
    record: Option<Arc<Record>>,
}

impl Host {
    pub(crate) fn create(
        id: &str,
        name: &str,
        directory: &Path,
        lifetime: Lifetime,
        record: &Arc<Record>,
    ) -> Result<Self> {
        let full = namespace_of(id, name);
        let files = directory.join(name);
        fs::create_dir(&files).with_context(|| format!("create {}", files.display()))?;
        let namespace = record.add_namespace(&full, || Namespace::create(&full))?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                namespace,
                directory: files,
                lifetime,
                record: Some(Arc::clone(record)),
            }),
        })
    }

    /// Opens a host of a lab that another process started.
    ///
    /// # Errors
    /// When there is no such lab, or no such host in it; the message lists the hosts.
    pub fn attach(id: &str, name: &str) -> Result<Self> {
        let state = record::find(id)?;
        let full = namespace_of(id, name);
        if !state.namespaces.contains(&full) {
            let prefix = namespace_of(id, "");
            let known: Vec<_> = state.namespaces.iter().filter_map(|known| known.strip_prefix(&prefix)).collect();
            bail!("lab {id} has no host `{name}`; its hosts are {}", known.join(", "));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                namespace: Namespace::open(&full)?,
                directory: state.directory.join(name),
                lifetime: Lifetime::Owner,
                record: None,
            }),
        })
    }

    /// Short name: `client`, `d1`, `rs1`, `sw`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Name of the network namespace, as `ip netns list` shows it.
    pub fn namespace(&self) -> &str {
        self.inner.namespace.name()
    }

    /// The host's files: sockets, logs, data. Removed with the lab.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Prepares a command that runs on this host in the foreground. It does not die with the caller.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        self.prepare(Command::new(program), None, None, None)
    }

    /// Runs a command to its end. A non-zero exit is not an error here; see [`Host::check`].
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let (program, arguments) = argv.split_first().context("empty command")?;
        self.prepare(Command::new(program), None, None, Some(Lifetime::Caller))?
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{}: run {}", self.name(), argv.join(" ")))
    }

    /// Runs a command that must succeed and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or exits with another status than 0; the message holds its stderr.
    pub fn check(&self, argv: &[&str]) -> Result<String> {
        let output = self.run(argv)?;
        success(self.name(), &argv.join(" "), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must succeed, with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Host::check`].
    pub fn check_with_input(&self, argv: &[&str], input: &str) -> Result<String> {
        let (program, arguments) = argv.split_first().context("empty command")?;
        let what = || format!("{}: run {}", self.name(), argv.join(" "));
        let mut child = self
            .prepare(Command::new(program), None, None, Some(Lifetime::Caller))?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(what)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that fails early closes its input; its status and stderr say why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(what)?;
        success(self.name(), &format!("{} with input:\n{input}", argv.join(" ")), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Feeds lines to `ip -batch` inside the host.
    ///
    /// # Errors
    /// When a line fails; the message holds ip's own, with the line number.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.check_with_input(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// Writes a sysctl below /proc/sys/net, for example `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.enter(|| fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display())))
    }

    /// Keeps the host's own protocols from answering: whatever comes in is discarded, except for ARP. A [`super::Tap`] sees
    /// it nevertheless, so a test can play the host itself.
    ///
    /// # Errors
    /// When nft refuses the rule.
    pub fn deafen(&self) -> Result<()> {
        let rules = "table inet deaf\ndelete table inet deaf\ntable inet deaf {\n chain input {\n type filter hook input priority filter; policy drop;\n }\n}\n";
        self.check_with_input(&["nft", "-f", "-"], rules).map(drop)
    }

    /// Undoes [`Host::deafen`].
    ///
    /// # Errors
    /// When the host is not deaf.
    pub fn hear_again(&self) -> Result<()> {
        self.check(&["nft", "delete", "table", "inet", "deaf"]).map(drop)
    }

    /// Runs `work` on a thread inside the host's network; sockets made there stay there, and so do its threads.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.inner.namespace.run(work)
    }

    /// Starts a background process with its output in `<name>.log` of the host's directory. It is killed when the
    /// handle or the lab is dropped, and when this process dies; in a persistent lab it stays.
    ///
    /// # Errors
    /// When it cannot be started, or the lab belongs to another process.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        self.spawn_as(name, command, None, None)
    }

    /// As another user, and with another view of the file system.
    pub(crate) fn spawn_as(
        &self,
        name: &str,
        command: Command,
        user: Option<(Uid, Gid)>,
        files: Option<Files>,
    ) -> Result<Process> {
        let Some(record) = &self.inner.record else {
            bail!("{}: only the process that started the lab starts background processes in it", self.name());
        };
        let command = self.prepare(command, user, files, Some(self.inner.lifetime))?;
        let what = format!("{} on {}", name, self.name());
        let log = self.directory().join(format!("{name}.log"));
        Process::start(&what, command, &log, self.inner.lifetime, record)
    }

    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        self.inner.record.as_ref()
    }

    fn prepare(
        &self,
        mut command: Command,
        user: Option<(Uid, Gid)>,
        files: Option<Files>,
        lifetime: Option<Lifetime>,
    ) -> Result<Command> {
        let namespace = self.inner.namespace.try_clone().context("duplicate a namespace handle")?;
        Setup { namespace, hostname: self.name().to_owned(), user, files, lifetime }.apply(&mut command);
        Ok(command)
    }
}

fn success(host: &str, what: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{host}: {what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

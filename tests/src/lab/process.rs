//! Processes of the lab: started inside a host's namespaces, logged to a file, dead when their owner is dead.
//!
//! PR_SET_PDEATHSIG (prctl(2)) fires when the *thread* that forked exits, so one thread that lives as long as the
//! process does every fork. The signal is cleared by setuid(), hence the order in [`Setup::apply`].

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, getppid, setgid, setgroups, sethostname, setsid, setuid};

use super::netns::Namespace;
use super::record::Record;
use super::wait::wait_for;

/// What ends a process that the lab started in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It dies with the thread that waits for it.
    Caller,
    /// It dies with the process that owns the lab.
    Owner,
    /// It lives on until somebody takes the lab down.
    Detached,
}

/// What a child does between fork and exec. Everything is prepared before the fork: the child must not allocate.
pub(crate) struct Setup {
    pub(crate) namespace: Namespace,
    pub(crate) hostname: String,
    pub(crate) user: Option<(Uid, Gid)>,
    /// What it sees of the file system; None for all of the machine's.
    pub(crate) files: Option<Files>,
    /// None leaves the child to its starter.
    pub(crate) lifetime: Option<Lifetime>,
}

/// A view of the file system, in a mount namespace of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// What is seen where: source, then target, which must exist.
    binds: Vec<(CString, CString)>,
    root: Option<CString>,
}

impl Files {
    /// Shows the file or directory `source` at `target` of the machine.
    pub(crate) fn bind(mut self, source: &Path, target: &Path) -> Result<Self> {
        self.binds.push((c_path(source)?, c_path(target)?));
        Ok(self)
    }

    /// Makes `root` the root directory, after all binds.
    pub(crate) fn root(mut self, root: &Path) -> Result<Self> {
        self.root = Some(c_path(root)?);
        Ok(self)
    }

    fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&CStr>, c"/", None::<&CStr>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&CStr>)?;
        for (source, target) in &self.binds {
            mount(Some(source.as_c_str()), target.as_c_str(), None::<&CStr>, MsFlags::MS_BIND, None::<&CStr>)?;
        }
        if let Some(root) = &self.root {
            chroot(root.as_c_str())?;
            chdir(c"/")?;
        }
        Ok(())
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).with_context(|| format!("{} holds a zero byte", path.display()))
}

impl Setup {
    /// Makes `command` run this setup in its child.
    pub(crate) fn apply(self, command: &mut Command) {
        let parent = Pid::this();
        let enter = move || -> io::Result<()> {
            self.namespace.enter()?;
            unshare(CloneFlags::CLONE_NEWUTS)?;
            sethostname(&self.hostname)?;
            if let Some(files) = &self.files {
                files.enter()?;
            }
            if let Some((uid, gid)) = self.user {
                setgroups(&[gid])?;
                setgid(gid)?;
                setuid(uid)?;
            }
            if let Some(Lifetime::Caller | Lifetime::Owner) = self.lifetime {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the call above.
                if getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            if let Some(Lifetime::Owner | Lifetime::Detached) = self.lifetime {
                // Out of the terminal's foreground group: Ctrl-C reaches the owner, which cleans up in order.
                setsid()?;
            }
            Ok(())
        };
        // SAFETY: the closure makes system calls only (setns, unshare, sethostname, mount, chroot, set*id, prctl, setsid); it neither
        // allocates nor takes a lock, so it is sound in the child of a multi-threaded process.
        unsafe { command.pre_exec(enter) };
    }
}

/// A background process with a log file. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
    detached: bool,
}

impl Process {
    /// Starts `command`, whose [`Setup`] is applied already, with output appended to `log`, and records its pid.
    pub(crate) fn start(
        what: &str,
        mut command: Command,
        log: &Path,
        lifetime: Lifetime,
        record: &Record,
    ) -> Result<Self> {
        let output = open_log(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone().context("duplicate the log handle")?).stderr(output);
        let child = record.add_process(what, || {
            fork_on_spawner(command).with_context(|| format!("start {what}: is the program installed?"))
        })?;
        Ok(Self { what: what.to_owned(), child, log: log.to_owned(), detached: lifetime == Lifetime::Detached })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// File that holds the output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()).context("pid out of range")?);
        kill(pid, signal).with_context(|| format!("send {signal} to {} (pid {pid})", self.what))
    }

    /// Returns the exit status, or `None` while the process runs.
    ///
    /// # Errors
    /// When waitpid() fails.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.what))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for(&format!("end of {}", self.what), limit, || self.try_wait())
    }

    /// Asks with SIGTERM, waits up to `grace`, then kills.
    ///
    /// # Errors
    /// When the process cannot be signalled or waited for.
    pub fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        match self.wait(grace) {
            Ok(status) => Ok(status),
            Err(_) => self.kill9(),
        }
    }

    /// Kills with SIGKILL and reaps.
    ///
    /// # Errors
    /// When waitpid() fails.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        // kill() of a Child that was reaped already is an error in std; the status is what counts.
        let _ = self.child.kill();
        self.child.wait().with_context(|| format!("reap {}", self.what))
    }

    /// Returns the last `lines` of the log, for error messages.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            let _ = self.kill9();
        }
    }
}

/// Returns the last `lines` of a file, lossily decoded; empty when it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("open log {}", path.display()))
}

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

fn fork_on_spawner(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = mpsc::sync_channel(1);
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawner thread is gone"))?;
    Ok(result.recv().context("the spawner thread is gone")??)
}

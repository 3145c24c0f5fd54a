//! The record of a lab: `/run/lb-lab/ID.json` lists all that must be removed. Whatever outlives a process is written
//! down *before* it is created, so a lab can be removed by somebody else after its owner was killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Where the records of all labs of this machine live.
pub(crate) const DIRECTORY: &str = "/run/lb-lab";

/// A process named so that a later process with the same pid is not mistaken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks from boot to its start: field 22 of /proc/PID/stat.
    pub(crate) start: u64,
    pub(crate) what: String,
}

impl ProcessId {
    pub(crate) fn of(pid: u32, what: &str) -> Result<Self> {
        let start = stat(pid).map(|stat| stat.start).ok_or_else(|| anyhow!("process {pid} ({what}) is gone"))?;
        Ok(Self { pid, start, what: what.to_owned() })
    }

    /// Whether this very process still runs; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'))
    }
}

/// What a lab owns, as it is written to disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) id: String,
    /// Who removes the lab; when it is dead and the lab is not persistent, the lab is a leftover.
    pub(crate) owner: ProcessId,
    pub(crate) persistent: bool,
    pub(crate) directory: PathBuf,
    pub(crate) namespaces: Vec<String>,
    pub(crate) processes: Vec<ProcessId>,
    pub(crate) pins: Vec<PathBuf>,
}

impl State {
    pub(crate) fn path(&self) -> PathBuf {
        path_of(&self.id)
    }

    pub(crate) fn is_leftover(&self) -> bool {
        !self.persistent && !self.owner.is_alive()
    }

    /// Replaces the record on disk.
    fn save(&self) -> Result<()> {
        let draft = self.draft()?;
        fs::rename(&draft, self.path()).with_context(|| format!("replace {}", self.path().display()))
    }

    /// Writes the first record; fails when there is one. A reader never sees half a record.
    fn claim(&self) -> Result<()> {
        let draft = self.draft()?;
        let claimed = fs::hard_link(&draft, self.path());
        fs::remove_file(&draft).with_context(|| format!("delete {}", draft.display()))?;
        match claimed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("a lab named {} exists; `cargo xtask lab down` removes it", self.id)
            }
            claimed => claimed.with_context(|| format!("create {}", self.path().display())),
        }
    }

    fn draft(&self) -> Result<PathBuf> {
        let path = self.path().with_extension(format!("{}.draft", std::process::id()));
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("write {}: the lab needs root", path.display()))?;
        Ok(path)
    }
}

/// The record of a lab of this process. Creating something and cleaning up exclude each other by its lock.
#[derive(Debug)]
pub(crate) struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    closed: bool,
}

impl Record {
    /// Claims `id` for this process. Fails when a lab of that id exists.
    pub(crate) fn create(id: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("create {DIRECTORY}: the lab needs root"))?;
        let state = State {
            id: id.to_owned(),
            owner: ProcessId::of(std::process::id(), "owner")?,
            persistent: false,
            directory: directory.to_owned(),
            namespaces: Vec::new(),
            processes: Vec::new(),
            pins: Vec::new(),
        };
        state.claim()?;
        Ok(Self { inner: Mutex::new(Inner { state, closed: false }) })
    }

    /// Writes a namespace down, then lets `create` make it.
    pub(crate) fn add_namespace<T>(&self, name: &str, create: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut inner = self.open()?;
        inner.state.namespaces.push(name.to_owned());
        inner.state.save()?;
        create()
    }

    /// Writes a pin directory down; whoever loads the packet path creates it.
    pub(crate) fn add_pins(&self, directory: &Path) -> Result<()> {
        let mut inner = self.open()?;
        if !inner.state.pins.iter().any(|known| known == directory) {
            inner.state.pins.push(directory.to_owned());
            inner.state.save()?;
        }
        Ok(())
    }

    /// Lets `start` start a process, then writes it down. In between its namespace or its parent's death covers it.
    pub(crate) fn add_process(&self, what: &str, start: impl FnOnce() -> Result<Child>) -> Result<Child> {
        let mut inner = self.open()?;
        let child = start()?;
        inner.state.processes.retain(ProcessId::is_alive);
        // A process that is gone already needs no entry.
        if let Ok(process) = ProcessId::of(child.id(), what) {
            inner.state.processes.push(process);
            inner.state.save()?;
        }
        Ok(child)
    }

    /// Hands the lab over to nobody: it stays until somebody takes it down.
    pub(crate) fn persist(&self) -> Result<()> {
        let mut inner = self.open()?;
        inner.state.persistent = true;
        inner.state.save()?;
        // This process must not remove it any more.
        inner.closed = true;
        Ok(())
    }

    /// Ends the lab: nothing can be added from here on. Answers what to remove, to the first caller only.
    pub(crate) fn close(&self) -> Option<State> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        inner.closed = true;
        Some(inner.state.clone())
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        if inner.closed {
            bail!("lab {} is being removed", inner.state.id);
        }
        Ok(inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panicking creator leaves at worst an entry of something that does not exist: harmless.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the records of all labs of this machine; a damaged one is reported instead of being trusted.
pub(crate) fn all() -> Result<Vec<Result<State>>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {DIRECTORY}")),
    };
    let mut states = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {DIRECTORY}"))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            states.push(read(&path));
        }
    }
    Ok(states)
}

/// Reads the record of one lab.
pub(crate) fn find(id: &str) -> Result<State> {
    read(&path_of(id)).with_context(|| format!("there is no lab named {id}; `cargo xtask lab up` makes one"))
}

/// Serialises what concerns all labs at once (the bpffs mount, see `cleanup`).
pub(crate) fn lock_all() -> Result<Flock<File>> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("create {DIRECTORY}: the lab needs root"))?;
    let directory = File::open(DIRECTORY).with_context(|| format!("open {DIRECTORY}"))?;
    Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| anyhow!("lock {DIRECTORY}: {errno}"))
}

fn read(path: &Path) -> Result<State> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged; remove it by hand", path.display()))
}

fn path_of(id: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{id}.json"))
}

struct Stat {
    state: char,
    start: u64,
}

/// Reads /proc/PID/stat (proc(5)). The command name may hold blanks and parentheses: fields count from the last `)`.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // `state` is field 3, so field 22 is 18 further on.
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::ProcessId;

    #[test]
    fn a_process_is_alive_until_it_exits_even_before_it_is_reaped() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let id = ProcessId::of(child.id(), "cat").unwrap();
        assert!(id.is_alive());
        let reused = ProcessId { start: id.start + 1, ..id.clone() };
        assert!(!reused.is_alive(), "another start time is another process");
        child.kill().unwrap();
        while id.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!id.is_alive());
    }
}

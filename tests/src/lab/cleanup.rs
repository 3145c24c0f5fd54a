//! Removing a lab: by its owner, on a signal, or by somebody else after the owner was killed. All three do the same
//! from the same record: processes, pins, namespaces (their links go with them), files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::Pid;

use super::netns;
use super::record::{self, ProcessId, Record, State};
use super::wait::wait_for;

/// The BPF file system, where directors pin their maps, programs and links.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Present when it was a lab that mounted [`BPFFS`].
const BPFFS_MARK: &str = "/run/lb-lab/bpffs-mounted";

/// Held while a signal ends this process.
static ENDING: Mutex<()> = Mutex::new(());
static LIVE: Mutex<Vec<Weak<Record>>> = Mutex::new(Vec::new());

/// Makes `record` known to [`install_signal_cleanup`].
pub(crate) fn watch(record: &Arc<Record>) {
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    live.retain(|known| known.strong_count() > 0);
    live.push(Arc::downgrade(record));
}

/// Removes every lab of this process when SIGINT, SIGTERM or SIGHUP arrives, then exits with status 130.
///
/// Starting a lab calls it. A program that has a handler of its own keeps it, and calls [`remove_own_labs`] there.
pub fn install_signal_cleanup() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // The only error is that a handler exists.
        let _ = ctrlc::set_handler(|| {
            // Never given back: whoever wants to end meanwhile waits for this thread to do it, see `give_way`.
            let _ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
            match remove_own_labs() {
                Ok(()) => eprintln!("\ninterrupted; the lab is removed"),
                Err(error) => eprintln!("\nlab: {error:#}"),
            }
            std::process::exit(130);
        });
    });
}

/// Waits for the end of this process if a signal is already ending it; returns at once otherwise. What fails then fails
/// because the lab is going away, and a process that exits by itself would cut the removal short.
pub fn give_way() {
    drop(ENDING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Removes every lab that this process still owns. They cannot be used afterwards.
///
/// # Errors
/// What could not be removed.
pub fn remove_own_labs() -> Result<()> {
    let records: Vec<_> =
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    let failures = records.iter().filter_map(|record| record.close()).filter_map(|state| remove(&state).err());
    one_error(failures.collect())
}

/// Removes labs that nobody owns: persistent ones and those whose owner is dead; with `only`, no other than that one.
/// Answers the ids of the removed labs.
///
/// # Errors
/// What could not be removed; everything else is removed nevertheless.
pub fn remove_unowned(only: Option<&str>) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut failures = Vec::new();
    for state in record::all()? {
        match state {
            Ok(state) if only.is_some_and(|id| id != state.id) => {}
            Ok(state) if state.persistent || state.is_leftover() => match remove(&state) {
                Ok(()) => removed.push(state.id),
                Err(error) => failures.push(error),
            },
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
    }
    one_error(failures)?;
    Ok(removed)
}

/// Removes all that `state` lists. Goes on after a failure, and keeps the record then, so that it can be tried again.
pub(crate) fn remove(state: &State) -> Result<()> {
    let mut failures = Vec::new();
    let mut note = |result: Result<()>| failures.extend(result.err());
    note(end_processes(state));
    for pins in &state.pins {
        note(remove_tree(pins));
    }
    for namespace in &state.namespaces {
        note(netns::remove(namespace));
    }
    note(remove_tree(&state.directory));
    one_error(failures).with_context(|| format!("lab {} was not removed completely", state.id))?;
    fs::remove_file(state.path()).with_context(|| format!("delete {}", state.path().display()))?;
    unmount_bpffs()
}

/// Mounts the BPF file system when the machine has none, and remembers that a lab did.
pub(crate) fn mount_bpffs() -> Result<()> {
    let _lock = record::lock_all()?;
    if is_bpffs()? {
        return Ok(());
    }
    mount(Some("bpffs"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mount the BPF file system on {BPFFS}"))?;
    fs::write(BPFFS_MARK, "").with_context(|| format!("write {BPFFS_MARK}"))
}

/// Unmounts what [`mount_bpffs`] mounted, once no lab is left and nothing is pinned in it.
fn unmount_bpffs() -> Result<()> {
    let _lock = record::lock_all()?;
    if !Path::new(BPFFS_MARK).exists() || !record::all()?.is_empty() {
        return Ok(());
    }
    if pins_exist()? {
        return Ok(());
    }
    if is_bpffs()? {
        umount(BPFFS).with_context(|| format!("unmount {BPFFS}"))?;
    }
    fs::remove_file(BPFFS_MARK).with_context(|| format!("delete {BPFFS_MARK}"))
}

fn pins_exist() -> Result<bool> {
    let mut pins = fs::read_dir(BPFFS).with_context(|| format!("list {BPFFS}"))?;
    // The kernel puts its own iterators, maps.debug and progs.debug, into a fresh mount.
    Ok(pins.any(|pin| pin.is_ok_and(|pin| !pin.file_name().as_encoded_bytes().ends_with(b".debug"))))
}

fn is_bpffs() -> Result<bool> {
    Ok(statfs(BPFFS).with_context(|| format!("statfs {BPFFS}"))?.filesystem_type() == BPF_FS_MAGIC)
}

/// Kills what the lab started, and whatever else runs inside its namespaces.
fn end_processes(state: &State) -> Result<()> {
    let mut targets = state.processes.clone();
    targets.extend(inside(&state.namespaces));
    targets.retain(ProcessId::is_alive);
    for target in &targets {
        let pid = i32::try_from(target.pid).context("pid out of range")?;
        // It may end by itself in this moment; the wait below tells.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    wait_for("end of the lab's processes", Duration::from_secs(10), || {
        targets.retain(ProcessId::is_alive);
        Ok(targets.is_empty().then_some(()))
    })
    .with_context(|| format!("still alive: {targets:?}"))
}

/// Finds the processes inside the named namespaces, this process excepted.
fn inside(namespaces: &[String]) -> Vec<ProcessId> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(own) = identity(Path::new("/proc/self/ns/net")) else { return Vec::new() };
    // A name that nothing is mounted on is a plain file on another device, which matches no process.
    let wanted: HashSet<_> =
        namespaces.iter().filter_map(|name| identity(&netns::path_of(name))).filter(|found| *found != own).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|ns| wanted.contains(&ns)))
        .filter_map(|pid| ProcessId::of(pid, "found in a namespace of the lab").ok())
        .collect()
}

pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn one_error(failures: Vec<anyhow::Error>) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let text: Vec<_> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    Err(anyhow!(text.join("; ")))
}

//! What the timer thread asks of the kernel for itself: to run before others, and memory that stays.
//!
//! Both are permissions (sched(7), mlock(2)); without them the thread does its best, and says so.

use std::io;

use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    resource::{RLIM_INFINITY, Resource, getrlimit},
};

/// Above ordinary threads; below what the kernel's own real-time threads use (50).
const PRIORITY: libc::c_int = 10;

/// What was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The thread runs under `SCHED_RR`; else why not.
    pub realtime: Option<String>,
    /// The process's memory is locked; else why not.
    pub locked: Option<String>,
}

/// Gives the calling thread real-time scheduling.
pub(super) fn schedule() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameters are valid; 0 is the calling thread.
    let done =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Locks what is mapped now, and what will be once it is touched.
///
/// Only without a limit: a process that runs into one loses allocations instead of time.
pub(super) fn lock_memory() -> io::Result<()> {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft != RLIM_INFINITY && !has_ipc_lock() {
        return Err(io::Error::other(format!("the limit is {} KiB (systemd: LimitMEMLOCK=infinity)", soft >> 10)));
    }
    // Everything that is there, the text of functions that never ran included: promoting must not wait for a disk.
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    let later = MlockAllFlags::MCL_FUTURE | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    Ok(mlockall(later)?)
}

/// `CAP_IPC_LOCK` is among the effective capabilities.
fn has_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits >> CAP_IPC_LOCK & 1 != 0
}

//! Where the programs run: a thread with a network and a mount table of its own, pinned to one CPU.
//!
//! Nothing here has a name outside, so the kernel removes it all with the thread, however that ends.

use std::{cell::Cell, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use super::frame::Mac;
use crate::ip;

/// Index of the port that every packet comes in by and leaves by.
pub(super) const PORT: u32 = 11;
/// The port's own link-layer address.
pub(super) const PORT_MAC: Mac = [2, 0, 0, 0, 1, 241];
/// The only neighbour: every route goes by way of it.
pub(super) const NEIGHBOUR_MAC: Mac = [2, 0, 0, 0, 1, 2];
/// Ports whose only task is to hold an XDP program, see [`Sandbox::stand`].
const STANDS: u32 = 16;
const FIRST_STAND: u32 = 100;

/// The surroundings of the programs. Exists only inside [`run`].
pub(super) struct Sandbox {
    pins: PathBuf,
    pin_dirs: Cell<u32>,
    stands: Cell<u32>,
}

/// Runs `work` in a sandbox on `cpu`.
pub(super) fn run<T: Send>(cpu: usize, work: impl FnOnce(&Sandbox) -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let sandbox = Sandbox::enter(cpu)?;
                work(&sandbox)
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Sandbox {
    fn enter(cpu: usize) -> Result<Self> {
        let mut cpus = CpuSet::new();
        cpus.set(cpu).with_context(|| format!("CPU {cpu}"))?;
        sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("run on CPU {cpu}"))?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare: run as root")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("detach the mounts")?;
        // The BPF file system's usual place is there on every kernel with BPF; ours covers it for this thread only.
        let pins = PathBuf::from("/sys/fs/bpf");
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), nothing)
            .with_context(|| format!("mount a BPF file system on {}", pins.display()))?;
        ip::batch(&network())?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("set ip_forward")?;
        Ok(Self { pins, pin_dirs: Cell::new(0), stands: Cell::new(0) })
    }

    /// A directory for the pins of one set of maps.
    pub(super) fn pin_dir(&self) -> Result<PathBuf> {
        let dir = self.pins.join(self.pin_dirs.replace(self.pin_dirs.get() + 1).to_string());
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// A port for an XDP program that is to be run with repeats. The kernel calls attached XDP programs through a
    /// table of direct jumps; a program that is not in it would be entered and taken out by every single run, at the
    /// price of a grace period each.
    pub(super) fn stand(&self) -> Result<u32> {
        let index = self.stands.replace(self.stands.get() + 1);
        ensure!(index < STANDS, "more than {STANDS} XDP programs");
        Ok(FIRST_STAND + index)
    }
}

/// `ip` commands for the port, its neighbour, and four routes, as a director would have.
fn network() -> String {
    let mac = |mac: Mac| mac.map(|b| format!("{b:02x}")).join(":");
    let mut batch = format!(
        "link set lo up
         link add port0 index {PORT} address {} type veth peer name far0
         addr add 10.80.1.241/24 dev port0
         link set port0 up
         link set far0 up
         neigh add 10.80.1.2 lladdr {} dev port0 nud permanent
         route add 192.168.80.0/24 via 10.80.1.2
         route add 172.20.0.0/16 via 10.80.1.2
         route add default via 10.80.1.2
        ",
        mac(PORT_MAC),
        mac(NEIGHBOUR_MAC)
    );
    for stand in 0..STANDS {
        batch += &format!("link add stand{stand} index {} type veth peer name side{stand}\n", FIRST_STAND + stand);
    }
    batch
}

/// The CPU to run on unless one is named: the last that this process may use.
pub(super) fn last_cpu() -> Result<usize> {
    let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).ok_or_else(|| anyhow!("no CPU"))
}

/// The time that this thread had a CPU: others' work on the machine does not count.
///
/// # Errors
///
/// When the kernel has no such clock.
pub fn cpu_time() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    ensure!(status == 0, "clock_gettime: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}

//! Named network namespaces: create, enter, remove. The names live in /run/netns, so iproute2 and nsenter see them.
//!
//! Entering is setns() on a thread or in a child before exec. `ip netns exec` is not used: it remounts /sys, which
//! hides the pins in /sys/fs/bpf (ip-netns(8), "ip netns exec").

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

const DIRECTORY: &str = "/run/netns";

/// A network namespace, held open. Dropping it closes the handle; [`remove`] deletes the name.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Creates a namespace under `name`: loopback down, IPv6 off, reverse-path filter off, forwarding off.
    pub(crate) fn create(name: &str) -> Result<Self> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("create {DIRECTORY}"))?;
        let path = path_of(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        // unshare() moves the calling thread, so a short-lived thread does it.
        let made = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<()> {
                    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                    quiet().context("set the namespace's sysctls")?;
                    mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                        .with_context(|| format!("bind the namespace to {}", path.display()))
                })
                .join()
                .map_err(|_| anyhow!("the thread that creates {name} panicked"))?
        });
        made?;
        Self::open(name)
    }

    /// Opens an existing namespace by name.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let path = path_of(name);
        let handle = File::open(&path).with_context(|| format!("open network namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace for good. Async-signal-safe: used between fork and exec too.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Returns a second handle for a closure that outlives `self`.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { name: self.name.clone(), handle: self.handle.try_clone()? })
    }

    /// Runs `work` on a thread of its own inside the namespace; threads that it starts are inside too.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter().with_context(|| format!("enter network namespace {}", self.name))?;
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Unmounts and deletes a namespace name. A name that does not exist is fine.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = path_of(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there, but nothing was mounted on it yet.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => return Err(errno).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where the name of a namespace lives.
pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// IPv4 settings are copied from the machine into a new namespace, so whatever the lab depends on is written.
fn quiet() -> Result<()> {
    const SETTINGS: [(&str, &str); 9] = [
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/ip_forward", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // br_netfilter would push the switch's frames through the IP hooks.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ];
    for (key, value) in SETTINGS {
        let path = Path::new("/proc/sys/net").join(key);
        // A kernel without IPv6 or br_netfilter has nothing to switch off.
        if path.exists() {
            fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))?;
        }
    }
    Ok(())
}

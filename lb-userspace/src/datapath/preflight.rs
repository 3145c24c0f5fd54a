//! What must hold before anything is loaded: capabilities, kernel features, a BPF file system.
//!
//! Owns the checks and their messages; changes nothing. Probing beats comparing kernel versions, so only what no
//! probe can tell before the attempt is left to `attach`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{maps::MapType, sys::is_map_supported};
use nix::sys::statfs;

use super::error::{Error, Result};

/// Number, name and what the capability is for, from `include/uapi/linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Before 5.8, and still, it stands for the two newer ones.
const CAP_SYS_ADMIN: u32 = 21;

/// Checks capabilities, kernel features and the file system of the pin directory.
pub(super) fn check(pin_root: &Path) -> Result<()> {
    capabilities()?;
    features()?;
    bpffs(pin_root)
}

pub(super) fn capabilities() -> Result<()> {
    const STATUS: &str = "/proc/thread-self/status";
    let status = fs::read_to_string(STATUS).map_err(Error::io(format!("read {STATUS}")))?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() { Ok(()) } else { Err(Error::Capabilities { missing }) }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    CAPABILITIES
        .into_iter()
        .filter(|(bit, _)| !has(*bit) && (*bit == 12 || !has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

fn features() -> Result<()> {
    let probe = |map_type| {
        is_map_supported(map_type).map_err(|error| match error.io_error.raw_os_error() {
            Some(libc::ENOSYS) => Error::Feature { what: "bpf(2) (CONFIG_BPF_SYSCALL); use 6.1 or newer".to_owned() },
            _ => Error::Io { what: "probe the kernel's map types".to_owned(), source: error.io_error },
        })
    };
    let lacks = |what: &str| Err(Error::Feature { what: what.to_owned() });
    if !probe(MapType::RingBuf)? {
        return lacks("BPF ring buffers (since 5.8; 6.1 is the oldest supported kernel)");
    }
    if !probe(MapType::LruHash)? {
        return lacks("BPF LRU hash maps");
    }
    if aya::features().btf().is_none() {
        return lacks("BPF type information (CONFIG_DEBUG_INFO_BTF)");
    }
    Ok(())
}

/// Checks that `dir`, or the nearest of its parents that exists, is on a BPF file system.
pub(super) fn bpffs(dir: &Path) -> Result<()> {
    let existing = existing(dir);
    let found = statfs::statfs(&existing)
        .map_err(|errno| {
            Error::io(format!("look at the file system of {}", existing.display()))(io::Error::from(errno))
        })?
        .filesystem_type();
    if found == statfs::BPF_FS_MAGIC {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    let mount_point = if dir.starts_with(usual) { usual.to_owned() } else { existing };
    Err(Error::NotBpffs { dir: dir.to_owned(), mount_point })
}

fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\nCapBnd:\t0\n");
        assert_eq!(missing_capabilities(&status(1 << 12 | 1 << 38 | 1 << 39)), Vec::<&str>::new());
        assert_eq!(missing_capabilities(&status(1 << 12 | 1 << 21)), Vec::<&str>::new());
        assert_eq!(missing_capabilities(&status(1 << 21)), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(&status(1 << 12 | 1 << 39)), ["CAP_PERFMON"]);
        assert_eq!(missing_capabilities(&status(0)), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    }

    #[test]
    fn a_directory_that_is_not_on_bpffs_is_refused() {
        let error = bpffs(Path::new("/proc/lb/v1")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf /proc"), "{error}");
    }
}

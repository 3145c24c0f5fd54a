//! Facts about this machine: who runs us, what the kernel lets them do, and what is mounted.
//! Read from procfs (proc(5)); decides nothing.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

/// Bits of `CapEff`, from include/uapi/linux/capability.h.
const CAPS: [(u32, &str); 5] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// What the kernel says about this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Privileges {
    /// The effective user id is 0.
    pub(crate) root: bool,
    /// The effective capabilities, one bit each.
    caps: u64,
}

impl Privileges {
    /// Reads `/proc/self/status`.
    pub(crate) fn read() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
        Self::parse(&status).context("/proc/self/status has no Uid or CapEff line")
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // Uid: real, effective, saved, file system
        let uid = field("Uid")?.split_whitespace().nth(1)?;
        let caps = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
        Some(Self { root: uid == "0", caps })
    }

    /// What keeps this process from loading packet paths and making namespaces, in words; None if nothing does.
    pub(crate) fn lacks(&self) -> Option<String> {
        if !self.root {
            return Some("not root".into());
        }
        let caps = self.missing_caps();
        (!caps.is_empty()).then(|| format!("root without {}", caps.join(", ")))
    }

    /// Which of the capabilities that packet paths and namespaces need are missing. A container's root often lacks some.
    fn missing_caps(&self) -> Vec<&'static str> {
        CAPS.iter().filter(|(bit, _)| self.caps >> bit & 1 == 0).map(|(_, name)| *name).collect()
    }
}

/// Whether a BPF file system is mounted at `/sys/fs/bpf`.
pub(crate) fn bpffs_mounted() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| has_bpffs(&mounts))
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    })
}

/// Whether a network namespace can be made. Some containers forbid it to their root.
pub(crate) fn can_make_netns() -> bool {
    Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|output| output.status.success())
}

/// Whether packages are installed with apt here.
pub(crate) fn has_apt() -> bool {
    fs::exists("/usr/bin/apt-get").unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{Privileges, has_bpffs};

    const STATUS: &str = "Name:\tcat\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t000001fffeffffff\n";

    #[test]
    fn root_with_all_but_sys_resource_may_do_everything_we_need() {
        let privileges = Privileges::parse(STATUS).expect("both lines are there");
        assert!(privileges.root, "the second Uid is the effective one");
        assert!(privileges.missing_caps().is_empty());
    }

    #[test]
    fn the_root_of_a_container_lacks_what_its_mask_lacks() {
        let status = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n";
        let privileges = Privileges::parse(status).expect("both lines are there");
        assert_eq!(privileges.missing_caps(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    }

    #[test]
    fn a_user_is_not_root_whatever_the_group() {
        let status = STATUS.replace("1000\t0\t0\t0\nG", "1000\t1000\t1000\t1000\nG");
        assert!(!Privileges::parse(&status).expect("both lines are there").root);
        assert_eq!(Privileges::parse("Name:\tcat\n"), None);
    }

    #[test]
    fn only_a_bpf_mount_at_the_usual_place_counts() {
        assert!(has_bpffs("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n"));
        assert!(!has_bpffs("bpf /run/other bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}

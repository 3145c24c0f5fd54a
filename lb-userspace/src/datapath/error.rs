//! What can go wrong between the agent and the kernel, said with the remedy.
//!
//! Owns the error type of the whole module. Every message names the thing (file, map, interface) and, where there is
//! one, the command that helps.

use std::{fmt, io, path::PathBuf};

use lb_common::Invalid;

/// The result of everything in [`crate::datapath`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the packet path could not be loaded, attached, read or written.
#[derive(Debug)]
pub enum Error {
    /// The pin directory is not on a BPF file system.
    NotBpffs {
        /// The directory that should be on one.
        dir: PathBuf,
        /// Where to mount it.
        mount_point: PathBuf,
    },
    /// The process lacks capabilities.
    Capabilities {
        /// Their names, as in capabilities(7).
        missing: Vec<&'static str>,
    },
    /// The kernel lacks something that the packet path cannot do without.
    Feature {
        /// What is missing, and the kernel version or option that brings it.
        what: String,
    },
    /// An interface of the config does not exist.
    NoInterface {
        /// The name in the config.
        name: String,
        /// The interfaces that do exist.
        known: Vec<String>,
    },
    /// Another program occupies the XDP hook of an interface.
    XdpBusy {
        /// The interface.
        interface: String,
        /// The id of the other program, when the kernel tells it.
        program: Option<u32>,
    },
    /// The kernel refused to attach a program.
    Attach {
        /// The interface.
        interface: String,
        /// The hook, as in the config's `mode`.
        hook: &'static str,
        /// What helps.
        remedy: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process holds the pin directory.
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A pinned map is not what this build works with.
    PinMismatch {
        /// The pin.
        path: PathBuf,
        /// What differs, with both values.
        what: String,
    },
    /// A map holds bytes that are no value of its type.
    Invalid {
        /// The map.
        map: &'static str,
        /// The key of the entry, printed.
        key: String,
        /// The byte.
        source: Invalid,
    },
    /// A map has no room for another entry.
    Full {
        /// The map.
        map: &'static str,
        /// Its capacity.
        capacity: u32,
    },
    /// The desired services do not fit the tables.
    Plan(String),
    /// The eBPF object is unusable.
    Object {
        /// What was tried.
        what: String,
        /// What the loader said.
        why: String,
    },
    /// A system call failed.
    Io {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// A failed system call, with what it was for.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A refusal of the loader, with the whole chain of its reasons.
    pub(super) fn object(what: impl Into<String>, why: &dyn std::error::Error) -> Self {
        let mut text = why.to_string();
        let mut next = why.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        Self::Object { what: what.into(), why: text }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBpffs { dir, mount_point } => write!(
                f,
                "{} is not on a BPF file system, so nothing can be pinned there; mount one: mount -t bpf bpf {}",
                dir.display(),
                mount_point.display()
            ),
            Self::Capabilities { missing } => write!(
                f,
                "missing {}; run as root, or grant it (systemd: AmbientCapabilities=, docker: --cap-add)",
                missing.join(", ")
            ),
            Self::Feature { what } => write!(f, "this kernel lacks {what}"),
            Self::NoInterface { name, known } => write!(
                f,
                "interface {name:?} does not exist; interfaces here: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ),
            Self::XdpBusy { interface, program: Some(id) } => write!(
                f,
                "{interface} already runs XDP program {id}, and an interface takes only one; look at it with \
                 `bpftool prog show id {id}`, detach it with `ip link set {interface} xdp off` (or remove its link), \
                 or set mode = \"tc\""
            ),
            Self::XdpBusy { interface, program: None } => write!(
                f,
                "{interface} already runs another XDP program, and an interface takes only one; look for it with \
                 `bpftool net show dev {interface}`, or set mode = \"tc\""
            ),
            Self::Attach { interface, hook, remedy, source } => {
                write!(f, "cannot attach to {interface} ({hook}): {source}; {remedy}")
            }
            Self::Locked { dir } => write!(
                f,
                "another process uses {}; stop that agent first, or give this one its own agent.pin_dir",
                dir.display()
            ),
            Self::PinMismatch { path, what } => write!(
                f,
                "{} was pinned by an incompatible build: {what}; `lb-agent unload` removes it together with all conns",
                path.display()
            ),
            Self::Invalid { map, key, source } => write!(f, "map {map}, entry {key}: {source}"),
            Self::Full { map, capacity } => write!(f, "map {map} is full ({capacity} entries)"),
            Self::Plan(why) => f.write_str(why),
            Self::Object { what, why } => write!(f, "{what}: {why}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Attach { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Invalid { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_thing_and_the_remedy() {
        let text = Error::NotBpffs { dir: "/sys/fs/bpf/lb".into(), mount_point: "/sys/fs/bpf".into() }.to_string();
        assert!(text.contains("mount -t bpf bpf /sys/fs/bpf") && text.contains("/sys/fs/bpf/lb"), "{text}");
        let text = Error::XdpBusy { interface: "eth0".into(), program: Some(7) }.to_string();
        assert!(text.contains("bpftool prog show id 7"), "{text}");
        let text = Error::NoInterface { name: "eth9".into(), known: vec!["lo".into(), "eth0".into()] }.to_string();
        assert!(text.contains("\"eth9\"") && text.contains("lo, eth0"), "{text}");
    }
}

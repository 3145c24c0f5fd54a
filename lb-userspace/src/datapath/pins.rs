//! The versioned pin directory: who may use it, and what is in it.
//!
//! The lock is a flock(2) on the directory itself: bpffs refuses files, but its directories can be locked, so the lock
//! is the same for every process that could touch the pins, whatever its runtime directory.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lb_common::abi;

use super::{
    bpf::{self, MapInfo},
    error::{Error, Result},
    mode::Hook,
    tables::MapSpec,
};

/// The pin directory of this build below `root`.
#[must_use]
pub fn versioned(root: &Path) -> PathBuf {
    root.join(format!("v{}", abi::ABI_VERSION))
}

/// A pin directory that no other process of ours uses while this lives.
#[derive(Debug)]
pub(super) struct PinDir {
    path: PathBuf,
    _lock: File,
}

impl PinDir {
    /// Creates the directory if it is missing and locks it; `created` gets what was created, in that order.
    pub(super) fn create(path: PathBuf, created: &mut Vec<PathBuf>) -> Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            match fs::create_dir(dir) {
                Ok(()) => created.push(dir.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let dots =
                        if dir.to_string_lossy().contains('.') { " (bpffs allows no dots in names)" } else { "" };
                    return Err(Error::io(format!("create {}{dots}", dir.display()))(error));
                }
            }
        }
        Self::lock(path)
    }

    /// Locks an existing directory.
    pub(super) fn lock(path: PathBuf) -> Result<Self> {
        let failed = || Error::io(format!("lock {}", path.display()));
        let lock = File::open(&path).map_err(failed())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { dir: path }),
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        // An `unload` may have removed the directory between open and lock.
        let same = fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|locked| locked.ino() == now.ino()));
        if same { Ok(Self { path, _lock: lock }) } else { Err(Error::Locked { dir: path }) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the link of an interface's hook is pinned.
    pub(super) fn link(&self, interface: &str, hook: Hook) -> PathBuf {
        self.path.join(link_name(interface, hook))
    }

    /// Every link pin of the directory.
    pub(super) fn links(&self) -> Result<Vec<LinkPin>> {
        link_pins(&self.path)
    }
}

/// A link that is pinned in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkPin {
    pub(super) path: PathBuf,
    pub(super) interface: String,
    /// "xdp" or "tc".
    pub(super) hook: String,
}

pub(super) fn link_pins(dir: &Path) -> Result<Vec<LinkPin>> {
    let failed = || Error::io(format!("read {}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if let Some((interface, hook)) = parse_link_name(&entry.file_name().to_string_lossy()) {
            found.push(LinkPin { path: entry.path(), interface, hook });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// `link_eth0_xdp`. bpffs allows no dots, which names of VLAN interfaces have.
fn link_name(interface: &str, hook: Hook) -> String {
    let hook = if hook == Hook::Tc { "tc" } else { "xdp" };
    let escaped = interface.replace('%', "%25").replace('.', "%2e");
    format!("link_{escaped}_{hook}")
}

fn parse_link_name(name: &str) -> Option<(String, String)> {
    let (escaped, hook) = name.strip_prefix("link_")?.rsplit_once('_')?;
    Some((escaped.replace("%2e", ".").replace("%25", "%"), hook.to_owned()))
}

/// What a pinned map means for this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Adoption {
    /// Nothing is pinned: the map will be made.
    Missing,
    /// The map has the right shape; its size is the one to work with.
    Adopt {
        /// Its capacity.
        max_entries: u32,
    },
}

/// Looks at a pin before the loader uses it, because the loader takes whatever it finds.
pub(super) fn inspect(path: &Path, spec: &MapSpec) -> Result<Adoption> {
    match bpf::Map::open(path) {
        Ok(map) => compare(map.info(), spec)
            .map(|()| Adoption::Adopt { max_entries: map.info().max_entries })
            .map_err(|what| Error::PinMismatch { path: path.to_owned(), what }),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Adoption::Missing),
        Err(error) => Err(Error::io(format!("open {}", path.display()))(error)),
    }
}

/// Tells what makes a map unusable: everything but its capacity.
fn compare(found: &MapInfo, spec: &MapSpec) -> Result<(), String> {
    if found.name != spec.name {
        return Err(format!("it is the map {:?}", found.name));
    }
    for (what, found, wanted) in [
        ("type", found.map_type, spec.map_type),
        ("key size", found.key_size, spec.key_size),
        ("value size", found.value_size, spec.value_size),
    ] {
        if found != wanted {
            return Err(format!("{what} {found} instead of {wanted}"));
        }
    }
    Ok(())
}

/// Removes a pin or an empty directory; a missing one is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::tables::TableSizes;

    #[test]
    fn link_pins_name_their_interface() {
        for interface in ["eth0", "bond0.100", "a_b_c", "x%2e"] {
            for (hook, name) in [(Hook::XdpNative, "xdp"), (Hook::XdpGeneric, "xdp"), (Hook::Tc, "tc")] {
                let pin = link_name(interface, hook);
                assert!(!pin.contains('.'), "{pin}");
                assert_eq!(parse_link_name(&pin), Some((interface.to_owned(), name.to_owned())));
            }
        }
        assert_eq!(parse_link_name("conns"), None);
    }

    #[test]
    fn only_the_capacity_of_a_pinned_map_may_differ() {
        let spec = TableSizes::default().specs()[4];
        let info = MapInfo {
            map_type: spec.map_type,
            id: 1,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: 1,
            name: spec.name.to_owned(),
        };
        assert_eq!(compare(&info, &spec), Ok(()));
        let wrong = MapInfo { value_size: 56, ..info.clone() };
        assert_eq!(compare(&wrong, &spec).unwrap_err(), "value size 56 instead of 64");
        assert!(compare(&MapInfo { map_type: 9, ..info.clone() }, &spec).is_err());
        assert!(compare(&MapInfo { name: "half_open".into(), ..info }, &spec).is_err());
    }
}

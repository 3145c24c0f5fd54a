//! What the operator changed at run time: it wins over the config, and outlives a restart of the agent, not of the host.
//!
//! Kept in a JSON file beside the control socket: on a tmpfs, like the tables it belongs to, and like them not tied to
//! the process.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The change of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// It takes no new conns.
    #[serde(default)]
    pub(super) drain: bool,
    /// When the kernel's clock, in nanoseconds since the host's boot, says that what is left of the drain is reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drain_until: Option<u64>,
    /// It is out of everything.
    #[serde(default)]
    pub(super) disabled: bool,
    /// Its weight instead of the config's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u16>,
}

/// All changes, by service and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Overrides(BTreeMap<String, BTreeMap<SocketAddrV4, Change>>);

impl Overrides {
    /// The change of a backend; none if there is none.
    pub(super) fn get(&self, service: &str, backend: SocketAddrV4) -> Change {
        self.0.get(service).and_then(|backends| backends.get(&backend)).copied().unwrap_or_default()
    }

    /// All changes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SocketAddrV4, Change)> {
        self.0.iter().flat_map(|(service, backends)| {
            backends.iter().map(move |(backend, change)| (service.as_str(), *backend, *change))
        })
    }

    /// Sets the change of a backend.
    pub(super) fn set(&mut self, service: &str, backend: SocketAddrV4, change: Change) {
        let backends = self.0.entry(service.to_owned()).or_default();
        if change == Change::default() {
            backends.remove(&backend);
        } else {
            backends.insert(backend, change);
        }
        self.0.retain(|_, backends| !backends.is_empty());
    }

    /// Reads what an earlier agent with the same control socket kept.
    pub(super) fn load(control_socket: &Path) -> Self {
        let path = file(control_socket);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read the operator's changes: starting without them");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "the operator's changes are unreadable: starting without them");
            Self::default()
        })
    }

    /// Keeps the changes for the next agent: the file is the old one or the new one, never a part.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn store(&self, control_socket: &Path) -> Result<()> {
        let path = file(control_socket);
        let new = path.with_extension("new");
        let text = serde_json::to_vec(self).context("encode the operator's changes")?;
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }
}

/// Removes the file, with the tables it belongs to.
pub(super) fn forget(control_socket: &Path) {
    let path = file(control_socket);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "cannot remove the operator's changes");
    }
}

fn file(control_socket: &Path) -> PathBuf {
    let mut name = control_socket.as_os_str().to_owned();
    name.push(".changes.json");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_outlive_the_agent_and_a_broken_file_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let backend = "192.168.80.167:3306".parse().unwrap();
        let change = Change { drain: true, weight: Some(3), ..Change::default() };
        let mut overrides = Overrides::load(&socket);
        overrides.set("mysql", backend, change);
        overrides.store(&socket).unwrap();
        assert_eq!(Overrides::load(&socket).get("mysql", backend), change);
        assert_eq!(Overrides::load(&socket).get("other", backend), Change::default());

        fs::write(file(&socket), "{").unwrap();
        assert_eq!(Overrides::load(&socket), Overrides::default());
        forget(&socket);
        forget(&socket);
        assert!(!file(&socket).exists());
    }

    #[test]
    fn undoing_a_change_leaves_nothing() {
        let backend = "192.168.80.167:3306".parse().unwrap();
        let mut overrides = Overrides::default();
        overrides.set("mysql", backend, Change { drain: true, ..Change::default() });
        overrides.set("mysql", backend, Change::default());
        assert_eq!(overrides, Overrides::default());
    }
}

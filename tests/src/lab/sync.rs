//! Connection sync of a lab's directors: the key that both share, the config section, and what `lbctl peer` says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_userspace::control::protocol::SyncView;

use super::Lab;
use super::agent::binary;
use super::director::Director;
use super::wait::wait_for;

/// The `[sync]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOptions {
    /// The key file of both directors; `None`: unprotected.
    pub key_file: Option<PathBuf>,
    /// Frames go to the peer's address instead of the group.
    pub unicast: bool,
    /// More lines: `wait`, `refresh`, …
    pub extra: String,
}

impl SyncOptions {
    pub(crate) fn toml(&self) -> String {
        let mut text = String::from("[sync]\ninterface = \"sync0\"\n");
        let _ = match &self.key_file {
            Some(path) => writeln!(text, "key_file = {:?}", path.display().to_string()),
            None => writeln!(text, "insecure = true"),
        };
        if self.unicast {
            let _ = writeln!(text, "peer = \"unicast\"");
        }
        if !self.extra.is_empty() {
            let _ = writeln!(text, "{}", self.extra.trim());
        }
        text
    }

    /// Adds lines to the section.
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.extra);
        self
    }
}

impl Lab {
    /// Sync over the group, with a key that `lb-agent keygen` makes once for this lab.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn sync_options(&self) -> Result<SyncOptions> {
        let path = self.directory().join("sync.key");
        if !path.exists() {
            self.keygen(&path)?;
        }
        Ok(SyncOptions { key_file: Some(path), unicast: false, extra: String::new() })
    }

    /// Makes a key file with `lb-agent keygen`.
    ///
    /// # Errors
    /// When it refuses, with what it said.
    pub fn keygen(&self, path: &Path) -> Result<()> {
        let program = binary("lb-agent")?.display().to_string();
        let output = self.switch().run(&[&program, "keygen", &path.display().to_string()])?;
        ensure!(output.status.success(), "keygen: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Waits until both directors say that either may be taken down: they have the same conns.
    ///
    /// # Errors
    /// When that does not come true within `limit`; the message holds what they said last.
    pub fn wait_until_safe(&self, limit: Duration) -> Result<()> {
        let mut said = Vec::new();
        wait_for("directors of which either may be taken down", limit, || {
            said.clear();
            for director in self.directors() {
                said.push(director.peer()?);
            }
            Ok(said.iter().all(|view| view.safe.this && view.safe.peer).then_some(()))
        })
        .with_context(|| {
            let answers = said.iter().map(|view| format!("{}: {} ({})", view.node, view.safe.answer, view.state));
            answers.collect::<Vec<_>>().join("; ")
        })
    }
}

impl Director {
    /// What `lbctl peer` says.
    ///
    /// # Errors
    /// When there is no agent or no sync.
    pub fn peer(&self) -> Result<SyncView> {
        self.ctl(&["peer"])
    }
}

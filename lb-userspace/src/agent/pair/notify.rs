//! The operator's hook: one program, run for every change of the role, one after the other, with JSON on its standard
//! input. It gets a bounded time, and nothing waits for it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::Serialize;
use tokio::{io::AsyncWriteExt, process::Command, sync::mpsc, task::JoinHandle, time::timeout};
use tracing::{info, warn};

use crate::agent::supervisor;

/// The longest run.
const LIMIT: Duration = Duration::from_secs(10);
/// Changes that may wait for a slow hook; further ones are not told.
const WAITING: usize = 64;

/// What the hook is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    /// This director.
    pub(super) node: String,
    /// What it is now.
    pub(super) role: &'static str,
    /// What it was.
    pub(super) was: &'static str,
    /// Why.
    pub(super) cause: String,
}

/// The queue in front of the hook.
#[derive(Debug)]
pub(super) struct Hook {
    changes: mpsc::Sender<Change>,
    worker: JoinHandle<()>,
}

impl Hook {
    pub(super) fn start(program: PathBuf) -> Self {
        let (changes, mut waiting) = mpsc::channel::<Change>(WAITING);
        let worker = tokio::spawn(async move {
            while let Some(change) = waiting.recv().await {
                match timeout(LIMIT, run(&program, &change)).await {
                    Ok(Ok(())) => info!(hook = %program.display(), role = change.role, "told"),
                    Ok(Err(error)) => warn!(hook = %program.display(), role = change.role, error, "the hook failed"),
                    Err(_) => warn!(hook = %program.display(), role = change.role, "the hook took too long: killed"),
                }
            }
        });
        Self { changes, worker }
    }

    pub(super) fn tell(&self, change: &Change) {
        if self.changes.try_send(change.clone()).is_err() {
            warn!(role = change.role, "the hook is too slow: a change of the role is not told");
        }
    }

    /// Waits until everything is told.
    pub(super) async fn finish(self) {
        drop(self.changes);
        // A panic has been printed.
        let _ = self.worker.await;
    }
}

async fn run(program: &PathBuf, change: &Change) -> Result<(), String> {
    let mut line = serde_json::to_vec(change).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    supervisor::VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command.spawn().map_err(|error| format!("cannot run it: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read has its reasons.
        let _ = stdin.write_all(&line).await;
    }
    let status = child.wait().await.map_err(|error| format!("cannot wait for it: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("it ended with {status}")) }
}

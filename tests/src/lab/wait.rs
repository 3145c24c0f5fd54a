//! The lab's clock: the one place that reads it, and the bounded wait that everything slow goes through.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Returns the current instant. The workspace bans the call elsewhere, because protocol cores take `now`.
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the lab drives real processes, so it lives in real time")]
    Instant::now()
}

/// Calls `probe` every 5 ms until it answers `Some`.
///
/// # Errors
/// The probe's own error at once, or a message naming `what` when `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            bail!("{what}: not there after {limit:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

//! The disk below an agent's log, as a pipe: while it is stalled, whoever writes a line waits, as on a disk that has
//! stopped answering. The lines still end up in a file, `agent.read.log`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::director::Director;

const LOOK: Duration = Duration::from_millis(5);

/// The log of an agent that is started after this.
#[derive(Debug)]
pub struct SlowLog {
    pipe: File,
    stalled: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowLog {
    /// Puts the pipe where the agent's log goes. No agent must have run on the director.
    ///
    /// # Errors
    /// When there is a log already.
    pub fn put_under(director: &Director) -> Result<Self> {
        let path = director.host().directory().join("agent.log");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(|| format!("make the pipe {}", path.display()))?;
        // Open for both, so that neither side ever waits for the other to come, or sees it go.
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let pipe = options.open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut reader = pipe.try_clone()?;
        let kept = path.with_extension("read.log");
        let mut kept = File::create(&kept).with_context(|| format!("create {}", kept.display()))?;
        let (stalled, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (waits, ends) = (Arc::clone(&stalled), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 64 << 10];
            while !ends.load(Ordering::Relaxed) {
                let read = if waits.load(Ordering::Relaxed) { 0 } else { reader.read(&mut buffer).unwrap_or(0) };
                match read {
                    0 => thread::sleep(LOOK),
                    length => drop(kept.write_all(&buffer[..length])),
                }
            }
        });
        Ok(Self { pipe, stalled, stop, thread: Some(thread) })
    }

    /// Stalls it: from now on not one byte more goes in.
    ///
    /// # Errors
    /// When the pipe fails.
    pub fn stall(&mut self) -> Result<()> {
        self.stalled.store(true, Ordering::Relaxed);
        // What the reader has begun.
        thread::sleep(LOOK * 4);
        // Whole pages first, then what is left of the last one.
        for size in [4096, 1] {
            loop {
                match self.pipe.write(&[b'\n'; 4096][..size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("fill the log's pipe"),
                }
            }
        }
        Ok(())
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        self.stalled.store(false, Ordering::Relaxed);
    }
}

impl Drop for SlowLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

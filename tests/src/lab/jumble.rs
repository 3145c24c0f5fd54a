//! A path between both directors on which frames overtake each other and come twice: a relay between their ports of the
//! switch, in place of the bridge. (The kernels at hand have no netem.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Lab;
use super::disturb::{Disturbance, Loss};
use super::segment::{Segment, port};
use super::tap::packet_socket;
use super::wait::now;
use crate::chance::Chance;

/// Every protocol; and only sockets for all see what comes into a bridge's port.
const EVERY: u16 = libc::ETH_P_ALL as u16;
/// So many of a hundred frames are held up, each for up to [`LONGEST`], and so many come twice.
const LATE: u64 = 40;
const TWICE: u64 = 30;
const LONGEST: Duration = Duration::from_millis(40);
/// How often the relay looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// The header that travels with a frame, and the longest frame.
const LARGEST: usize = 70_000;

/// What the relay has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jumbled {
    /// Frames that came.
    pub frames: u64,
    /// Of them, those that left after one that came later.
    pub overtaken: u64,
    /// Frames that left twice.
    pub twice: u64,
}

/// The running relay. Dropping it gives the path back to the bridge.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Jumble {
    stop: Arc<AtomicBool>,
    relay: Option<JoinHandle<Result<Jumbled>>>,
    cut: Option<Disturbance>,
}

impl Lab {
    /// Lets the directors' frames in a segment overtake each other, and some of them come twice.
    ///
    /// # Errors
    /// When the switch cannot be changed.
    pub fn jumble_between_directors(&self, segment: Segment) -> Result<Jumble> {
        let open = |director: &super::Director| {
            let port = port(director.host().name(), segment.director_interface());
            self.switch.enter(|| packet_socket(&port, EVERY)).with_context(|| format!("relay at {port}"))
        };
        let [one, other] = self.directors() else { return Err(anyhow!("a path has two ends")) };
        let ends = [open(one)?, open(other)?];
        // The relay sees frames before the bridge does, which gets none.
        let cut = self.lose_between_directors(segment, Loss::All)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let relay = thread::spawn(move || Relay::new(ends).run(&stopped));
        Ok(Jumble { stop, relay: Some(relay), cut: Some(cut) })
    }
}

impl Jumble {
    /// Ends it; answers what it has done.
    ///
    /// # Errors
    /// When it failed, or the switch cannot be put right.
    pub fn end(mut self) -> Result<Jumbled> {
        let done = self.stop();
        self.cut.take().map_or(Ok(()), Disturbance::end)?;
        done.context("it was ended before")?
    }

    fn stop(&mut self) -> Option<Result<Jumbled>> {
        self.stop.store(true, Ordering::Release);
        self.relay.take().map(|relay| relay.join().map_err(|_| anyhow!("the relay panicked"))?)
    }
}

impl Drop for Jumble {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.stop() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// A frame that is held up: until when, in which order it came, to which end it goes.
type Held = (Instant, u64, usize, Vec<u8>);

struct Relay {
    ends: [OwnedFd; 2],
    chance: Chance,
    held: BinaryHeap<Reverse<Held>>,
    /// The last frame that left towards each end.
    newest: [u64; 2],
    done: Jumbled,
}

impl Relay {
    fn new(ends: [OwnedFd; 2]) -> Self {
        Self { ends, chance: Chance::new(1), held: BinaryHeap::new(), newest: [0; 2], done: Jumbled::default() }
    }

    fn run(mut self, stop: &AtomicBool) -> Result<Jumbled> {
        let mut buffer = vec![0; LARGEST];
        while !stop.load(Ordering::Acquire) {
            self.wait()?;
            for from in 0..2 {
                while let Some(length) = receive(&self.ends[from], &mut buffer)? {
                    self.take(&buffer[..length], 1 - from);
                }
            }
            self.release(now())?;
        }
        Ok(self.done)
    }

    fn take(&mut self, frame: &[u8], to: usize) {
        self.done.frames += 1;
        let copies = 1 + u64::from(self.chance.below(100) < TWICE);
        self.done.twice += copies - 1;
        for _ in 0..copies {
            let late = self.chance.below(100) < LATE;
            let micros = if late { self.chance.below(LONGEST.as_micros() as u64) } else { 0 };
            let due = now() + Duration::from_micros(micros);
            self.held.push(Reverse((due, self.done.frames, to, frame.to_vec())));
        }
    }

    fn release(&mut self, now: Instant) -> Result<()> {
        while self.held.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, number, to, frame))) = self.held.pop() else { break };
            self.done.overtaken += u64::from(number < self.newest[to]);
            self.newest[to] = self.newest[to].max(number);
            send(&self.ends[to], &frame)?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let next = self.held.peek().map_or(LOOK, |Reverse((due, ..))| due.saturating_duration_since(now()));
        let millis = next.min(LOOK).as_micros().div_ceil(1000) as i32;
        let readable = |end: &OwnedFd| libc::pollfd { fd: end.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut ends = [readable(&self.ends[0]), readable(&self.ends[1])];
        // SAFETY: two of them, as announced.
        let result = unsafe { libc::poll(ends.as_mut_ptr(), 2, millis) };
        ensure!(result >= 0 || interrupted(), "the relay: wait: {}", io::Error::last_os_error());
        Ok(())
    }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

/// Length of the next frame; `None`: there is none.
fn receive(end: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>> {
    // SAFETY: the buffer is valid for writes of its length.
    let length = unsafe { libc::recv(end.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    if let Ok(length) = usize::try_from(length) {
        return Ok(Some(length));
    }
    match io::Error::last_os_error() {
        // The director's end is down.
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN)) => Ok(None),
        error => Err(error).context("the relay: receive"),
    }
}

fn send(end: &OwnedFd, frame: &[u8]) -> Result<()> {
    // SAFETY: the frame is valid for reads of its length.
    let sent = unsafe { libc::send(end.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    if sent >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // The director's end is down, or its queue is full: the frame is lost like any other.
        error if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS | libc::EINTR)) => Ok(()),
        error => Err(error).context("the relay: send"),
    }
}

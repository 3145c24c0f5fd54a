//! The sync at work: one thread that owns the socket and the packet path's table, together with the core.
//!
//! A thread of its own and no task: heartbeats must not wait for others, nor the packet path's event ring. It reads the
//! clock; nothing else here does. What the table is, [`Table`] says; the agent brings it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    Action, Beat, Bell, Config, ConfigError, Event, Input, Key, Line, Notice, Peer, Replication, Stalled, Status,
    Tenths, Write,
};

/// How long the event ring does not wake the thread again: the latency of a change among many, and what they cost.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest time without a turn.
const TURN: Duration = Duration::from_millis(250);
/// Datagrams taken in before anything else is done, and bytes of them: conns of a bulk for about a millisecond.
const DATAGRAMS: usize = 256;
const BYTES: usize = 48 << 10;
/// Frames sent before anything else is done.
const FRAMES: usize = 256;
/// The pause after a slice of the table as a multiple of its work, if nothing waits for it.
const PAUSE_PER_WORK: u32 = 19;
/// How often a socket that could not be opened, or has failed, is tried anew.
const AGAIN: Duration = Duration::from_secs(1);
/// Writes carried out at once.
const WRITES: usize = 4096;

/// What is told to the core.
pub type Tell<'a> = dyn FnMut(Input<'static>) + 'a;

/// The packet path's table of conns, and what it says of itself.
pub trait Table: Send + 'static {
    /// Readable when there is something for [`Self::changes`] to tell.
    fn ring(&self) -> BorrowedFd<'_>;

    /// Tells what has changed since the last call.
    fn changes(&mut self, tell: &mut Tell<'_>);

    /// Changes the table; tells [`Input::Found`] and [`Input::NotWritten`].
    fn write(&mut self, writes: &[Write], tell: &mut Tell<'_>);

    /// Begins to look through the table.
    fn begin_scan(&mut self);

    /// Tells the next entries of it; `false`: that was all.
    fn slice(&mut self, tell: &mut Tell<'_>) -> bool;

    /// Tells [`Input::Found`] or [`Input::NotFound`].
    fn look(&mut self, key: &Key, tell: &mut Tell<'_>);

    /// Removes a conn unless something was seen of it more recently; tells which.
    fn retire(&mut self, key: &Key, idle: Tenths, tell: &mut Tell<'_>);
}

/// Something that others want to hear of.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A heartbeat of the peer.
    Beat(Beat),
    /// What the peer's notice says now; `None`: the peer is gone.
    Notice(Option<Notice>),
    /// The core says.
    Event(Event),
    /// A drain came to its end.
    Drained(Result<(), Stalled>),
    /// The socket works, or does not.
    Line(bool),
}

/// Hears of it, from the thread: must not wait.
pub type Listener = Box<dyn FnMut(Happened) + Send>;

/// Where the peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The interface.
    pub interface: String,
    /// The peer on it.
    pub peer: Peer,
}

/// The running thread. Dropping it says goodbye to the peer and ends it.
#[derive(Debug)]
pub struct Running {
    core: Arc<Mutex<Replication>>,
    bell: Bell,
    stop: Arc<AtomicBool>,
    line: Arc<Mutex<Option<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why the sync cannot run.
#[derive(Debug)]
pub enum StartError {
    /// The parameters make no sense.
    Config(ConfigError),
    /// A system call failed.
    Io(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl Running {
    /// Starts the thread, which `bell` wakes. An interface that is not there is waited for.
    ///
    /// # Errors
    ///
    /// The parameters make no sense, or the kernel refuses a thread.
    pub fn start(
        config: Config,
        path: Path,
        table: impl Table,
        listener: Listener,
        bell: Bell,
    ) -> Result<Self, StartError> {
        let core = Replication::new(config, now()).map_err(StartError::Config)?;
        let running = Self {
            core: Arc::new(Mutex::new(core)),
            bell,
            stop: Arc::default(),
            line: Arc::default(),
            thread: Mutex::new(None),
        };
        let mut worker = Worker {
            core: running.core.clone(),
            bell: running.bell.clone(),
            stop: running.stop.clone(),
            trouble: running.line.clone(),
            path,
            line: None,
            line_at: now(),
            table,
            listener,
            scan: None,
            deaf_until: now(),
            writes: Vec::with_capacity(WRITES),
            buffer: vec![0; 65_536],
            answers: Vec::new(),
        };
        let builder = std::thread::Builder::new().name("lb-sync".to_owned());
        let thread = builder.spawn(move || worker.run()).map_err(StartError::Io)?;
        *lock(&running.thread) = Some(thread);
        Ok(running)
    }

    /// A snapshot.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.core).status()
    }

    /// Why the socket does not work; `None`: it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.line).clone()
    }

    /// Tells the core something.
    pub fn tell(&self, input: Input<'_>) {
        self.tell_all(std::iter::once(input));
    }

    /// Tells the core several things at once.
    pub fn tell_all<'a>(&self, inputs: impl IntoIterator<Item = Input<'a>>) {
        let mut core = lock(&self.core);
        for input in inputs {
            core.handle(input, now());
        }
        drop(core);
        self.bell.ring();
    }

    /// The core, for who has much to ask.
    pub fn core(&self) -> MutexGuard<'_, Replication> {
        lock(&self.core)
    }

    /// Says goodbye to the peer and ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.tell(Input::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread has been printed; there is nothing left to stop.
            let _ = thread.join();
        }
    }

    /// The thread has ended without being told to: it has panicked.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread owns.
struct Worker<T> {
    core: Arc<Mutex<Replication>>,
    bell: Bell,
    stop: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
    path: Path,
    line: Option<Line>,
    line_at: Instant,
    table: T,
    listener: Listener,
    /// The table is being looked through; the next slice is due then.
    scan: Option<Instant>,
    /// Until then the event ring is not waited for.
    deaf_until: Instant,
    writes: Vec<Write>,
    buffer: Vec<u8>,
    answers: Vec<Input<'static>>,
}

impl<T: Table> Worker<T> {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            self.open_line();
            let next = self.turn();
            self.wait(next);
        }
        // The goodbye.
        self.turn();
    }

    fn open_line(&mut self) {
        if self.line.is_some() || self.line_at > now() {
            return;
        }
        self.line_at = now() + AGAIN;
        match Line::open(&self.path.interface, &self.path.peer) {
            Ok(line) => {
                lock(&self.core).set_datagram(line.datagram());
                self.line = Some(line);
                *lock(&self.trouble) = None;
                (self.listener)(Happened::Line(true));
            }
            Err(error) => self.line_failed(&error),
        }
    }

    fn line_failed(&mut self, error: &io::Error) {
        self.line = None;
        let text = format!("{}: {error}", self.path.interface);
        if lock(&self.trouble).replace(text).is_none() {
            (self.listener)(Happened::Line(false));
        }
    }

    /// Does everything once; answers when to do so again at the latest.
    fn turn(&mut self) -> Instant {
        // One lock for all: others ask for single things.
        let core = self.core.clone();
        let mut core = lock(&core);
        self.take_datagrams(&mut core);
        let time = now();
        self.table.changes(&mut |input| core.handle(input, time));
        self.show_slice(&mut core);
        core.handle_timeout(now());
        let more = self.perform(&mut core);
        let time = now();
        if more {
            return time;
        }
        let due = core.poll_timeout().map_or(time + TURN, |at| at.min(time + TURN));
        self.scan.map_or(due, |at| at.min(due))
    }

    fn take_datagrams(&mut self, core: &mut Replication) {
        let Some(line) = &self.line else { return };
        let (time, mut bytes) = (now(), 0);
        for _ in 0..DATAGRAMS {
            if bytes >= BYTES {
                return;
            }
            match line.receive(&mut self.buffer) {
                Ok(Some(datagram)) => {
                    bytes += datagram.len();
                    core.handle(Input::Datagram(datagram), time);
                }
                Ok(None) => return,
                Err(error) => {
                    self.line_failed(&error);
                    return;
                }
            }
        }
    }

    fn show_slice(&mut self, core: &mut Replication) {
        let began = now();
        if self.scan.is_none_or(|at| at > began) {
            return;
        }
        let more = self.table.slice(&mut |input| core.handle(input, began));
        let ended = now();
        // What is not known must be found out soon; what is only refreshed must not take the CPU from others.
        let factor = if core.is_settled() { PAUSE_PER_WORK } else { 0 };
        self.scan = more.then(|| ended + (ended - began) * factor);
        if !more {
            core.handle(Input::Scanned, ended);
        }
    }

    /// Carries out what the core wants; `true`: there is more.
    fn perform(&mut self, core: &mut Replication) -> bool {
        let mut frames = 0;
        let mut full = false;
        while !full
            && frames < FRAMES
            && let Some(action) = core.poll_action()
        {
            if let Action::Write(write) = action {
                self.writes.push(write);
                if self.writes.len() < WRITES {
                    continue;
                }
                self.flush(core);
                continue;
            }
            // Frames say nothing about the table; everything else looks at it.
            match action {
                Action::Send(datagram) => {
                    frames += 1;
                    let sent = self.line.as_ref().map(|line| line.send(datagram));
                    match sent {
                        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => full = true,
                        // The interface is down, or the peer's host is not there: the frame is lost like any other.
                        Some(Err(error)) if is_gone(&error) => self.line_failed(&error),
                        Some(Err(_) | Ok(())) | None => {}
                    }
                }
                Action::Beat(beat) => (self.listener)(Happened::Beat(beat)),
                Action::Notice(notice) => (self.listener)(Happened::Notice(notice)),
                Action::Event(event) => (self.listener)(Happened::Event(event)),
                Action::Drained(result) => (self.listener)(Happened::Drained(result)),
                Action::Scan => {
                    self.table.begin_scan();
                    self.scan = Some(now());
                }
                Action::Look(key) => {
                    self.flush(core);
                    let answers = &mut self.answers;
                    self.table.look(&key, &mut |input| answers.push(input));
                    self.answer(core);
                }
                Action::Retire { key, idle } => {
                    self.flush(core);
                    let answers = &mut self.answers;
                    self.table.retire(&key, idle, &mut |input| answers.push(input));
                    self.answer(core);
                }
                Action::Write(_) => {}
            }
        }
        self.flush(core);
        full || frames == FRAMES
    }

    fn flush(&mut self, core: &mut Replication) {
        if self.writes.is_empty() {
            return;
        }
        let answers = &mut self.answers;
        self.table.write(&self.writes, &mut |input| answers.push(input));
        self.writes.clear();
        self.answer(core);
    }

    fn answer(&mut self, core: &mut Replication) {
        let time = now();
        for input in self.answers.drain(..) {
            core.handle(input, time);
        }
    }

    fn wait(&mut self, until: Instant) {
        let time = now();
        let deaf = time < self.deaf_until;
        let until = if deaf { until.min(self.deaf_until) } else { until };
        let left = until.saturating_duration_since(time);
        // Rounded up: a timeout that is not due yet would be looked at again and again.
        let millis = left.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX);
        let bell = self.bell.as_fd();
        // One that is not waited for is the bell once more: it costs nothing, and places stay.
        let line = self.line.as_ref().map_or(bell, Line::as_fd);
        let ring = if deaf { bell } else { self.table.ring() };
        let mut sources = [bell, line, ring].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An error is a signal, or nothing that waiting could mend.
        let _ = poll(&mut sources, timeout);
        if !deaf && sources[2].any() == Some(true) {
            self.deaf_until = now() + PAUSE;
        }
        self.bell.hush();
    }
}

/// The interface is not there any more: a new one of its name needs a new socket.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EBADF))
}

#[expect(clippy::disallowed_methods, reason = "this is where the sync's time comes from")]
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

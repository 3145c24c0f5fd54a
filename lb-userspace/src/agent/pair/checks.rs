//! What this director needs to be of use: its packet path, and what the operator tracks. Each is looked at apart from
//! the timer thread, which is told only what has changed.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    process::Command,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    agent::supervisor,
    config::{Track, Tracked},
    datapath::Datapath,
    failover::{CHECK_PACKET_PATH, CHECKS, Inputs},
    ha::Input,
};

/// The pause between two looks at the packet path: VIPs leave a broken one within a second.
const LOOK: Duration = Duration::from_millis(200);

/// What exactly is wrong, for each check that is bad.
#[derive(Debug)]
pub(super) struct Details(Mutex<Vec<Option<String>>>);

impl Details {
    pub(super) fn new(checks: usize) -> Self {
        Self(Mutex::new(vec![None; checks]))
    }

    fn set(&self, check: usize, detail: Option<String>) {
        let mut details = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = details.get_mut(check) {
            *place = detail;
        }
    }

    pub(super) fn get(&self, check: usize) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(check)?.clone()
    }
}

/// Tells the election about a check when it changes.
struct Reporter {
    check: usize,
    inputs: Inputs,
    details: Arc<Details>,
    told: Option<bool>,
}

impl Reporter {
    fn tell(&mut self, detail: Option<String>) {
        let ok = detail.is_none();
        self.details.set(self.check, detail);
        // What could not be delivered is told again.
        if self.told != Some(ok) && self.inputs.input(Input::Check { check: self.check, ok }) {
            self.told = Some(ok);
        }
    }
}

/// Watches the packet path from a thread of its own: the kernel may make it wait.
#[derive(Debug)]
pub(super) struct PacketPath {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl PacketPath {
    /// Looks once, then goes on.
    pub(super) fn start(datapath: Arc<Datapath>, inputs: Inputs, details: Arc<Details>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reporter = Reporter { check: CHECK_PACKET_PATH, inputs, details, told: None };
        let look = move |datapath: &Datapath, reporter: &mut Reporter| {
            let broken = datapath.health();
            reporter.tell((!broken.is_empty()).then(|| broken.join("; ")));
        };
        look(&datapath, &mut reporter);
        let stopped = stop.clone();
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                look(&datapath, &mut reporter);
            }
        };
        let thread = std::thread::Builder::new().name("lb-watch".to_owned()).spawn(work);
        let thread = thread.context("start the thread that watches the packet path")?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for PacketPath {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks at everything tracked once, then goes on in tasks.
pub(super) async fn track(
    tracks: &[Track],
    inputs: &Inputs,
    details: &Arc<Details>,
    tasks: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) {
    let mut first = JoinSet::new();
    for (index, track) in tracks.iter().cloned().enumerate() {
        let reporter =
            Reporter { check: CHECKS.len() + index, inputs: inputs.clone(), details: details.clone(), told: None };
        first.spawn(async move {
            let mut watcher = Watcher { track, reporter, good: true, streak: 0 };
            // The first look counts alone: a director does not take part before it is known to be of use.
            let found = look(&watcher.track).await;
            watcher.good = found.is_ok();
            watcher.reporter.tell(found.err());
            watcher
        });
    }
    while let Some(watcher) = first.join_next().await {
        let mut stopped = stopped.clone();
        if let Ok(watcher) = watcher {
            tasks.spawn(async move {
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => {}
                    () = watcher.run() => {}
                }
            });
        }
    }
}

struct Watcher {
    track: Track,
    reporter: Reporter,
    good: bool,
    /// Looks in a row that spoke against what is believed.
    streak: u32,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            sleep(self.track.interval).await;
            let found = look(&self.track).await;
            self.judge(found.err());
        }
    }

    /// Changes its mind after enough looks in a row.
    fn judge(&mut self, bad: Option<String>) {
        if bad.is_none() == self.good {
            self.streak = 0;
            return;
        }
        self.streak += 1;
        if self.streak >= if self.good { self.track.fall } else { self.track.rise } {
            self.good = bad.is_none();
            self.streak = 0;
            self.reporter.tell(bad);
        }
    }
}

/// One look; the error says what is wrong.
async fn look(track: &Track) -> Result<(), String> {
    match &track.what {
        Tracked::Script(path) => run(path, track.timeout).await,
        Tracked::Process(name) => {
            let wanted = name.clone();
            match spawn_blocking(move || is_running(&wanted)).await {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err(format!("no process is called {name}")),
                Ok(Err(error)) => Err(format!("cannot list the processes: {error}")),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

async fn run(path: &Path, limit: Duration) -> Result<(), String> {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    supervisor::VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command.spawn().map_err(|error| format!("cannot run it: {error}"))?;
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(format!("cannot wait for it: {error}")),
        Err(_) => Err(format!("it took longer than {limit:?}")),
    }
}

/// Looks for a process whose name, as far as the kernel keeps it (15 bytes), is this one.
fn is_running(name: &str) -> std::io::Result<bool> {
    let cut = &name.as_bytes()[..name.len().min(15)];
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process = path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        // A process may end between listing and reading.
        if is_process && std::fs::read(path.join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == cut) {
            return Ok(true);
        }
    }
    Ok(false)
}

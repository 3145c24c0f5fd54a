//! The tasks that drive the checkers: one per backend. What they find goes into one channel, what they know can be
//! looked at at any time.
//!
//! They share a thread of their own: most of a check is the system calls of its packets, and to hand tasks from thread to
//! thread between them costs as much again. Nor does anything else that the agent does delay them.

use std::{
    io,
    net::SocketAddrV4,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Handle},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};

use super::probe::Probe;
use crate::health::{
    cadence::Cadence,
    checker::{Action, Checker, Health, Input},
    history::Line,
    plan::{Facts, Plan},
};

/// A backend to be checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Place of its service in the config.
    pub service: usize,
    /// Its place in the service.
    pub backend: usize,
    /// Where it is.
    pub address: SocketAddrV4,
    /// How it is checked.
    pub plan: Arc<Plan>,
    /// What an earlier agent thought of it.
    pub known: Option<bool>,
}

/// News of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its health has changed.
    Health {
        /// Place of its service in the config.
        service: usize,
        /// Its place in the service.
        backend: usize,
        /// The health.
        health: Health,
    },
    /// It said something about itself.
    Facts {
        /// Place of its service in the config.
        service: usize,
        /// Its place in the service.
        backend: usize,
        /// What it said.
        facts: Facts,
    },
}

/// What there is to show of the checks of a backend.
#[derive(Clone, Debug)]
pub struct WatchView {
    /// The last checks, oldest first.
    pub history: Vec<Line>,
    /// Checks in a row towards a change of the health, and how many it takes.
    pub progress: (u32, u32),
    /// How late a check has come at most.
    pub lateness: Duration,
    /// What it said about itself.
    pub facts: Option<Facts>,
}

/// Checks begin at times of a grid that all backends share, so many to the shortest interval: the checks of many backends
/// share their wake-ups, which cost as much as the checks.
const GRID: u32 = 25;
/// How long a check may go on when the agent stops.
const GRACE: Duration = Duration::from_secs(1);

type Shared = Arc<Mutex<WatchView>>;

/// The running checks.
#[derive(Debug)]
pub struct Watch {
    /// Ends with the thread.
    thread: tokio::sync::Mutex<oneshot::Receiver<()>>,
    stop: watch::Sender<bool>,
    views: Vec<((usize, usize), Shared)>,
}

impl Watch {
    /// Starts the checks, in the network namespace of the calling thread. `seed` should differ from start to start.
    ///
    /// # Errors
    ///
    /// The kernel refuses a thread, or what tokio needs for it.
    pub fn start(targets: Vec<Target>, seed: u64) -> io::Result<(Self, mpsc::UnboundedReceiver<Report>)> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (reports, received) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let mut views = Vec::with_capacity(targets.len());
        let origin = now();
        for (at, target) in targets.into_iter().enumerate() {
            let seed = seed.wrapping_add((at as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let checker = Checker::new(target.plan.cadence, target.known, seed, origin);
            let view = Arc::new(Mutex::new(WatchView {
                history: Vec::new(),
                progress: checker.progress(),
                lateness: Duration::ZERO,
                facts: None,
            }));
            views.push(((target.service, target.backend), Arc::clone(&view)));
            tasks.spawn_on(run(target, origin, checker, view, reports.clone(), stopped.clone()), runtime.handle());
        }
        let (ending, thread) = oneshot::channel();
        let work = move || {
            runtime.block_on(last_of(tasks));
            drop(ending);
        };
        std::thread::Builder::new().name("lb-checks".to_owned()).spawn(work)?;
        Ok((Self { thread: thread.into(), stop, views }, received))
    }

    /// What there is to show of a backend; `None` if it is not checked.
    #[must_use]
    pub fn view(&self, service: usize, backend: usize) -> Option<WatchView> {
        let (_, view) = self.views.iter().find(|(place, _)| *place == (service, backend))?;
        Some(view.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Ends the checks, their connections in order.
    pub async fn stop(&self) {
        // Nobody listening means that all tasks have ended.
        let _ = self.stop.send(true);
        // An error is what is waited for: nothing is ever sent.
        let _ = (&mut *self.thread.lock().await).await;
    }
}

/// Waits for the end of all checks, and then of the connections that they left behind to be ended in order.
async fn last_of(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
    let goodbyes = async {
        while Handle::current().metrics().num_alive_tasks() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Who does not end by then is left without.
    let _ = time::timeout(GRACE, goodbyes).await;
}

async fn run(
    target: Target,
    origin: Instant,
    mut checker: Checker,
    view: Shared,
    reports: mpsc::UnboundedSender<Report>,
    mut stopped: watch::Receiver<bool>,
) {
    let Target { service, backend, address, plan, .. } = target;
    let grid = Grid::new(origin, &plan.cadence);
    let mut probe = Probe::new(address, plan);
    drive((service, backend), grid, &mut checker, &mut probe, &view, &reports, &mut stopped).await;
    probe.quit().await;
}

/// Checks until the agent stops. A check that runs then may come to its end: cut off, it would count against us.
async fn drive(
    (service, backend): (usize, usize),
    grid: Grid,
    checker: &mut Checker,
    probe: &mut Probe,
    view: &Mutex<WatchView>,
    reports: &mpsc::UnboundedSender<Report>,
    stopped: &mut watch::Receiver<bool>,
) {
    loop {
        if let Some(due) = checker.poll_timeout() {
            tokio::select! {
                // An error means that the sender is gone: the agent is stopping.
                _ = stopped.wait_for(|stop| *stop) => return,
                () = time::sleep_until(grid.after(due).into()) => {}
            }
        }
        checker.handle_timeout(now());
        let mut learned = None;
        while let Some(action) = checker.poll_action() {
            let report = match action {
                Action::Check { timeout, relogin } => {
                    let began = now();
                    let outcome = tokio::select! {
                        outcome = probe.check(timeout, relogin) => outcome,
                        () = grace(stopped) => return,
                    };
                    let ended = now();
                    checker.handle(Input::Finished { outcome, latency: ended - began }, ended);
                    continue;
                }
                Action::Changed(health) => Report::Health { service, backend, health },
                Action::Learned(facts) => {
                    learned = Some(facts.clone());
                    Report::Facts { service, backend, facts }
                }
            };
            if reports.send(report).is_err() {
                return;
            }
        }
        let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
        view.history = checker.history().lines().cloned().collect();
        view.progress = checker.progress();
        view.lateness = checker.lateness();
        view.facts = learned.or(view.facts.take());
    }
}

/// Times at which checks begin.
#[derive(Clone, Copy, Debug)]
struct Grid {
    origin: Instant,
    step: Duration,
}

impl Grid {
    fn new(origin: Instant, cadence: &Cadence) -> Self {
        Self { origin, step: cadence.inter.min(cadence.fastinter).min(cadence.downinter) / GRID }
    }

    /// The first one that is not before `time`.
    fn after(self, time: Instant) -> Instant {
        let step = self.step.as_nanos().max(1);
        let ahead = (step - time.saturating_duration_since(self.origin).as_nanos() % step) % step;
        time + Duration::from_nanos(u64::try_from(ahead).unwrap_or(0))
    }
}

/// Ends some time after the agent began to stop.
async fn grace(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
    time::sleep(GRACE).await;
}

#[expect(clippy::disallowed_methods, reason = "the checks run in real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_wait_for_the_next_time_of_the_grid_and_no_longer() {
        let ms = Duration::from_millis;
        let origin = now();
        let grid = Grid::new(origin, &Cadence { inter: ms(1000), fastinter: ms(500), ..Cadence::default() });
        for (due, begins) in [(0, 0), (1, 20), (19, 20), (20, 20), (21, 40), (1_000_001, 1_000_020)] {
            assert_eq!(grid.after(origin + ms(due)), origin + ms(begins), "{due}");
        }
        // A time before all of them, and a grid without steps.
        assert_eq!(grid.after(origin - ms(5)), origin - ms(5));
        let none = Grid { origin, step: Duration::ZERO };
        assert_eq!(none.after(origin + ms(7)), origin + ms(7));
    }
}

//! The tasks that drive the checkers: one per backend. What they find goes into one channel, what they know can be
//! looked at at any time.

use std::{
    net::SocketAddrV4,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use super::probe::Probe;
use crate::health::{
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

/// How long a check may go on when the agent stops.
const GRACE: Duration = Duration::from_secs(1);

type Shared = Arc<Mutex<WatchView>>;

/// The running checks.
#[derive(Debug)]
pub struct Watch {
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
    views: Vec<((usize, usize), Shared)>,
}

impl Watch {
    /// Starts the checks. `seed` should differ from start to start.
    #[must_use]
    pub fn start(targets: Vec<Target>, seed: u64) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (stop, stopped) = watch::channel(false);
        let (reports, received) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let mut views = Vec::with_capacity(targets.len());
        for (at, target) in targets.into_iter().enumerate() {
            let seed = seed.wrapping_add((at as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let checker = Checker::new(target.plan.cadence, target.known, seed, now());
            let view = Arc::new(Mutex::new(WatchView {
                history: Vec::new(),
                progress: checker.progress(),
                lateness: Duration::ZERO,
                facts: None,
            }));
            views.push(((target.service, target.backend), Arc::clone(&view)));
            tasks.spawn(run(target, checker, view, reports.clone(), stopped.clone()));
        }
        (Self { tasks: tasks.into(), stop, views }, received)
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
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

async fn run(
    target: Target,
    mut checker: Checker,
    view: Shared,
    reports: mpsc::UnboundedSender<Report>,
    mut stopped: watch::Receiver<bool>,
) {
    let Target { service, backend, address, plan, .. } = target;
    let mut probe = Probe::new(address, plan);
    drive((service, backend), &mut checker, &mut probe, &view, &reports, &mut stopped).await;
    probe.quit().await;
}

/// Checks until the agent stops. A check that runs then may come to its end: cut off, it would count against us.
async fn drive(
    (service, backend): (usize, usize),
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
                () = time::sleep_until(due.into()) => {}
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

/// Ends some time after the agent began to stop.
async fn grace(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
    time::sleep(GRACE).await;
}

#[expect(clippy::disallowed_methods, reason = "the checks run in real time")]
fn now() -> Instant {
    Instant::now()
}

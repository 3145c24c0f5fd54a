//! Runs the checks of the backends: health goes into the pools, and what follows is done; the checks are shown.

use std::{
    collections::BTreeMap,
    future,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{block_in_place, spawn_blocking},
    time,
};
use tracing::error;

use super::{health::now, state::State, verdicts::Verdicts};
use crate::{
    control::protocol::{CheckLine, CheckView, LeftView, ServerView},
    health::{
        Plan,
        io::{Report, Target, Watch},
        pool::{Input, MemberView, ResetCause},
    },
};

/// How often the role is looked at.
const ROLE_EVERY: Duration = Duration::from_millis(200);

/// Runs the checks until the agent stops.
pub(super) async fn follow(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let targets = targets(&state);
    let (watch, mut reports) = match Watch::start(targets, RandomState::new().hash_one("checks")) {
        Ok(started) => started,
        Err(error) => {
            error!(%error, "the checks of backends cannot start: their health stays as it was");
            return;
        }
    };
    let watch = Arc::new(watch);
    // It starts once.
    let _ = state.health().watch.set(Arc::clone(&watch));
    let mut roles = time::interval(ROLE_EVERY);
    let mut active = true;
    let mut verdicts = Verdicts::new(&state);
    loop {
        block_in_place(|| verdicts.say(&state));
        let due = state.pools_due();
        let deadline = async {
            match due {
                Some(at) => time::sleep_until(at.into()).await,
                None => future::pending().await,
            }
        };
        let input = tokio::select! {
            // An error means that the sender is gone: the agent is stopping.
            _ = stopped.wait_for(|stop| *stop) => break,
            report = reports.recv(), if !reports.is_closed() => report.and_then(|report| state.note(report)),
            () = deadline => None,
            () = state.health().changed.notified() => None,
            heard = verdicts.heard() => {
                let resets = block_in_place(|| state.hear(heard.as_deref()));
                reset(&state, resets);
                continue;
            }
            now_active = another_role(&state, &mut roles, active) => {
                active = now_active;
                let resets = block_in_place(|| state.tell_pools(|_| Some(Input::Active(active))));
                reset(&state, resets);
                continue;
            }
        };
        let resets = block_in_place(|| match input {
            Some((service, input)) => state.tell_pools(|at| (at == service).then(|| input.clone())),
            None => state.tell_pools(|_| None),
        });
        reset(&state, resets);
    }
    watch.stop().await;
}

/// Waits until this director carries the traffic, or does so no more. Can be dropped at any await.
async fn another_role(state: &State, ticks: &mut time::Interval, active: bool) -> bool {
    loop {
        ticks.tick().await;
        if state.is_active() != active {
            return !active;
        }
    }
}

/// Resets the conns of backends, while the checks go on.
fn reset(state: &Arc<State>, backends: Vec<(u16, ResetCause)>) {
    if backends.is_empty() {
        return;
    }
    let state = Arc::clone(state);
    // It ends by itself, and soon; nobody waits for it.
    drop(spawn_blocking(move || backends.into_iter().for_each(|(id, cause)| state.resets().backend(id, cause))));
}

fn targets(state: &State) -> Vec<Target> {
    let mut targets = Vec::new();
    for (at, service) in state.config().services.iter().enumerate() {
        let Some(check) = &service.check else { continue };
        let plan: Arc<Plan> = Arc::new(check.clone());
        for (backend, member) in state.members(at).into_iter().enumerate() {
            // The pool knows what an earlier agent left; not yet checked is another thing than down.
            let Some(health) = member.health else { continue };
            let known = (health.up || member.was_known).then_some(health.up);
            let plan = Arc::clone(&plan);
            targets.push(Target { service: at, backend, address: member.address, plan, known });
        }
    }
    targets
}

impl State {
    /// Takes a report; what of it is for a pool comes back.
    fn note(&self, report: Report) -> Option<(usize, Input)> {
        match report {
            Report::Health { service, backend, health } => Some((service, Input::Health { backend, health })),
            Report::Facts { service, backend, facts } => {
                self.health().facts().insert((service, backend), facts);
                self.outdate();
                None
            }
        }
    }

    /// The checks of all backends that are checked, for `status`.
    pub(super) fn checks_now(&self, left: &BTreeMap<u16, LeftView>) -> Vec<CheckView> {
        let ids = self.ids();
        let mut views = Vec::new();
        for (at, service) in self.config().services.iter().enumerate() {
            let Some(check) = &service.check else { continue };
            for (backend, member) in self.members(at).into_iter().enumerate() {
                let id = ids.backends.get(at).and_then(|ids| ids.get(backend));
                let left = id.and_then(|id| left.get(id)).copied();
                views.push(CheckView { left, ..self.check_view(&service.name, (at, backend), check, member) });
            }
        }
        views
    }

    fn check_view(&self, service: &str, place: (usize, usize), check: &Plan, member: MemberView) -> CheckView {
        let watched = self.health().watch.get().and_then(|watch| watch.view(place.0, place.1));
        let ago = |at: Instant| now().saturating_duration_since(at).as_secs();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let history = watched.as_ref().map(|watched| &watched.history[..]).unwrap_or_default();
        let line = |line: &crate::health::history::Line| CheckLine {
            outcome: line.word.to_owned(),
            text: line.text.clone(),
            count: line.count,
            first_seconds_ago: ago(line.first),
            last_seconds_ago: ago(line.last),
            latency_us: micros(line.latency),
            slowest_us: micros(line.slowest),
        };
        let facts = self.health().facts().get(&place).cloned();
        CheckView {
            service: service.to_owned(),
            address: member.address,
            level: check.level.name().to_owned(),
            tier: member.tier.to_string(),
            state: member.state.name().to_owned(),
            since_seconds: member.since.as_secs(),
            cause: member.health.as_ref().map(|health| health.cause.clone()).unwrap_or_default(),
            trouble: member.health.and_then(|health| health.trouble).map(|trouble| trouble.text().to_owned()),
            warm_percent: member.warm,
            deadline_seconds: member.deadline.map(|left| left.as_secs()),
            left: None,
            peer: member.peer.map(|up| if up { "up" } else { "down" }.to_owned()),
            disagreement: member.agreement.difference().map(str::to_owned),
            counted: watched.as_ref().map_or(0, |watched| watched.progress.0),
            needed: watched.as_ref().map_or(0, |watched| watched.progress.1),
            late_us: watched.as_ref().map_or(0, |watched| micros(watched.lateness)),
            server: facts.map(|facts| ServerView {
                version: facts.version,
                wait_timeout_seconds: facts.wait_timeout.map(|time| time.as_secs()),
                max_connections: facts.max_connections,
            }),
            history: history.iter().map(line).collect(),
        }
    }
}

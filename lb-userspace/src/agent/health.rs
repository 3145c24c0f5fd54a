//! Joins the checks of the backends with the packet path, the operator and the election: health goes into the pools,
//! what the pools say is done, logged and shown. What it all means is decided in [`crate::health`].

use std::{
    collections::BTreeMap,
    future,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::{
    backend::BackendState,
    service::{Scheduler, ServiceKey},
};
use tokio::{
    sync::{Notify, watch},
    task::{block_in_place, spawn_blocking},
    time,
};
use tracing::{info, warn};

use super::{overrides::Change, state::State, verdicts::Verdicts};
use crate::{
    config::{Config, MaxConn, format_duration},
    control::protocol::{CheckLine, CheckView, LeftView, ServerView},
    datapath::{Datapath, Timeouts},
    health::{
        Facts, Plan,
        io::{Report, Target, Watch},
        pool::{Event, Input, MemberPlan, MemberView, Order, Pool, PoolPlan, ResetCause, Tier},
    },
};

/// How often the role is looked at.
const ROLE_EVERY: Duration = Duration::from_millis(200);
/// The directors may see a backend differently for as long as this, at least.
const DISAGREE: Duration = Duration::from_secs(3);
/// Connections of a server that are not for clients, at least: one for each director's check, two for an operator.
const RESERVE: u32 = 4;
/// By how much conns shall outlive the server's own timeout.
const SLACK: Duration = Duration::from_secs(60);

/// What the agent knows of the checks.
#[derive(Debug, Default)]
pub(super) struct Health {
    watch: OnceLock<Arc<Watch>>,
    /// A deadline may have come up.
    changed: Notify,
    facts: Mutex<BTreeMap<(usize, usize), Facts>>,
}

impl Health {
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, BTreeMap<(usize, usize), Facts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the servers say about themselves that the config does not fit.
    pub(super) fn warnings(&self, config: &Config, established: Duration) -> Vec<String> {
        let too_long = |(place, facts): (&(usize, usize), &Facts)| {
            let wait = facts.wait_timeout?;
            let backend = config.services.get(place.0)?.backends.get(place.1)?;
            (established < wait).then(|| {
                format!(
                    "{} lets sessions idle for {}, but conns expire after {}: set `established` in [timeouts] to \
                     \"auto\", or to \"{}\" or more",
                    backend.address,
                    format_duration(wait),
                    format_duration(established),
                    format_duration(wait + SLACK)
                )
            })
        };
        let too_many = |(place, facts): (&(usize, usize), &Facts)| {
            let most = facts.max_connections?;
            let backend = config.services.get(place.0)?.backends.get(place.1)?;
            let MaxConn::Some(limit) = backend.max_conn else { return None };
            (limit > most.saturating_sub(RESERVE)).then(|| {
                format!(
                    "{} takes {most} connections, but `max_conn` lets {limit} through: lower it, or set it to \"auto\"",
                    backend.address
                )
            })
        };
        let facts = self.facts();
        facts.iter().filter_map(too_long).chain(facts.iter().filter_map(too_many)).collect()
    }
}

/// A pool for each service, in the order of the config. What the packet path holds of an earlier agent is believed.
pub(super) fn pools(config: &Config, datapath: &Datapath, now: Instant) -> Result<Vec<Pool>> {
    let records = datapath.tables().backends.all()?;
    let mut pools = Vec::with_capacity(config.services.len());
    for service in &config.services {
        let key = ServiceKey::tcp((*service.listen.ip()).into(), service.listen.port());
        let id = datapath.tables().services.get(&key)?.map(|service| service.id);
        let known = |backend: &crate::config::Backend| {
            let is_it = |record: &&lb_common::backend::Backend| {
                let address = (record.addr, record.port);
                Some(record.service) == id && address == ((*backend.address.ip()).into(), backend.address.port())
            };
            match records.iter().find(is_it)?.state {
                BackendState::Up | BackendState::Draining => Some(true),
                BackendState::Down => Some(false),
                BackendState::Unused | BackendState::Removed => None,
            }
        };
        let known: Vec<Option<bool>> = service.backends.iter().map(known).collect();
        let member = |backend: &crate::config::Backend| MemberPlan {
            address: backend.address,
            weight: backend.weight,
            tier: backend.tier,
            checked: service.check.is_some() && backend.tier != Tier::Sorry,
            slow_start: backend.slow_start,
            drain_deadline: backend.drain_deadline,
        };
        let detection = service.check.as_ref().map_or(Duration::ZERO, |check| check.cadence.detection());
        let plan = PoolPlan {
            weighted: !matches!(service.scheduler, Scheduler::Rr | Scheduler::Lc),
            on_down: service.on_down,
            disagree_after: DISAGREE.max(2 * detection),
            members: service.backends.iter().map(member).collect(),
        };
        pools.push(Pool::new(plan, &known, now));
    }
    Ok(pools)
}

/// What a pool is to be told so that it follows a change of the operator's.
pub(super) fn orders(before: Change, after: Change, deadline: Option<Duration>) -> Vec<Order> {
    let mut orders = Vec::new();
    if before.weight != after.weight {
        orders.push(Order::Weight(after.weight));
    }
    match (after.disabled, after.drain) {
        (true, _) => orders.push(Order::Disable),
        // Another weight does not make a drain begin anew.
        (false, true) if before.drain && !before.disabled && before.drain_until == after.drain_until => {}
        (false, true) => orders.push(Order::Drain { deadline }),
        (false, false) if before.disabled || before.drain => orders.push(Order::Enable),
        (false, false) => {}
    }
    orders
}

/// The scheduler that looks at weights, for one that does not.
pub(super) const fn weighted_twin(scheduler: Scheduler) -> Scheduler {
    match scheduler {
        Scheduler::Rr => Scheduler::Wrr,
        Scheduler::Lc => Scheduler::Wlc,
        other => other,
    }
}

/// Runs the checks until the agent stops.
pub(super) async fn follow(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let targets = targets(&state);
    let (watch, mut reports) = Watch::start(targets, RandomState::new().hash_one("checks"));
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
            _ = roles.tick() => {
                let now_active = state.is_active();
                if now_active == active {
                    continue;
                }
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

    /// The timeouts of conns; that of established ones follows the servers if the config says so. A server that has said
    /// nothing yet may have MySQL's default.
    pub(super) fn timeouts(&self) -> Timeouts {
        let mut timeouts = self.config().timeouts;
        if self.config().established_auto {
            let facts = self.health().facts();
            let asked =
                self.config().services.iter().filter(|service| service.check.as_ref().is_some_and(Plan::logs_in));
            let known = facts.values().filter_map(|facts| facts.wait_timeout).collect::<Vec<_>>();
            let all = known.len() >= asked.map(|service| service.backends.len()).sum();
            let longest = known.into_iter().max().map(|longest| longest + SLACK);
            timeouts.established = match (longest, all) {
                (Some(longest), true) => longest,
                (longest, _) => timeouts.established.max(longest.unwrap_or_default()),
            };
        }
        timeouts
    }

    /// The most conns of a backend; 0: no limit. What the server has for clients is a little less than all it has: its
    /// operators must get in, and the checks of two directors.
    pub(super) fn max_conn(&self, service: usize, backend: usize) -> u32 {
        let place = self.config().services.get(service).and_then(|service| service.backends.get(backend));
        match place.map(|backend| backend.max_conn) {
            None | Some(MaxConn::None) => 0,
            Some(MaxConn::Some(most)) => most,
            Some(MaxConn::Auto) => {
                let facts = self.health().facts();
                let most = facts.get(&(service, backend)).and_then(|facts| facts.max_connections);
                most.map_or(0, |most| most.saturating_sub(RESERVE.max(most / 20)).max(1))
            }
        }
    }

    /// Logs what happened to the backends of a service.
    pub(super) fn log_event(&self, service: usize, event: &Event) {
        let Some(service) = self.config().services.get(service) else { return };
        let backend = event.backend().and_then(|at| service.backends.get(at)).map(|backend| backend.address);
        match (backend, event.is_bad()) {
            (Some(backend), true) => warn!(service = %service.name, %backend, "{event}"),
            (Some(backend), false) => info!(service = %service.name, %backend, "{event}"),
            (None, true) => warn!(service = %service.name, "{event}"),
            (None, false) => info!(service = %service.name, "{event}"),
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

#[expect(clippy::disallowed_methods, reason = "the agent lives in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

//! The pools of the services as the config, an earlier agent and the operator want them, and what follows from what the
//! servers say about themselves. What health means is decided in [`crate::health`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::{
    backend::BackendState,
    service::{Scheduler, ServiceKey},
};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::overrides::Change;
use crate::{
    config::{Config, MaxConn, Service, format_duration},
    datapath::{Datapath, Timeouts},
    health::{
        Facts, Plan,
        io::Watch,
        pool::{Event, MemberPlan, Order, Pool, PoolPlan, Tier},
    },
};

/// The directors may see a backend differently for as long as this, at least.
const DISAGREE: Duration = Duration::from_secs(3);
/// Connections of a server that are not for clients, at least: one for each director's check, two for an operator.
const RESERVE: u32 = 4;
/// By how much conns shall outlive the server's own timeout.
const SLACK: Duration = Duration::from_secs(60);

/// What the agent knows of the checks.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) watch: OnceLock<Arc<Watch>>,
    /// A deadline may have come up.
    pub(super) changed: Notify,
    facts: Mutex<BTreeMap<(usize, usize), Facts>>,
}

impl Health {
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, BTreeMap<(usize, usize), Facts>> {
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

    /// The timeouts of conns; that of established ones follows the servers if the config says so. A server that has said
    /// nothing yet may have MySQL's default.
    pub(super) fn timeouts(&self, config: &Config) -> Timeouts {
        let mut timeouts = config.timeouts;
        if config.established_auto {
            let facts = self.facts();
            let asked = config.services.iter().filter(|service| service.check.as_ref().is_some_and(Plan::logs_in));
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
    pub(super) fn max_conn(&self, config: &Config, service: usize, backend: usize) -> u32 {
        let place = config.services.get(service).and_then(|service| service.backends.get(backend));
        match place.map(|backend| backend.max_conn) {
            None | Some(MaxConn::None) => 0,
            Some(MaxConn::Some(most)) => most,
            Some(MaxConn::Auto) => {
                let facts = self.facts();
                let most = facts.get(&(service, backend)).and_then(|facts| facts.max_connections);
                most.map_or(0, |most| most.saturating_sub(RESERVE.max(most / 20)).max(1))
            }
        }
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

/// Logs what happened to the backends of a service.
pub(super) fn log(service: &Service, event: &Event) {
    let backend = event.backend().and_then(|at| service.backends.get(at)).map(|backend| backend.address);
    match (backend, event.is_bad()) {
        (Some(backend), true) => warn!(service = %service.name, %backend, "{event}"),
        (Some(backend), false) => info!(service = %service.name, %backend, "{event}"),
        (None, true) => warn!(service = %service.name, "{event}"),
        (None, false) => info!(service = %service.name, "{event}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the agent lives in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

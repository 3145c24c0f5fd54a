//! What the running agent knows: config, operator's changes, packet path, and what the last sweep found.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tracing::{info, warn};

use super::{
    desired,
    health::{self, Health},
    overrides::{self, Change, Overrides},
    pair::Pair,
    resets::Resets,
};
use crate::{
    config::Config,
    datapath::{Datapath, Ids, Summary, Sweep, Timeouts},
    ha::Role,
    health::pool::{Action, Input, MemberView, Order, Pool, ResetCause},
};

/// Shared by the control socket and the periodic work.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    config: Config,
    datapath: Arc<Datapath>,
    pair: OnceLock<Pair>,
    resets: Resets,
    started: Instant,
    changing: Mutex<Changing>,
    health: Health,
    swept: Mutex<Option<Arc<Summary>>>,
}

#[derive(Debug, Default)]
struct Changing {
    overrides: Overrides,
    ids: Ids,
    /// One for each service, in the order of the config.
    pools: Vec<Pool>,
    /// The packet path does not have the pools' shares yet.
    stale: bool,
    /// Service, backend: what the pools want to be reset, and nobody has taken on yet.
    resets: Vec<(usize, usize, ResetCause)>,
}

impl Changing {
    /// Takes on the resets: the ids of the backends.
    fn resets(&mut self) -> Vec<(u16, ResetCause)> {
        let ids = &self.ids.backends;
        let id = |service: usize, backend: usize| ids.get(service).and_then(|ids| ids.get(backend)).copied();
        let wanted = std::mem::take(&mut self.resets);
        wanted.into_iter().filter_map(|(service, backend, cause)| Some((id(service, backend)?, cause))).collect()
    }
}

impl State {
    pub(super) fn new(path: &Path, config: Config, datapath: Datapath) -> Result<Self> {
        datapath.set_syn_recv(config.timeouts.syn_recv)?;
        let overrides = Overrides::load(&config.agent.control_socket);
        let mut pools = health::pools(&config, &datapath, health::now())?;
        for (service, backend, change) in overrides.iter() {
            let Some((service, backend)) = place(&config, service, backend) else { continue };
            let left = |until| Ok::<_, anyhow::Error>(Duration::from_nanos(until).saturating_sub(uptime(&datapath)?));
            let deadline = change.drain_until.map(left).transpose()?;
            for order in health::orders(Change::default(), change, deadline) {
                pools[service].handle(Input::Order { backend, order }, health::now());
            }
        }
        let datapath = Arc::new(datapath);
        Ok(Self {
            path: path.to_owned(),
            config,
            resets: Resets::open(datapath.clone()),
            datapath,
            pair: OnceLock::new(),
            #[expect(clippy::disallowed_methods, reason = "the agent's uptime; no protocol depends on it")]
            started: Instant::now(),
            changing: Mutex::new(Changing { overrides, ids: Ids::default(), pools, stale: true, resets: Vec::new() }),
            health: Health::default(),
            swept: Mutex::new(None),
        })
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn datapath(&self) -> &Arc<Datapath> {
        &self.datapath
    }

    /// The election, if there is one and it has started.
    pub(super) fn pair(&self) -> Option<&Pair> {
        self.pair.get()
    }

    /// The election has started.
    pub(super) fn set_pair(&self, pair: Pair) {
        // It starts once.
        let _ = self.pair.set(pair);
    }

    /// The timeouts of conns, as of now.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.health.timeouts(&self.config)
    }

    /// Whether this director carries the traffic.
    pub(super) fn is_active(&self) -> bool {
        self.pair().is_none_or(|pair| pair.status().is_some_and(|status| status.election.role == Role::Active))
    }

    pub(super) const fn resets(&self) -> &Resets {
        &self.resets
    }

    pub(super) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Brings the packet path to the config, with the operator's changes and what is known of the backends.
    pub(super) fn apply(&self) -> Result<()> {
        self.settle(&mut self.changing())
    }

    fn apply_locked(&self, changing: &mut Changing) -> Result<()> {
        let desired = desired::services(&self.config, &changing.pools, &|service, backend| {
            self.health.max_conn(&self.config, service, backend)
        });
        let (plan, ids) = self.datapath.apply(&desired)?;
        if !plan.is_empty() {
            info!(
                services = plan.services.len(),
                backends = plan.backends.len(),
                removed = plan.removed_backends.len(),
                "the tables follow"
            );
        }
        changing.ids = ids;
        if let Some(sync) = self.pair().and_then(Pair::sync) {
            sync.services(&self.config);
        }
        Ok(())
    }

    /// Changes a backend for the operator, at once and for the agents to come. `deadline` is that of a drain.
    pub(super) fn change(
        &self,
        service: &str,
        backend: SocketAddrV4,
        deadline: Option<Duration>,
        edit: impl FnOnce(Change) -> Change,
    ) -> Result<()> {
        let mut changing = self.changing();
        let (at, index) = place(&self.config, service, backend).context("no such backend")?;
        let kept = changing.overrides.clone();
        let before = kept.get(service, backend);
        let mut change = edit(before);
        let begins = change.drain && !before.drain;
        // An agent that takes over on the way shall reset them at the same moment.
        let deadline = deadline.or(self.config.services[at].backends[index].drain_deadline.filter(|_| begins));
        change.drain_until = match (change.drain, deadline) {
            (false, _) => None,
            (true, None) => before.drain_until,
            (true, Some(after)) => Some(u64::try_from((uptime(&self.datapath)? + after).as_nanos())?),
        };
        changing.overrides.set(service, backend, change);
        let orders = |changing: &mut Changing, orders: Vec<Order>| {
            for order in orders {
                changing.pools[at].handle(Input::Order { backend: index, order }, health::now());
            }
        };
        let done = changing.overrides.store(&self.config.agent.control_socket).and_then(|()| {
            orders(&mut changing, health::orders(before, change, deadline));
            self.settle(&mut changing)
        });
        if done.is_err() {
            changing.overrides = kept;
            orders(&mut changing, health::orders(change, before, None));
        } else {
            let Change { drain, disabled, weight, .. } = change;
            info!(service, %backend, drain, disabled, ?weight, "changed by the operator");
        }
        self.health.wake();
        done.with_context(|| format!("change the backend {backend} of {service}"))
    }

    /// Resets all conns of a backend, because the operator wants it.
    pub(super) fn kill(&self, service: &str, backend: SocketAddrV4) -> Result<()> {
        let mut changing = self.changing();
        let (at, index) = place(&self.config, service, backend).context("no such backend")?;
        changing.pools[at].handle(Input::Order { backend: index, order: Order::Kill }, health::now());
        let settled = self.settle(&mut changing);
        let resets = changing.resets();
        drop(changing);
        resets.into_iter().for_each(|(id, cause)| self.resets.backend(id, cause));
        settled
    }

    /// Gives each pool its input, if it has one, and does what all of them say then. The backends whose conns are to be
    /// reset come back.
    pub(super) fn tell_pools(&self, input: impl Fn(usize) -> Option<Input>) -> Vec<(u16, ResetCause)> {
        let mut changing = self.changing();
        let now = health::now();
        for (at, pool) in changing.pools.iter_mut().enumerate() {
            match input(at) {
                Some(input) => pool.handle(input, now),
                None => pool.handle_timeout(now),
            }
        }
        if let Err(error) = self.settle(&mut changing) {
            // What could not be written is tried again with the next news.
            warn!(%error, "the packet path does not follow the health of the backends");
        }
        changing.resets()
    }

    /// Looks at all pools, or tells them several things; what they say then waits for [`Self::tell_pools`].
    pub(super) fn with_pools<T>(&self, work: impl FnOnce(&mut [Pool]) -> T) -> T {
        work(&mut self.changing().pools)
    }

    /// Does what the pools say; the resets, which take long, are noted for who takes them on.
    fn settle(&self, changing: &mut Changing) -> Result<()> {
        let mut apply = changing.stale;
        for (service, pool) in changing.pools.iter_mut().enumerate() {
            while let Some(action) = pool.poll_action() {
                match action {
                    Action::Apply(_) => apply = true,
                    Action::Reset { backend, cause } => changing.resets.push((service, backend, cause)),
                    Action::Tell(event) => health::log(&self.config.services[service], &event),
                }
            }
        }
        if apply {
            changing.stale = true;
            self.apply_locked(changing)?;
            changing.stale = false;
        }
        Ok(())
    }

    /// Something that the shares do not show has changed what the packet path should hold.
    pub(super) fn outdate(&self) {
        self.changing().stale = true;
    }

    /// When a pool has something to do by itself.
    pub(super) fn pools_due(&self) -> Option<Instant> {
        self.changing().pools.iter().filter_map(Pool::poll_timeout).min()
    }

    /// What the pool of a service knows of its backends.
    pub(super) fn members(&self, service: usize) -> Vec<MemberView> {
        self.changing().pools.get(service).map(|pool| pool.view(health::now())).unwrap_or_default()
    }

    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// The ids behind the config's services and backends.
    pub(super) fn ids(&self) -> Ids {
        self.changing().ids.clone()
    }

    /// Works through one slice of a sweep. Conns that the peer answers for stay; of those that are over, the sync hears,
    /// and both ends if they were idle. Blocks, see [`Sweep::step`].
    pub(super) fn step(&self, sweep: &mut Sweep) -> Result<Option<Summary>> {
        let sync = self.pair().and_then(Pair::sync);
        let done = match sync {
            Some(sync) => sweep.step_but(&self.datapath, &mut |conns| sync.keeps(conns)),
            None => sweep.step(&self.datapath),
        };
        let ended = sweep.take_ended();
        if let Some(sync) = sync {
            sync.expired(&ended);
        }
        // The conns of a Backup are the Active's business.
        if !ended.is_empty() && self.is_active() {
            self.resets.expired(&ended);
        }
        Ok(done?)
    }

    /// What the last complete sweep found; `None` before the first.
    pub(super) fn swept(&self) -> Option<Arc<Summary>> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_swept(&self, summary: Summary) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(summary));
    }

    /// Takes the packet path off.
    pub(super) fn detach(self) -> Result<Vec<String>> {
        let Self { config, datapath, pair, resets, .. } = self;
        overrides::forget(&config.agent.control_socket);
        // They use it, too.
        drop((pair, resets));
        let datapath = Arc::try_unwrap(datapath).map_err(|_| anyhow!("the packet path is still in use"))?;
        Ok(datapath.detach()?)
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the host has run: a clock that agents which follow each other agree about.
fn uptime(datapath: &Datapath) -> Result<Duration> {
    Ok(Duration::from_nanos(datapath.clock()?.ns))
}

/// The place of a backend in the config: service, then backend.
fn place(config: &Config, service: &str, backend: SocketAddrV4) -> Option<(usize, usize)> {
    let at = config.services.iter().position(|known| known.name == service)?;
    Some((at, config.services[at].backends.iter().position(|known| known.address == backend)?))
}

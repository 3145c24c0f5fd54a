//! What the running agent knows: config, operator's changes, packet path, and what the last sweep found.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};
use tracing::info;

use super::{
    desired,
    overrides::{self, Change, Overrides},
    pair::Pair,
    resets::Resets,
};
use crate::{
    config::Config,
    datapath::{Datapath, Ids, Summary},
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
    swept: Mutex<Option<Arc<Summary>>>,
}

#[derive(Debug, Default)]
struct Changing {
    overrides: Overrides,
    ids: Ids,
}

impl State {
    pub(super) fn new(path: &Path, config: Config, datapath: Datapath) -> Result<Self> {
        datapath.set_syn_recv(config.timeouts.syn_recv)?;
        let overrides = Overrides::load(&config.agent.control_socket);
        Ok(Self {
            path: path.to_owned(),
            config,
            datapath: Arc::new(datapath),
            pair: OnceLock::new(),
            resets: Resets::open(),
            #[expect(clippy::disallowed_methods, reason = "the agent's uptime; no protocol depends on it")]
            started: Instant::now(),
            changing: Mutex::new(Changing { overrides, ids: Ids::default() }),
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

    pub(super) const fn resets(&self) -> &Resets {
        &self.resets
    }

    pub(super) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Brings the packet path to the config with the operator's changes.
    pub(super) fn apply(&self) -> Result<()> {
        self.apply_locked(&mut self.changing())
    }

    fn apply_locked(&self, changing: &mut Changing) -> Result<()> {
        let desired = desired::services(&self.config, &changing.overrides);
        let (plan, ids) = self.datapath.apply(&desired)?;
        if !plan.is_empty() {
            info!(
                services = plan.services.len(),
                backends = plan.backends.len(),
                removed = plan.removed_backends.len(),
                "the tables follow the config"
            );
        }
        changing.ids = ids;
        Ok(())
    }

    /// Changes a backend for the operator, at once and for the agents to come.
    pub(super) fn change(
        &self,
        service: &str,
        backend: SocketAddrV4,
        edit: impl FnOnce(Change) -> Change,
    ) -> Result<()> {
        let mut changing = self.changing();
        let before = changing.overrides.clone();
        let change = edit(before.get(service, backend));
        changing.overrides.set(service, backend, change);
        let done = changing
            .overrides
            .store(&self.config.agent.control_socket)
            .and_then(|()| self.apply_locked(&mut changing))
            .with_context(|| format!("change the backend {backend} of {service}"));
        if done.is_err() {
            changing.overrides = before;
        } else {
            info!(service, %backend, drain = change.drain, weight = ?change.weight, "changed by the operator");
        }
        done
    }

    /// The ids behind the config's services and backends.
    pub(super) fn ids(&self) -> Ids {
        self.changing().ids.clone()
    }

    /// The change of a backend.
    pub(super) fn change_of(&self, service: &str, backend: SocketAddrV4) -> Change {
        self.changing().overrides.get(service, backend)
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
        overrides::forget(&self.config.agent.control_socket);
        let datapath = Arc::try_unwrap(self.datapath).map_err(|_| anyhow!("the packet path is still in use"))?;
        Ok(datapath.detach()?)
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

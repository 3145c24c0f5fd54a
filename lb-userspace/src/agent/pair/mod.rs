//! This director among others: wires the election to the packet path, to what is tracked, and to the log.
//!
//! Owns the order of start and stop: the checks are known before the election takes part, and the VIPs are gone before
//! the agent is.

mod checks;
mod events;
mod failover;
mod notify;
mod settings;
mod views;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use super::sync;
use crate::{
    config::{Config, Director},
    datapath::Datapath,
    failover::{Event, Failover, Status},
    ha::{self, PeerRole, Role},
};

use checks::Details;
pub(super) use failover::Moved;
pub(super) use settings::node_name;

/// Events that a slow listener may be behind.
const EVENTS: usize = 64;
/// How long a stopping agent waits for the operator's hook.
const HOOK_LIMIT: Duration = Duration::from_secs(2);

/// The running election with everything around it.
#[derive(Debug)]
pub(super) struct Pair {
    failover: Failover,
    sync: Option<sync::ConnSync>,
    director: Director,
    details: Arc<Details>,
    checks: checks::PacketPath,
    events: broadcast::Sender<Event>,
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

impl Pair {
    /// Takes part in the election as `director`; the packet path must work already.
    ///
    /// # Errors
    ///
    /// An interface or an address is missing, or the kernel refuses a socket: then no VIP is here.
    pub(super) async fn start(config: &Config, director: &Director, datapath: &Arc<Datapath>) -> Result<Option<Self>> {
        let Some(vrrp) = &config.vrrp else { return Ok(None) };
        let prepared = sync::Prepared::new(config)?;
        let mut settings = settings::settings(config, vrrp, director);
        // Another implementation of VRRP does not know of heartbeats.
        settings.election.heartbeat = prepared.as_ref().filter(|_| !vrrp.strict).map(sync::Prepared::timing);
        let checks = settings.election.checks.len();
        let fence = settings::Gate::new(datapath.clone(), vrrp);
        let (failover, events) = Failover::start(settings, fence, prepared.as_ref().map(sync::Prepared::witness))
            .context("start the election")?;
        for note in failover.notes() {
            warn!("{note}");
        }
        let granted = failover.status().map(|status| status.granted).unwrap_or_default();
        for (what, refused) in [("real-time scheduling", granted.realtime), ("locked memory", granted.locked)] {
            if let Some(why) = refused {
                info!(why, "the timer thread runs without {what}");
            }
        }
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let details = Arc::new(Details::new(checks));
        let log = events::Log::new(failover.config().clone(), details.clone(), director.name.clone());
        let (others, _) = broadcast::channel(EVENTS);
        tasks.spawn(events::follow(events, log, vrrp.notify.clone(), others.clone()));
        let packet_path = checks::PacketPath::start(datapath.clone(), failover.inputs(), details.clone())?;
        checks::track(&vrrp.tracks, &failover.inputs(), &details, &mut tasks, &stopped).await;
        // The gate is known before the election takes part.
        let sync = match prepared {
            Some(prepared) => sync::ConnSync::start(config, director, datapath, prepared, failover.inputs())?,
            None => None,
        };
        failover.input(ha::Input::Start);
        Ok(Some(Self {
            failover,
            sync,
            director: director.clone(),
            details,
            checks: packet_path,
            events: others,
            tasks: Mutex::new(tasks),
            stop,
        }))
    }

    /// What the running election knows.
    pub(super) fn status(&self) -> Option<Status> {
        self.failover.status()
    }

    /// This director holds the VIPs.
    pub(super) fn is_active(&self) -> bool {
        self.failover.beat().role == PeerRole::Active
    }

    /// What this director is, for one who only glances.
    pub(super) fn role_name(&self) -> &'static str {
        match self.failover.beat().role {
            PeerRole::Active => Role::Active.name(),
            PeerRole::Backup | PeerRole::Leaving => Role::Backup.name(),
            PeerRole::Fault => Role::Fault.name(),
        }
    }

    /// Turns of the timer thread: it lives as long as they go up.
    pub(super) fn turns(&self) -> u64 {
        self.failover.turns()
    }

    /// The timer thread or that of the sync has ended without being told to.
    pub(super) fn is_dead(&self) -> bool {
        self.failover.is_dead() || self.sync.as_ref().is_some_and(sync::ConnSync::is_dead)
    }

    /// Connection sync, if there is any.
    pub(super) const fn sync(&self) -> Option<&sync::ConnSync> {
        self.sync.as_ref()
    }

    /// Gives up all VIPs, tells the peer, and ends everything.
    pub(super) async fn stop(&self) {
        let drained = match &self.sync {
            Some(sync) if self.is_active() => sync.drain().await,
            _ => Ok(()),
        };
        // The thread answers within milliseconds.
        tokio::task::block_in_place(|| self.failover.stop());
        // Only now: a log may be on a disk that has stopped answering.
        if let Err(why) = drained {
            warn!("gave up its role although {why}");
        }
        if let Some(sync) = &self.sync {
            sync.stop().await;
        }
        self.checks.stop();
        // Nobody listening means that all tasks have ended.
        let _ = self.stop.send(true);
        // A hook may still run: it has its own time limit.
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(HOOK_LIMIT, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

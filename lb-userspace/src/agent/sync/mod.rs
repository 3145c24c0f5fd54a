//! Connection sync in the agent: wires the core to the packet path's table, to the election, and to the log.
//!
//! Heartbeats of the peer are a witness of the election; the gate before preemption opens when both tables are equal; a
//! hand-over waits until the peer has everything. [`table`] is the packet path as the core sees it.

mod convert;
mod events;
mod expiry;
mod gate;
mod join;
mod settings;
mod table;
mod views;
mod voice;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time,
};
use tracing::warn;

use crate::{
    config::{self, Config, Director},
    control::protocol::SyncView,
    datapath::Datapath,
    failover::{Inputs, Witness},
    ha::{self, GateState, HeartbeatTiming},
    sync::{Bell, Happened, Input, Notice, Running, Stalled, State},
};

pub use table::ConnTable;
use voice::{Ear, Mouth, Voice};

/// Events that may wait for the log.
const EVENTS: usize = 256;
/// How often the gate is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a hand-over waits for the peer to have everything: a retransmission or ten.
const DRAIN: Duration = Duration::from_secs(1);
/// How long an operator's question waits until the peer has what is known at that moment.
const ASK: Duration = Duration::from_millis(250);
/// How long the last word of a stopping agent may take.
const LAST: Duration = Duration::from_millis(200);

/// Asks who waits for the end of a drain.
type Waiting = Arc<Mutex<Vec<oneshot::Sender<Result<(), Stalled>>>>>;

/// The part that the election must have before the sync runs.
pub(super) struct Prepared {
    voice: Arc<Voice>,
    timing: HeartbeatTiming,
}

impl Prepared {
    /// `None`: the config has no sync.
    ///
    /// # Errors
    ///
    /// The kernel refuses what wakes a thread.
    pub(super) fn new(config: &Config) -> Result<Option<Self>> {
        let Some(sync) = &config.sync else { return Ok(None) };
        let timing = HeartbeatTiming { interval: sync.heartbeat, lost_after: sync.heartbeat_lost_after };
        let bell = Bell::new().context("make the bell of the sync")?;
        Ok(Some(Self { voice: Voice::new(bell), timing }))
    }

    /// How heartbeats are judged.
    pub(super) const fn timing(&self) -> HeartbeatTiming {
        self.timing
    }

    /// What tells the peer what this director is.
    pub(super) fn witness(&self) -> Box<dyn Witness> {
        Box::new(Mouth(self.voice.clone()))
    }
}

/// The running sync.
#[derive(Debug)]
pub(super) struct ConnSync {
    running: Arc<Running>,
    node: String,
    path: String,
    waiting: Waiting,
    notices: watch::Receiver<Option<Notice>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl ConnSync {
    /// Starts the thread. The election hears of heartbeats and of the gate through `inputs`, at first that it is closed.
    ///
    /// # Errors
    ///
    /// The key file cannot be used, or the kernel refuses a thread.
    pub(super) fn start(
        config: &Config,
        director: &Director,
        datapath: &Arc<Datapath>,
        prepared: Prepared,
        inputs: Inputs,
    ) -> Result<Option<Self>> {
        let Some(sync) = &config.sync else { return Ok(None) };
        let Prepared { voice, timing } = prepared;
        let settings = settings::settings(config, sync, director)?;
        let path = settings::path(config, sync, director)?;
        if settings.insecure {
            warn!("sync: UNPROTECTED (insecure = true): whoever reaches {} can forge conns", sync.path());
        }
        let closed = GateState::Closed { reason: "the sync has not begun yet".into(), bound: sync.wait };
        inputs.input(ha::Input::Gate(closed));
        let table = ConnTable::open(datapath).context("open the packet path's table for the sync")?;
        let bell = voice.bell().clone();
        let table = Ear { table, voice, patience: timing.lost(), told: None };
        let (tell, happened) = mpsc::channel(EVENTS);
        let (hear, notices) = watch::channel(None);
        let waiting = Waiting::default();
        let (witness, drained) = (inputs.clone(), waiting.clone());
        let listener = Box::new(move |event: Happened| match event {
            Happened::Beat(beat) => {
                // A thread that does not keep up hears the next one.
                witness.input(ha::Input::Heartbeat(voice::beat(beat)));
            }
            Happened::Notice(notice) => drop(hear.send_replace(notice)),
            Happened::Drained(result) => {
                let all = std::mem::take(&mut *drained.lock().unwrap_or_else(PoisonError::into_inner));
                for one in all {
                    // Who does not wait any more does not need the answer.
                    let _ = one.send(result);
                }
            }
            Happened::Event(_) | Happened::Line(_) => {
                // The log may be behind; the thread must not wait for it.
                let _ = tell.try_send(event);
            }
        });
        let running = Running::start(settings, path, table, listener, bell).context("start the sync")?;
        let running = Arc::new(running);
        running.tell(Input::Services(settings::services(config)));
        let names = events::Names::new(config);
        let log = tokio::spawn(events::follow(happened, names, sync.path()));
        let gate = tokio::spawn(follow_gate(running.clone(), inputs, sync.wait));
        Ok(Some(Self {
            running,
            node: director.name.clone(),
            path: sync.path(),
            waiting,
            notices,
            tasks: Mutex::new(vec![log, gate]),
        }))
    }

    /// The services that conns of the peer may belong to have changed.
    pub(super) fn services(&self, config: &Config) {
        self.running.tell(Input::Services(settings::services(config)));
    }

    /// The peer shall have this, instead of what was said before.
    pub(super) fn say(&self, notice: Notice) {
        self.running.tell(Input::Notice(notice));
    }

    /// What the peer says in its notice; `None`: it is gone, or says nothing.
    pub(super) fn notices(&self) -> watch::Receiver<Option<Notice>> {
        self.notices.clone()
    }

    /// Waits until the peer has everything that is known here, for a second at most.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) async fn drain(&self) -> Result<(), String> {
        self.drain_within(DRAIN).await
    }

    /// The sync at a glance, of this very moment: what the packet path has told by now has reached the peer, or the
    /// answer says that it has not.
    pub(super) async fn asked(&self, config: &Config, fault: bool) -> SyncView {
        let late = match tokio::task::block_in_place(|| self.running.status()).state {
            State::Equal => self.drain_within(ASK).await.err(),
            // What is missing is known.
            _ => None,
        };
        tokio::task::block_in_place(|| self.view(config, fault, late.as_deref()))
    }

    async fn drain_within(&self, within: Duration) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        tokio::task::block_in_place(|| self.running.tell(Input::Drain { within }));
        // The core keeps the time; a thread that is dead does not.
        let answer = time::timeout(within * 2, answer).await;
        match answer {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(stalled))) => Err(events::stalled(stalled, within)),
            Ok(Err(_)) | Err(_) => Err("the thread of the sync does not answer".to_owned()),
        }
    }

    /// Tells the peer the last changes and goodbye.
    pub(super) async fn stop(&self) {
        // Between the hand-over and now, the packet path has gone on.
        let _ = self.drain_within(LAST).await;
        tokio::task::block_in_place(|| self.running.stop());
        for task in std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
    }

    /// The thread has ended without being told to.
    pub(super) fn is_dead(&self) -> bool {
        self.running.is_dead()
    }
}

/// Keeps the gate where the sync says that it belongs.
async fn follow_gate(running: Arc<Running>, inputs: Inputs, bound: Duration) {
    let mut ticks = time::interval(LOOK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let (status, trouble) = tokio::task::block_in_place(|| (running.status(), running.trouble()));
        let state = gate::gate(&status, trouble.as_deref(), bound);
        if told.as_ref() != Some(&state) && inputs.input(ha::Input::Gate(state.clone())) {
            told = Some(state);
        }
    }
}

/// What is wrong with the key file of a config, as far as this host can tell; `None`: nothing, or there is none.
#[must_use]
pub fn check_key(path: &Path) -> Option<String> {
    let config = config::check_file(path).config?;
    let file = config.sync?.key_file?;
    let error = crate::sync::read_keys(&file).err()?;
    Some(format!("{}: warning: {}", path.display(), settings::key_trouble(&file, &error)))
}

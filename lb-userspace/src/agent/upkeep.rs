//! The agent's periodic work: events, sweeps, next hops. One task each, stopped together.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use lb_common::event::EventKind;
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time,
};
use tracing::{debug, warn};

use super::{checking, refused, state::State};
use crate::datapath::{Sweep, hops};

/// The pause between two sweeps, at least.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a sweep as a multiple of its work, so that a full table does not take a core: 5 % at most.
const PAUSE_PER_WORK: u32 = 19;
/// The pause between two sweeps, at most: what is over is not kept for longer.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause between two slices of a sweep, in which packets have the CPU for themselves.
const SLICE_PAUSE: Duration = Duration::from_millis(1);
/// The pause before a broken subscription is made anew.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
/// Records of the event ring that are handled in one go.
const EVENTS_AT_ONCE: usize = 4096;

/// The running tasks.
#[derive(Debug)]
pub(super) struct Upkeep {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Upkeep {
    /// Ends all tasks and waits for them: none is left in the middle of a change.
    pub(super) async fn stop(mut self) {
        // Nobody listening means that all tasks have ended.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts the work.
pub(super) fn start(state: &Arc<State>) -> Upkeep {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(until(stopped.clone(), follow_events(state.clone())));
    tasks.spawn(sweep(state.clone(), stopped.clone()));
    tasks.spawn(until(stopped.clone(), follow_network(state.clone())));
    tasks.spawn(checking::follow(state.clone(), stopped));
    Upkeep { tasks, stop }
}

/// Runs a task that can be dropped at any await until the agent stops.
async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that the sender is gone: the agent is stopping.
        _ = stopped.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Reads the event ring, unless the sync does.
async fn follow_events(state: Arc<State>) {
    let Some(mut events) = state.datapath().take_events() else { return };
    let mut records = Vec::with_capacity(EVENTS_AT_ONCE);
    loop {
        records.clear();
        events.next(&mut records, EVENTS_AT_ONCE).await;
        for event in &records {
            if matches!(event.kind, EventKind::Refused | EventKind::Miss) {
                refused::log(event);
            }
        }
    }
}

/// Removes expired conns and frees the ids of backends that nothing refers to any more.
async fn sweep(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let pause = match sweep_once(&state).await {
            Ok(work) => (work * PAUSE_PER_WORK).clamp(SWEEP_PAUSE, SWEEP_PAUSE_MAX),
            Err(error) => {
                warn!(%error, "the sweep failed; it is tried again");
                SWEEP_PAUSE
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = time::sleep(pause) => {}
        }
    }
}

/// Answers how long it has worked, pauses not counted.
async fn sweep_once(state: &Arc<State>) -> Result<Duration> {
    let mut work = Duration::ZERO;
    let mut sweep = Sweep::new(state.datapath(), &state.timeouts())?;
    let summary = loop {
        let (owner, mut moved) = (state.clone(), sweep);
        let (back, done, took) = spawn_blocking(move || {
            let began = time::Instant::now();
            let done = owner.step(&mut moved);
            (moved, done, began.elapsed())
        })
        .await?;
        sweep = back;
        work += took;
        if let Some(summary) = done? {
            break summary;
        }
        time::sleep(SLICE_PAUSE).await;
    };
    for id in state.datapath().reclaim(&summary.entries())? {
        debug!(id, "the last conn of a removed backend is gone");
    }
    if summary.removed() != 0 {
        debug!(removed = summary.removed(), "expired");
    }
    state.set_swept(summary);
    Ok(work)
}

/// Follows links, addresses, routes and neighbours, and keeps those of the backends warm.
async fn follow_network(state: Arc<State>) {
    loop {
        let Err(error) = hops::watch(state.datapath()).await;
        warn!(%error, "changes of routes and neighbours are not followed; trying again");
        time::sleep(WATCH_AGAIN).await;
    }
}

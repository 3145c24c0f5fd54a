//! The agent's side of the control socket.
//!
//! Owns the socket file, the limits that keep a hostile or stuck client from harming the agent, and the way from a
//! request to its answer. What the answers say comes from a [`Handler`].

mod rate;
mod session;
mod sink;
mod socket;

pub use sink::ConnSink;
pub use socket::{BindError, ControlSocket};

use super::protocol::{
    ApiError, BackendAnswer, BackendCommand, ConnFilter, DiffView, ErrorCode, FailoverAnswer, MAX_REQUEST, ServiceView,
    StatsView, Status, SyncView,
};
use lb_common::counter::Counter;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::{debug, warn};

/// A future answer.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Answers the verbs. Each client has a task of its own, so calls come concurrently.
pub trait Handler: Send + Sync + 'static {
    /// The agent at a glance.
    fn status(&self) -> Reply<'_, Status>;

    /// All services in the order of the config.
    fn services(&self) -> Reply<'_, Vec<ServiceView>>;

    /// Walks the conns, pushing each into `sink` until it breaks off.
    ///
    /// Runs on a thread where blocking is allowed: a push waits for a slow client, so hold no lock across one. The
    /// sink applies the filter; testing it earlier only saves work.
    ///
    /// # Errors
    ///
    /// What kept the walk from going on; the client sees it behind the conns pushed so far.
    fn conns(&self, filter: &ConnFilter, sink: &mut ConnSink) -> Result<(), ApiError>;

    /// The traffic of all services; `rate` is made of two readings.
    fn stats(&self) -> Reply<'_, Vec<StatsView>>;

    /// All counters of the packet path, summed over the CPUs; `drops` explains those that are drops.
    fn counters(&self) -> Reply<'_, Vec<(Counter, u64)>>;

    /// Changes a backend; [`BackendCommand::find`] tells which one.
    fn backend(&self, command: BackendCommand) -> Reply<'_, BackendAnswer>;

    /// Gives the role to the peer, and takes it back if it is a drill; `force`: even if the peer lacks conns.
    fn failover(&self, drill: bool, force: bool) -> Reply<'_, FailoverAnswer>;

    /// Connection sync and the peer.
    fn peer(&self) -> Reply<'_, SyncView>;

    /// Conns that are not known to be the same on both directors, at most `limit`.
    fn diff(&self, limit: u64) -> Reply<'_, Vec<DiffView>>;
}

/// What a client may take of the agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at a time.
    pub clients: usize,
    /// Bytes of a request line.
    pub line: usize,
    /// How long a client may take to send its next request.
    pub idle: Duration,
    /// How long a client may read nothing of an answer.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { clients: 32, line: MAX_REQUEST, idle: Duration::from_secs(60), stall: Duration::from_secs(30) }
    }
}

/// Serves the socket until the future is dropped, which closes all clients and removes the socket file.
pub async fn serve(socket: ControlSocket, handler: Arc<dyn Handler>) {
    serve_with(socket, handler, Limits::default()).await;
}

/// [`serve`] with other limits.
pub async fn serve_with(socket: ControlSocket, handler: Arc<dyn Handler>, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.clients));
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a control session failed");
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors: the waiting client stays in the queue, so do not spin on it.
                warn!(%error, "control socket: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                let handler = Arc::clone(&handler);
                sessions.spawn(async move {
                    if let Err(error) = session::run(stream, handler, limits).await {
                        debug!(%error, "a control client went away");
                    }
                    drop(slot);
                });
            }
            Err(_) => {
                let message = format!("the agent already serves {} clients; try again", limits.clients);
                session::turn_away(&stream, &ApiError::new(ErrorCode::Busy, message));
            }
        }
    }
}

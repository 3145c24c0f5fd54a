//! The role on the operator's word: given to the peer, and taken back, with what that cost as far as one side can tell.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tokio::{sync::broadcast, time::timeout};
use tracing::warn;

use super::Pair;
use crate::{
    control::protocol::{ApiError, ErrorCode},
    failover::{Event, Happened},
    ha::{Cause, Input, Role},
};

/// What comes on top of the protocol's own times: a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// A change of the role that went well.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Moved {
    /// The other director.
    pub(in crate::agent) peer: Option<Ipv4Addr>,
    /// From the last word of the old Active to the first of the new one.
    pub(in crate::agent) gap: Duration,
}

impl Pair {
    /// Gives the role to the peer, and waits until it was heard as Active. A peer that lacks conns gets it only by force.
    pub(in crate::agent) async fn give_away(&self, force: bool) -> Result<Moved, ApiError> {
        let role = self.role()?;
        if role != Role::Active {
            let message = format!("this director is {}: only the Active can give its role away", role.name());
            return Err(ApiError::new(ErrorCode::WrongRole, message));
        }
        let mut events = self.events.subscribe();
        if let Some(sync) = self.sync()
            && let Err(why) = sync.drain().await
        {
            if !force {
                let message = format!(
                    "this director keeps its role: {why}, so open sessions would break (`lbctl peer` shows how far it \
                     is); `lbctl failover --force` gives the role away all the same"
                );
                return Err(ApiError::new(ErrorCode::NotSynced, message));
            }
            warn!("the role is given away by force, although {why}");
        }
        self.tell(Input::HandOver)?;
        let mut gave = None;
        let outcome = self.until(&mut events, |event| match event.what {
            Happened::Role { role: Role::Active, .. } => Some(Err(event.at)),
            Happened::Role { .. } => {
                gave = Some(event.at);
                None
            }
            Happened::TakenOver { by, after, .. } => Some(Ok(Moved { peer: Some(by), gap: after })),
            _ => None,
        });
        match outcome.await {
            Some(Ok(moved)) => Ok(moved),
            Some(Err(at)) => Err(ApiError::internal(nobody(gave, at))),
            None if gave.is_none() => Err(ApiError::internal(
                "this director keeps its role: its peer says on the sync path that it cannot take it",
            )),
            None => Err(ApiError::internal("no director took over in time: look at the status of both")),
        }
    }

    /// Takes the role back from the peer.
    pub(in crate::agent) async fn take_back(&self) -> Result<Moved, ApiError> {
        let mut events = self.events.subscribe();
        self.tell(Input::TakeOver)?;
        let taken = self.until(&mut events, |event| match event.what {
            Happened::Role { role: Role::Active, silence, .. } => {
                Some(Ok(Moved { peer: None, gap: silence.unwrap_or_default() }))
            }
            Happened::Role { role: Role::Fault, cause, .. } => Some(Err(cause)),
            _ => None,
        });
        match taken.await {
            Some(Ok(moved)) => Ok(moved),
            Some(Err(cause)) => Err(ApiError::internal(self.broken(cause))),
            None => Err(ApiError::internal("the peer keeps the role, although it was asked to give way")),
        }
    }

    fn broken(&self, cause: Cause) -> String {
        let cause = super::events::describe(cause, self.failover.config(), &self.details);
        format!("this director cannot take the role back: {cause}")
    }

    fn role(&self) -> Result<Role, ApiError> {
        let status = self.status().ok_or_else(|| ApiError::internal("the timer thread does not answer"))?;
        Ok(status.election.role)
    }

    fn tell(&self, input: Input) -> Result<(), ApiError> {
        if self.failover.input(input) { Ok(()) } else { Err(ApiError::internal("the timer thread does not keep up")) }
    }

    /// The first answer that `look` finds in the events, within the protocol's own time.
    async fn until<T>(
        &self,
        events: &mut broadcast::Receiver<Event>,
        mut look: impl FnMut(&Event) -> Option<T>,
    ) -> Option<T> {
        let intervals = self.failover.config().transports.iter().map(|transport| transport.interval.duration());
        let limit = 4 * intervals.max().unwrap_or_default() + SLACK;
        let search = async {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Some(found) = look(&event) {
                            return Some(found);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        timeout(limit, search).await.ok().flatten()
    }
}

fn nobody(gave: Option<Instant>, took: Instant) -> String {
    let without = gave.map(|gave| took.saturating_duration_since(gave)).unwrap_or_default();
    format!("no other director took over; this one is Active again after {without:.1?}")
}

//! What happens to this director, as one line of the log each, and to the operator's hook.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{broadcast, mpsc};
use tracing::{info, warn};

use super::{checks::Details, notify};
use crate::{
    failover::{Difference, Event, Happened},
    ha::{self, Cause, Role},
};

/// Names for what events carry as numbers.
#[derive(Debug)]
pub(super) struct Log {
    config: ha::Config,
    details: Arc<Details>,
    node: String,
}

impl Log {
    pub(super) const fn new(config: ha::Config, details: Arc<Details>, node: String) -> Self {
        Self { config, details, node }
    }

    fn line(&self, event: &Event) {
        let config = &self.config;
        match &event.what {
            // It has only begun to listen.
            Happened::Role { cause: Cause::Start, .. } => {
                info!(role = Role::Backup.name(), node = self.node, "takes part");
            }
            Happened::Role { role, cause, was, .. } => {
                let cause = describe(*cause, config, &self.details);
                if *role == Role::Fault {
                    warn!(role = role.name(), was = was.name(), cause, "role");
                } else {
                    info!(role = role.name(), was = was.name(), cause, "role");
                }
            }
            Happened::Alarm { alarm, raised: true } => warn!(alarm = alarm.name(), "{}", alarm.describe(config)),
            Happened::Alarm { alarm, raised: false } => info!(alarm = alarm.name(), "no longer"),
            Happened::Late { by } => warn!(?by, "this director was asleep: it listens before it speaks"),
            Happened::TakenOver { by, transport, after } => {
                info!(%by, on = config.transport(*transport), ?after, "another director has taken over");
            }
            Happened::Differs { from, transport, what } => {
                warn!(%from, on = config.transport(*transport), "{}", difference(*what));
            }
            Happened::Ignored { from, transport, reason } => warn!(
                %from,
                on = config.transport(*transport),
                "adverts for our VIPs are ignored: {reason}; if this is the other director, both will be Active"
            ),
            Happened::Restored => warn!("somebody took VIPs off this director: they are back"),
            Happened::Failed { what, error } => warn!(error, "cannot {what}"),
        }
    }
}

const fn difference(what: Difference) -> &'static str {
    match what {
        Difference::Checksum => {
            "the peer computes the checksum of its adverts in the other way; if it does not hear this director, set \
             `checksum` of [vrrp]"
        }
        Difference::Addresses => "the peer's adverts list other VIPs: both directors need the same [[vip]]s",
        Difference::Interval => "the peer's adverts come in another interval: both directors need the same `advert`",
    }
}

/// A cause with all that is known about it.
pub(super) fn describe(cause: Cause, config: &ha::Config, details: &Details) -> String {
    let mut text = cause.describe(config);
    if let Cause::CheckFailed { check } = cause
        && let Some(detail) = details.get(check)
    {
        text = format!("{text}: {detail}");
    }
    text
}

/// Writes the log and runs the hook, until the timer thread ends.
pub(super) async fn follow(
    mut events: mpsc::Receiver<Event>,
    log: Log,
    hook: Option<PathBuf>,
    others: broadcast::Sender<Event>,
) {
    let hook = hook.map(notify::Hook::start);
    while let Some(event) = events.recv().await {
        log.line(&event);
        // Nobody has to listen.
        let _ = others.send(event.clone());
        if let (Some(hook), Happened::Role { role, cause, was, .. }) = (&hook, &event.what) {
            hook.tell(&notify::Change {
                node: log.node.clone(),
                role: role.name(),
                was: was.name(),
                cause: describe(*cause, &log.config, &log.details),
            });
        }
    }
    if let Some(hook) = hook {
        hook.finish().await;
    }
}

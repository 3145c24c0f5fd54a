//! What the sync tells, as one line of the log each.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::settings;
use crate::{
    config::Config,
    sync::{Event, Happened},
};

/// Names for what events carry as numbers.
#[derive(Debug)]
pub(super) struct Names(Vec<(u16, String)>);

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let names = config.directors.iter().map(|director| director.name.clone());
        Self(names.map(|name| (settings::number_of(&name), name)).collect())
    }

    fn of(&self, number: u16) -> String {
        let known = self.0.iter().find(|(known, _)| *known == number);
        known.map_or_else(|| format!("number {number}"), |(_, name)| name.clone())
    }
}

/// Writes the log until the thread of the sync ends.
pub(super) async fn follow(mut happened: mpsc::Receiver<Happened>, names: Names, path: String) {
    while let Some(happened) = happened.recv().await {
        line(&happened, &names, &path);
    }
}

fn line(happened: &Happened, names: &Names, path: &str) {
    match happened {
        Happened::Beat(_) | Happened::Notice(_) | Happened::Drained(_) => {}
        Happened::Line(true) => info!(path, "sync: the path works"),
        Happened::Line(false) => warn!(path, "sync: the path does not work; `lbctl peer` says why"),
        Happened::Event(event) => match event {
            Event::PeerUp { node, resumed: true, .. } => info!(peer = names.of(*node), "sync: the peer is back"),
            Event::PeerUp { node, resumed: false, .. } => {
                info!(peer = names.of(*node), "sync: a peer that knows no conns of ours: everything is sent");
            }
            Event::PeerDown { leaving: true } => warn!("sync: the peer said goodbye: conns are known here only"),
            Event::PeerDown { leaving: false } => {
                warn!("sync: the peer is not heard any more: conns are known here only");
            }
            Event::BulkDone => info!("sync: both directors have told each other everything"),
            Event::Equal => info!("sync: both directors have the same conns"),
            Event::Diverged => warn!("sync: the conns of the directors differ, and are being repaired"),
            Event::ConfigDiffers(true) => {
                warn!("sync: the peer has other services or backends: conns of those that are not here are refused");
            }
            Event::ConfigDiffers(false) => info!("sync: both directors have the same services and backends"),
        },
    }
}

/// A drain as people read it.
pub(super) fn stalled(why: crate::sync::Stalled, within: Duration) -> String {
    match why {
        crate::sync::Stalled::NoPeer => "the peer is not heard on the sync path".to_owned(),
        crate::sync::Stalled::Late => format!("the peer did not confirm all conns within {within:?}"),
    }
}

//! From the running sync to what operators see.

use std::collections::BTreeMap;

use super::{ConnSync, gate, settings};
use crate::{
    config::Config,
    control::protocol::{DiffView, SyncCounters, SyncPeerView, SyncView},
    sync::{self, Counters, Difference, PeerStatus, Refused, Rejected, State},
};

impl ConnSync {
    /// The sync at a glance; `fault`: this director must not be Active; `late`: why the peer does not have the latest
    /// changes.
    pub(in crate::agent) fn view(&self, config: &Config, fault: bool, late: Option<&str>) -> SyncView {
        let (status, trouble) = (self.running.status(), self.running.trouble());
        let peer = status.peer.as_ref().map(|peer| peer_view(config, peer));
        let name = peer.as_ref().and_then(|peer| peer.name.clone()).unwrap_or_else(|| "the peer".to_owned());
        SyncView {
            node: self.node.clone(),
            path: self.path.clone(),
            protected: !status.insecure,
            state: status.state.name().to_owned(),
            bulk: match status.state {
                State::Bulk { done, total } => Some([done, total]),
                _ => None,
            },
            safe: match late {
                Some(why) if status.state == State::Equal => {
                    gate::unsafe_now(format!("what {} knows at this moment has not reached {name}: {why}", self.node))
                }
                _ => gate::safety(&status, fault, &self.node, &name, trouble.as_deref()),
            },
            trouble,
            conns: status.conns as u64,
            ends: status.ends as u64,
            queued: status.queued as u64,
            lag_us: u64::try_from(status.lag.as_micros()).unwrap_or(u64::MAX),
            under_way: status.under_way,
            memory_bytes: status.bytes as u64,
            peer,
            refused: counted(Refused::ALL, Refused::name, |cause| status.counters.refused(cause)),
            rejected: counted(Rejected::ALL, Rejected::name, |cause| status.counters.rejected(cause)),
            counters: counters(&status.counters),
        }
    }

    /// Conns that are not known to be the same on both, at most `limit`.
    pub(in crate::agent) fn differences(&self, limit: u64) -> Vec<DiffView> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let core = self.running.core();
        let view = |(conn, ended, why): (sync::Conn, bool, Difference)| DiffView {
            client: conn.key.client,
            vip: conn.key.vip,
            destination: conn.backend,
            state: conn.state(),
            idle_seconds: conn.idle().duration().as_secs(),
            ended,
            why: why.name().to_owned(),
        };
        core.differences().take(limit).map(view).collect()
    }
}

fn peer_view(config: &Config, peer: &PeerStatus) -> SyncPeerView {
    let role = match peer.beat.role {
        sync::Role::Active => "Active",
        sync::Role::Backup => "Backup",
        sync::Role::Fault => "Fault",
        sync::Role::Leaving => "leaving",
    };
    SyncPeerView {
        name: settings::name_of(config, peer.node),
        number: peer.node,
        role: role.to_owned(),
        priority: peer.beat.priority,
        heard_ms: millis(peer.heard),
        conns: u64::from(peer.conns),
        refused: u64::from(peer.refused),
        config_differs: peer.config_differs,
        equal_ms: peer.equal.map(millis),
        epoch: peer.epoch.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn counters(counters: &Counters) -> SyncCounters {
    SyncCounters {
        sent_frames: counters.sent.frames,
        sent_bytes: counters.sent.bytes,
        received_frames: counters.received.frames,
        received_bytes: counters.received.bytes,
        missing: counters.missing,
        resent: counters.resent,
        deltas: counters.deltas,
        bulk: counters.bulk,
        gone: counters.gone,
        activity: counters.activity,
        activity_left_out: counters.activity_left_out,
        forgotten: counters.forgotten,
        created: counters.created,
        removed: counters.removed,
        contested: counters.contested,
        repaired: counters.repaired,
        pulled: counters.pulled,
    }
}

/// Causes that were counted at all.
fn counted<C: Copy>(all: &[C], name: impl Fn(C) -> &'static str, count: impl Fn(C) -> u64) -> BTreeMap<String, u64> {
    all.iter().filter(|cause| count(**cause) > 0).map(|cause| (name(*cause).to_owned(), count(*cause))).collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

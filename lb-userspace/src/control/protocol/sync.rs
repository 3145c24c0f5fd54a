//! What the agent shows of connection sync: the answer of `peer`, of which `status` prints a line, and of `diff`.

use super::names;
use lb_common::tcp::State;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddrV4};

/// Connection sync as this director sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncView {
    /// This director.
    pub node: String,
    /// Where the peer is spoken to.
    pub path: String,
    /// Frames are sealed with a key; false: the operator asked for none.
    pub protected: bool,
    /// Why the path does not work; absent: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// `no-peer`, `hello`, `bulk`, `equal` or `diverged`.
    pub state: String,
    /// Conns sent and received, of how many, while the state is `bulk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<[u32; 2]>,
    /// May a director be taken down now?
    pub safe: SafetyView,
    /// Conns here.
    pub conns: u64,
    /// Ends of conns that the peer may not know.
    pub ends: u64,
    /// Conns whose changes wait to be sent.
    pub queued: u64,
    /// How long the oldest of them waits.
    pub lag_us: u64,
    /// Frames sent and not acknowledged.
    pub under_way: u64,
    /// Memory of the agent for it, in bytes.
    pub memory_bytes: u64,
    /// The peer; absent: no session is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SyncPeerView>,
    /// What was done.
    pub counters: SyncCounters,
    /// Frames that did not count, by cause ([`crate::sync::Refused`]).
    pub refused: BTreeMap<String, u64>,
    /// Records that did not count, by cause ([`crate::sync::Rejected`]).
    pub rejected: BTreeMap<String, u64>,
}

/// May a director be taken down without losing an open session?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafetyView {
    /// The one that was asked.
    pub this: bool,
    /// The other one.
    pub peer: bool,
    /// The answer as a sentence; with the reason, if one of them must stay.
    pub answer: String,
}

/// The peer of an open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPeerView {
    /// Its name; absent: no director of the config has its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number on the wire.
    pub number: u16,
    /// `Active`, `Backup`, `Fault` or `leaving`, as it says.
    pub role: String,
    /// Its priority, as it says.
    pub priority: u8,
    /// How long ago it was heard.
    pub heard_ms: u64,
    /// Conns there.
    pub conns: u64,
    /// Conns of ours that it did not take.
    pub refused: u64,
    /// It has other services or backends.
    pub config_differs: bool,
    /// How long ago both tables were last found equal; absent: not yet in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_ms: Option<u64>,
    /// Changes when its agent starts.
    pub epoch: String,
}

/// Counts since the start of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCounters {
    /// Frames sent.
    pub sent_frames: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Frames received that counted.
    pub received_frames: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Frames of the peer that were missing, and came again.
    pub missing: u64,
    /// Frames that the peer was missing.
    pub resent: u64,
    /// Conns sent as they changed.
    pub deltas: u64,
    /// Conns sent in bulk.
    pub bulk: u64,
    /// Ends of conns sent.
    pub gone: u64,
    /// Reports of activity sent.
    pub activity: u64,
    /// Reports of activity left out, because there was too much else to do.
    pub activity_left_out: u64,
    /// Ends of conns forgotten, because the peer was away for too long.
    pub forgotten: u64,
    /// Conns taken over from the peer.
    pub created: u64,
    /// Conns removed because the peer said so.
    pub removed: u64,
    /// Times that both had different conns of one key, and this one stayed.
    pub contested: u64,
    /// Buckets sent anew because their digests differed.
    pub repaired: u64,
    /// Conns asked for because a packet missed them.
    pub pulled: u64,
}

/// A conn that is not known to be the same on both directors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffView {
    /// The client.
    pub client: SocketAddrV4,
    /// The VIP.
    pub vip: SocketAddrV4,
    /// The backend.
    pub destination: SocketAddrV4,
    /// Its state here.
    #[serde(with = "names")]
    pub state: State,
    /// Its silence here.
    pub idle_seconds: u64,
    /// It has ended here; false: it is open here.
    pub ended: bool,
    /// What is missing: `waits`, `under-way` or `unknown`.
    pub why: String,
}

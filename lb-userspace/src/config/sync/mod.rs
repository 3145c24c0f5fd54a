//! `[sync]`: over which path the directors tell each other of their conns, what protects it, and how patient they are.
//! Reading, and what must hold, is `read`. Whether the key file can be used is a question for run time.

mod read;

use std::{net::SocketAddrV4, path::PathBuf, time::Duration};

use serde::{Serialize, Serializer};

use super::duration::format_duration;

pub(super) use read::{Draft, read, validate};

/// The port of the sync, unless the group names another one.
pub const SYNC_PORT: u16 = 8848;

/// The `[sync]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sync {
    /// The interface to the other director.
    pub interface: String,
    /// Where the other director is.
    #[serde(serialize_with = "peer")]
    pub peer: SyncPeer,
    /// The file with the pre-shared key; `None`: unprotected, as the operator asked for.
    pub key_file: Option<PathBuf>,
    /// The pause between two heartbeats, 10 ms to 10 s.
    #[serde(serialize_with = "duration")]
    pub heartbeat: Duration,
    /// So many missing ones mean that the path, or the peer, is gone; 2 to 100.
    pub heartbeat_lost_after: u32,
    /// How long at most a director that does not have all conns leaves a living Active in peace.
    #[serde(serialize_with = "duration")]
    pub wait: Duration,
    /// How often the conn table is looked through for conns in use, 100 ms to 10 min.
    #[serde(serialize_with = "duration")]
    pub refresh: Duration,
}

/// Where the other director is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPeer {
    /// In a multicast group.
    Group(SocketAddrV4),
    /// At its address on the interface, from `[director.NAME]`.
    Unicast,
}

impl Sync {
    /// The path in a few words.
    #[must_use]
    pub fn path(&self) -> String {
        match self.peer {
            SyncPeer::Group(group) => format!("{group} on {}", self.interface),
            SyncPeer::Unicast => format!("unicast on {}", self.interface),
        }
    }
}

fn peer<S: Serializer>(value: &SyncPeer, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        SyncPeer::Group(group) => serializer.collect_str(group),
        SyncPeer::Unicast => serializer.serialize_str("unicast"),
    }
}

fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_duration(*value))
}

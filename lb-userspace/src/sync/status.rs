//! What the operator and the gate see.

use std::time::Duration;

use super::{Counters, crypto::Random, input::Beat};

/// How far both directors are with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No peer is heard.
    NoPeer,
    /// A peer is heard, and no session is open yet.
    Hello,
    /// Everything is being sent, or has not been compared yet.
    Bulk {
        /// Conns sent and received.
        done: u32,
        /// Of so many.
        total: u32,
    },
    /// Both tables were equal when they were last compared.
    Equal,
    /// They were not, and are being repaired.
    Diverged,
}

impl State {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPeer => "no-peer",
            Self::Hello => "hello",
            Self::Bulk { .. } => "bulk",
            Self::Equal => "equal",
            Self::Diverged => "diverged",
        }
    }
}

/// What is missing until the peer is known to have a conn as it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is to be told.
    Waits,
    /// It was told, and has not confirmed.
    UnderWay,
    /// It was told once, and may not have taken it.
    Unknown,
}

impl Difference {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::UnderWay => "under-way",
            Self::Unknown => "unknown",
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    /// How far both are.
    pub state: State,
    /// This director's number.
    pub node: u16,
    /// This director's epoch.
    pub epoch: Random,
    /// No key is configured.
    pub insecure: bool,
    /// Conns here.
    pub conns: usize,
    /// Ends of conns that the peer may not know.
    pub ends: usize,
    /// Conns whose changes wait to be sent.
    pub queued: usize,
    /// How long the oldest of them waits.
    pub lag: Duration,
    /// Frames sent and not acknowledged.
    pub under_way: u64,
    /// This director knows that it knows the packet path's table.
    pub settled: bool,
    /// Bytes that the index and the queues hold.
    pub bytes: usize,
    /// The peer, while a session is open.
    pub peer: Option<PeerStatus>,
    /// What was counted.
    pub counters: Counters,
}

/// The peer of an open session.
#[derive(Clone, Copy, Debug)]
pub struct PeerStatus {
    /// Its number.
    pub node: u16,
    /// Its epoch.
    pub epoch: Random,
    /// Its minor version of the wire.
    pub minor: u8,
    /// Its last heartbeat.
    pub beat: Beat,
    /// How long ago it was heard.
    pub heard: Duration,
    /// Conns there.
    pub conns: u32,
    /// Conns of ours that it did not take.
    pub refused: u32,
    /// It has other services or backends.
    pub config_differs: bool,
    /// How long ago both tables were last found equal; `None`: not yet in this session.
    pub equal: Option<Duration>,
}

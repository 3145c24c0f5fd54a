//! What the checks of a backend have found.

use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// The checks of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// The service's name.
    pub service: String,
    /// The backend's address and port.
    pub address: SocketAddrV4,
    /// How deep the checks look.
    pub level: String,
    /// `primary`, `backup` or `sorry`.
    pub tier: String,
    /// `up`, `standby`, `full`, `draining`, `disabled` or `down`.
    pub state: String,
    /// How long it has been so, as far as this agent knows.
    pub since_seconds: u64,
    /// Why its health is what it is.
    pub cause: String,
    /// What hinders the check, with a remedy; the health is what was last known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How much of its share it has, after a recovery.
    pub warm_percent: u32,
    /// When what is left of a drain is reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
    /// The conns that it still has, if it takes no new ones by the operator's will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftView>,
    /// `up` or `down`: what the other director's checks think of it at this moment, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `down-here-only` or `down-there-only`: a difference between the directors that lasts, a fault of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<String>,
    /// Checks in a row that speak for a change.
    pub counted: u32,
    /// How many it takes.
    pub needed: u32,
    /// How late a check has come at most.
    pub late_us: u64,
    /// What the server says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerView>,
    /// The last checks, oldest first, equal ones folded.
    pub history: Vec<CheckLine>,
}

/// Established conns of a backend that is to lose them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftView {
    /// How many.
    pub conns: u64,
    /// Since the oldest of them was created.
    pub oldest_seconds: u64,
    /// How many of them have had no packet for a minute or longer.
    pub idle: u64,
}

/// Equal checks in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// `pass`, `fail`, `full`, `blocked`, `check-user` or `unmade`.
    pub outcome: String,
    /// What there is to say.
    pub text: String,
    /// How many.
    pub count: u64,
    /// When the first of them ended.
    pub first_seconds_ago: u64,
    /// When the last of them ended.
    pub last_seconds_ago: u64,
    /// How long the last one took.
    pub latency_us: u64,
    /// How long the slowest one took.
    pub slowest_us: u64,
}

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its version.
    pub version: String,
    /// How long it lets a session idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_timeout_seconds: Option<u64>,
    /// How many sessions it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

//! What the agent shows: the shapes of all answers, equal to the JSON that `lbctl -o json` prints.
//!
//! Addresses are `IP:port`, enums go by their names in `lb-common`, times are whole seconds, sizes are bytes.

use super::{CheckView, LeftView, SyncView, VrrpView, names};
use lb_common::{
    backend::BackendState,
    conn::{Origin, Proto},
    service::Scheduler,
    tcp::State,
};
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddrV4, path::PathBuf};

/// Where the packet path runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// XDP in the driver.
    Xdp,
    /// XDP in the kernel's generic receive path.
    XdpGeneric,
    /// The TC ingress hook.
    Tc,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        })
    }
}

/// The agent and its packet path at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the control protocol.
    pub version: u32,
    /// The release of the agent.
    pub agent_version: String,
    /// The version of the map layout ([`lb_common::abi::ABI_VERSION`]).
    pub abi: u32,
    /// The agent's process id.
    pub pid: u32,
    /// How long this agent process has run.
    pub uptime_seconds: u64,
    /// The config in use.
    pub config_path: PathBuf,
    /// Where maps and links are pinned, the ABI's directory included.
    pub pin_dir: PathBuf,
    /// One per configured interface.
    pub interfaces: Vec<InterfaceView>,
    /// The tables of the packet path.
    pub tables: Vec<TableView>,
    /// Number of services.
    pub services: u64,
    /// Number of backends, over all services.
    pub backends: u64,
    /// How many of them take new conns.
    pub backends_up: u64,
    /// Event records lost because the ring was full.
    pub events_lost: u64,
    /// What the operator should look at, each a sentence with a remedy.
    pub warnings: Vec<String>,
    /// The backends that are checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
    /// The election; absent: this director is alone, and always Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<VrrpView>,
    /// Connection sync; absent: there is none, and open sessions end with the director that carries them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncView>,
}

/// The packet path on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The hook in use.
    pub mode: Mode,
    /// Why this hook.
    pub why: String,
    /// The id of the BPF link; it survives a restart of the agent.
    pub link_id: u32,
    /// The id of the program; a new one after an upgrade.
    pub program_id: u32,
    /// How long the link has existed, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_seconds: Option<u64>,
}

/// The fill of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// The map's name ([`lb_common::abi::map`]).
    pub name: String,
    /// Entries in use. A conn has two: forward and reverse.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// Kernel memory the map takes.
    pub bytes: u64,
}

/// A service with its backends, as in `ipvsadm -Ln`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name in the config.
    pub name: String,
    /// The VIP and port.
    pub listen: SocketAddrV4,
    /// The transport protocol.
    #[serde(with = "names")]
    pub protocol: Proto,
    /// How new conns are spread.
    #[serde(with = "names")]
    pub scheduler: Scheduler,
    /// In the order of the config.
    pub backends: Vec<BackendView>,
    /// Conns in state ESTABLISHED.
    pub active: u64,
    /// All other conns.
    pub inactive: u64,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// How packets are forwarded, in the word of `ipvsadm`: always `Masq`.
    pub forward: String,
    /// The weight in use; 0 takes no new conns.
    pub weight: u16,
    /// Its state.
    #[serde(with = "names")]
    pub state: BackendState,
    /// What it is in the words of the checks: `up`, `standby`, `full`, `draining`, `disabled`, `down`.
    #[serde(default)]
    pub word: String,
    /// Conns in state ESTABLISHED.
    pub active: u64,
    /// All other conns.
    pub inactive: u64,
    /// More about them, if it takes no new ones by the operator's will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftView>,
    /// `down-here-only` or `down-there-only`: the other director has seen it otherwise for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<String>,
}

/// One conn, both directions together, as in `ipvsadm -Lnc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnView {
    /// The transport protocol.
    #[serde(with = "names")]
    pub protocol: Proto,
    /// Until the conn expires unless a packet comes.
    pub expires_seconds: u64,
    /// The TCP state.
    #[serde(with = "names")]
    pub state: State,
    /// The client.
    pub client: SocketAddrV4,
    /// The VIP and port.
    #[serde(rename = "virtual")]
    pub vip: SocketAddrV4,
    /// The backend.
    pub destination: SocketAddrV4,
    /// The name of the service.
    pub service: String,
    /// Since the last packet in either direction.
    pub idle_seconds: u64,
    /// Since the conn was created.
    pub age_seconds: u64,
    /// Bytes of IP packets from the client.
    pub bytes_in: u64,
    /// Bytes of IP packets to the client.
    pub bytes_out: u64,
    /// Who created the conn.
    #[serde(with = "names")]
    pub origin: Origin,
    /// The client's port as the backend sees it, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port_at_backend: Option<u16>,
}

/// Traffic since the backend was added. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Conns opened.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// The traffic of a service, as in `ipvsadm -Ln --stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// The service's name.
    pub name: String,
    /// The VIP and port.
    pub listen: SocketAddrV4,
    /// The transport protocol.
    #[serde(with = "names")]
    pub protocol: Proto,
    /// The sum over its backends.
    #[serde(flatten)]
    pub total: Traffic,
    /// In the order of the config.
    pub backends: Vec<BackendTraffic>,
}

/// The traffic of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Traffic per second, rounded. As in IPVS, `bps` are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Conns opened per second.
    pub cps: u64,
    /// Packets from clients per second.
    pub in_pps: u64,
    /// Packets to clients per second.
    pub out_pps: u64,
    /// Bytes from clients per second.
    pub in_bps: u64,
    /// Bytes to clients per second.
    pub out_bps: u64,
}

/// The traffic of a service per second, as in `ipvsadm -Ln --rate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateView {
    /// The service's name.
    pub name: String,
    /// The VIP and port.
    pub listen: SocketAddrV4,
    /// The transport protocol.
    #[serde(with = "names")]
    pub protocol: Proto,
    /// The time between the two readings.
    pub interval_ms: u64,
    /// The sum over its backends.
    #[serde(flatten)]
    pub total: Rate,
    /// In the order of the config.
    pub backends: Vec<BackendRate>,
}

/// The traffic of a backend per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRate {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// Its traffic.
    #[serde(flatten)]
    pub rate: Rate,
}

/// Why packets were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The counter's name ([`lb_common::counter::Counter`]).
    pub reason: String,
    /// Packets dropped since the maps were created.
    pub count: u64,
    /// What it means.
    pub explanation: String,
    /// What to do about it.
    pub remedy: String,
}

/// A backend after the operator changed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendAnswer {
    /// The service's name.
    pub service: String,
    /// The backend as it is now.
    pub backend: BackendView,
}

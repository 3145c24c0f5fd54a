//! The typed configuration: what the rest of the agent reads. Every value in it has been checked, and every default
//! stands here once. It does not know TOML, files or diagnostics.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use lb_common::abi;
use lb_common::service::{NoConn, Scheduler};
use serde::{Serialize, Serializer};

use super::duration::format_duration;

/// A director's whole configuration. Both directors load the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Paths and logging of the agent itself.
    pub agent: AgentSettings,
    /// The interfaces the packet path is attached to; at least one, names are unique.
    pub interfaces: Vec<Interface>,
    /// Capacities of the kernel tables.
    pub tables: TableSizes,
    /// Idle times after which a conn is removed, by its TCP state.
    pub timeouts: Timeouts,
    /// The balanced services; at least one, names and listen addresses are unique.
    pub services: Vec<Service>,
}

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentSettings {
    /// Absolute directory in a bpffs; the agent pins below `v<ABI>/` in it.
    pub pin_dir: PathBuf,
    /// Absolute path of the unix socket that `lbctl` talks to; at most 107 bytes.
    pub control_socket: PathBuf,
    /// Where the metrics endpoint will listen.
    pub metrics: SocketAddr,
    /// A `tracing` filter: one level, or directives like `info,lb_userspace::datapath=debug`.
    pub log: String,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            pin_dir: PathBuf::from(abi::PIN_ROOT),
            control_socket: PathBuf::from("/run/lb/agent.sock"),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
            log: String::from("info"),
        }
    }
}

/// One `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The kernel's name, 1 to 15 bytes. Whether it exists is a question for run time.
    pub name: String,
    /// The wanted hook.
    pub mode: Mode,
}

/// The `[table]` section, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TableSizes {
    /// Established conns; each takes two entries, one per direction.
    pub conns: u32,
    /// Half-open conns kept while their handshakes run.
    pub half_open: u32,
    /// Services.
    pub services: u32,
    /// Backends of all services together.
    pub backends: u32,
}

impl Default for TableSizes {
    fn default() -> Self {
        Self {
            conns: abi::MAX_CONNS,
            half_open: abi::MAX_HALF_OPEN,
            services: abi::MAX_SERVICES,
            backends: abi::MAX_BACKENDS,
        }
    }
}

/// The `[timeouts]` section. Each is between 1 ms and 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// Handshake started, not completed.
    #[serde(serialize_with = "as_text")]
    pub syn_recv: Duration,
    /// Handshake completed. Longer than MySQL's `wait_timeout` (28,800 s), or idle sessions die in the middle.
    #[serde(serialize_with = "as_text")]
    pub established: Duration,
    /// One side has sent a FIN.
    #[serde(serialize_with = "as_text")]
    pub fin_wait: Duration,
    /// The backend has closed, the client has not.
    #[serde(serialize_with = "as_text")]
    pub close_wait: Duration,
    /// Both sides have closed.
    #[serde(serialize_with = "as_text")]
    pub time_wait: Duration,
    /// A reset was seen.
    #[serde(serialize_with = "as_text")]
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn_recv: Duration::from_secs(60),
            established: Duration::from_secs(28_860),
            fin_wait: Duration::from_secs(120),
            close_wait: Duration::from_secs(60),
            time_wait: Duration::from_secs(120),
            close: Duration::from_secs(10),
        }
    }
}

/// One `[[service]]`: a VIP and port, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// The VIP and port that clients connect to.
    pub listen: SocketAddrV4,
    /// How a new conn picks its backend.
    #[serde(serialize_with = "as_word")]
    pub scheduler: Scheduler,
    /// What happens to a mid-stream packet that belongs to no conn.
    #[serde(serialize_with = "as_word")]
    pub no_conn: NoConn,
    /// At least one; addresses are unique within the service.
    pub backends: Vec<Backend>,
}

/// One `[[service.backend]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// The MySQL server's own address and port.
    pub address: SocketAddrV4,
    /// Its share of new conns; 0 drains it.
    pub weight: u16,
}

/// Which hook carries the packet path on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Native XDP where the driver has it, TC otherwise.
    #[default]
    Auto,
    /// Native XDP, or an error.
    Xdp,
    /// XDP after the kernel has built the socket buffer: any driver, more cost.
    XdpGeneric,
    /// TC ingress.
    Tc,
}

impl Mode {
    /// All variants in their documented order.
    pub const ALL: &[Self] = &[Self::Auto, Self::Xdp, Self::XdpGeneric, Self::Tc];

    /// The word for this mode in the file and on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn as_text<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*value))
}

fn as_word<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_words_and_durations_as_the_file_does() {
        let timeouts = serde_json::to_value(Timeouts::default()).unwrap();
        assert_eq!(timeouts["established"], "8h1m");
        let interface = Interface { name: "eth0".into(), mode: Mode::XdpGeneric };
        assert_eq!(
            serde_json::to_value(interface).unwrap(),
            serde_json::json!({"name": "eth0", "mode": "xdp-generic"})
        );
    }
}

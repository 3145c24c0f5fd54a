//! The typed configuration: what the rest of the agent reads. Every value in it has been checked, and every default
//! stands here once. It does not know TOML, files or diagnostics.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use lb_common::abi;
use lb_common::service::{OnDown, Refusal, Scheduler};
use serde::{Serialize, Serializer};

use super::check;
use super::duration::format_duration;
use super::sync::Sync;
use super::vrrp::{Director, Vrrp};
use crate::datapath::{Mode, TableSizes, Timeouts};
use crate::health::{Plan, pool::Tier};

/// A director's whole configuration. Both directors load the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Paths and logging of the agent itself.
    pub agent: AgentSettings,
    /// The interfaces the packet path is attached to; at least one, names are unique.
    pub interfaces: Vec<Interface>,
    /// Capacities of the kernel tables.
    pub tables: TableSizes,
    /// Idle times after which a conn is removed, by its TCP state. Each is between 1 ms and 30 days.
    #[serde(serialize_with = "as_texts")]
    pub timeouts: Timeouts,
    /// `established` follows what the servers allow; the value in `timeouts` holds until they have told.
    pub established_auto: bool,
    /// The balanced services; at least one, names and listen addresses are unique.
    pub services: Vec<Service>,
    /// The election between directors; `None`: this one is alone, and always Active.
    pub vrrp: Option<Vrrp>,
    /// Who takes part.
    pub directors: Vec<Director>,
    /// How conns are kept equal on both; `None`: they are not.
    pub sync: Option<Sync>,
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
    #[serde(serialize_with = "as_word")]
    pub mode: Mode,
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
    /// How a mid-stream packet that belongs to no conn is refused.
    #[serde(serialize_with = "as_word")]
    pub no_conn: Refusal,
    /// How a new conn is refused when no backend takes one.
    #[serde(serialize_with = "as_word")]
    pub no_backend: Refusal,
    /// What happens to the conns of a backend that is found dead.
    #[serde(serialize_with = "as_word")]
    pub on_down: OnDown,
    /// How the backends are checked; none: they are not, and count as up for ever.
    #[serde(serialize_with = "check::show", skip_serializing_if = "Option::is_none")]
    pub check: Option<Plan>,
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
    /// Whether it serves first, or only when others are gone.
    #[serde(serialize_with = "as_word")]
    pub tier: Tier,
    /// How long its share grows after it has come back; zero: it has all of it at once.
    #[serde(serialize_with = "as_text")]
    pub slow_start: Duration,
    /// After how long a drain resets what is left, unless the operator says otherwise; none: never.
    #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<Duration>,
    /// Most conns that it gets.
    #[serde(skip_serializing_if = "MaxConn::is_none")]
    pub max_conn: MaxConn,
}

/// How many conns a backend gets at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxConn {
    /// As many as come.
    #[default]
    None,
    /// What the server's `max_connections` leaves for clients; no limit until the check user has read it.
    Auto,
    /// This many.
    Some(u32),
}

impl MaxConn {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

fn as_text<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_duration(*value))
}

fn as_optional_text<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_text(value, serializer),
        None => serializer.serialize_none(),
    }
}

fn as_texts<S: Serializer>(timeouts: &Timeouts, serializer: S) -> Result<S::Ok, S::Error> {
    let Timeouts { syn_recv, established, fin_wait, close_wait, time_wait, close } = *timeouts;
    let keys = [
        ("syn_recv", syn_recv),
        ("established", established),
        ("fin_wait", fin_wait),
        ("close_wait", close_wait),
        ("time_wait", time_wait),
        ("close", close),
    ];
    serializer.collect_map(keys.map(|(key, timeout)| (key, format_duration(timeout))))
}

fn as_word<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_words_and_durations_as_the_file_does() {
        let timeouts = as_texts(&Timeouts::default(), serde_json::value::Serializer).unwrap();
        assert_eq!(timeouts["established"], "8h1m");
        let interface = Interface { name: "eth0".into(), mode: Mode::XdpGeneric };
        assert_eq!(
            serde_json::to_value(interface).unwrap(),
            serde_json::json!({"name": "eth0", "mode": "xdp-generic"})
        );
    }
}

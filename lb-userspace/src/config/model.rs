//! The typed configuration: what the rest of the agent reads. Every value in it has been checked, and every default
//! stands here once. It does not know TOML, files or diagnostics.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{error, fmt};

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
            pin_dir: PathBuf::from("/sys/fs/bpf/lb"),
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
        Self { conns: 100_000, half_open: 65_536, services: 64, backends: 1024 }
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
    pub scheduler: Scheduler,
    /// What happens to a mid-stream packet that belongs to no conn.
    pub no_conn: NoConnPolicy,
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

/// A word that names no variant of the enum that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What the word should have been, as in "a scheduler".
    pub what: &'static str,
    /// The words that are understood.
    pub allowed: Vec<&'static str>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {} (one of {})", self.what, self.allowed.join(", "))
    }
}

impl error::Error for UnknownWord {}

/// Declares an enum whose variants are words in the file, in JSON and on screen alike.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident is $what:literal { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All variants in their documented order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for this variant.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { what: $what, allowed: vec![$($word),+] }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// Which hook carries the packet path on an interface.
    #[derive(Default)]
    Mode is "a mode" {
        /// Native XDP where the driver has it, TC otherwise.
        #[default]
        Auto = "auto",
        /// Native XDP, or an error.
        Xdp = "xdp",
        /// XDP after the kernel has built the socket buffer: any driver, more cost.
        XdpGeneric = "xdp-generic",
        /// TC ingress.
        Tc = "tc",
    }
}

words! {
    /// How a new conn picks its backend; names and meaning as in IPVS.
    #[derive(Default)]
    Scheduler is "a scheduler" {
        /// Round robin; weights other than 0 do not count.
        #[default]
        RoundRobin = "rr",
        /// Round robin in proportion to the weights.
        WeightedRoundRobin = "wrr",
        /// The fewest active conns.
        LeastConn = "lc",
        /// The fewest active conns in proportion to the weights.
        WeightedLeastConn = "wlc",
        /// By a hash of the client's address.
        SourceHash = "sh",
        /// By a Maglev hash of the client's address: few clients move when backends change.
        MaglevHash = "mh",
    }
}

words! {
    /// What happens to a mid-stream packet of a service that belongs to no conn.
    #[derive(Default)]
    NoConnPolicy is "a no_conn policy" {
        /// Dropped and counted: the peer may still be sending the conn.
        #[default]
        Drop = "drop",
        /// Answered with a RST, so that the sender gives up at once.
        Rst = "rst",
    }
}

fn as_text<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_variant() {
        for &mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for &scheduler in Scheduler::ALL {
            assert_eq!(scheduler.as_str().parse(), Ok(scheduler));
        }
        for &policy in NoConnPolicy::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        let unknown = "RR".parse::<Scheduler>().unwrap_err();
        assert_eq!(unknown.to_string(), "not a scheduler (one of rr, wrr, lc, wlc, sh, mh)");
    }

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

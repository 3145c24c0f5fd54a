//! The command line of `lbctl`. Its words follow `ipvsadm` where that has one.

use super::{interval_range, text};
use crate::control::protocol::{AddrFilter, BackendAction, ConnFilter, Request, parse_name};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use lb_common::tcp::State;
use std::{net::SocketAddrV4, path::PathBuf, time::Duration};

/// Looks at and steers the agent of a director.
#[derive(Debug, Parser)]
#[command(
    name = "lbctl",
    version,
    after_help = "Exit codes: 0 done, 1 the agent refused, 2 wrong usage, 3 no agent reached."
)]
pub(super) struct Args {
    /// The agent's control socket [env: LB_SOCKET] [default: /run/lb/agent.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// How to print the answer
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Table)]
    pub(super) output: Form,

    /// How long the agent may take for each line of its answer
    #[arg(long, global = true, value_name = "TIME", default_value = "15s", value_parser = timeout)]
    pub(super) timeout: Duration,

    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// How to print the answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Form {
    /// For people
    Table,
    /// For programs: stable names, exact numbers
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The agent, its interfaces and tables
    Status,
    /// Services and backends, as ipvsadm -Ln prints them
    Services,
    /// Conns, as ipvsadm -Lnc prints them
    Conns(ConnArgs),
    /// Conns, packets and bytes so far, as ipvsadm -Ln --stats prints them
    Stats {
        /// Print all digits instead of K, M, G, T
        #[arg(long)]
        exact: bool,
    },
    /// Conns, packets and bytes per second, as ipvsadm -Ln --rate prints them
    Rate {
        /// Time between the two readings, such as 500ms or 10s
        #[arg(long, default_value = "1s", value_parser = interval)]
        interval: Duration,
        /// Print all digits instead of K, M, G, T
        #[arg(long)]
        exact: bool,
    },
    /// Why packets were dropped, and what to do about it
    Drops {
        /// Print reasons without a drop too
        #[arg(long)]
        all: bool,
    },
    /// Drain, disable, weigh or kill a backend
    #[command(subcommand)]
    Backend(BackendVerb),
    /// The user that the checks log in as
    CheckUser {
        /// Print the SQL that creates it
        #[arg(long, required = true)]
        sql: bool,
        /// The service, if several have checks
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// The config to read; without: the one that the agent uses
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Give all VIPs to the other director
    Failover {
        /// Take them back after two seconds, and tell what both ways cost
        #[arg(long)]
        drill: bool,
        /// Even if the other director does not have all conns: open sessions may break
        #[arg(long)]
        force: bool,
    },
    /// How far the other director is with our conns, and whether either may be taken down now
    Peer,
    /// Conns that are not known to be the same on both directors
    Diff {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = Request::DIFF_LIMIT)]
        limit: u64,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct ConnArgs {
    /// Only this client: IP, IP:PORT, IP/PREFIX or IP/PREFIX:PORT
    #[arg(long, value_name = "ADDRESS")]
    client: Option<AddrFilter>,
    /// Only this backend: IP, IP:PORT, IP/PREFIX or IP/PREFIX:PORT
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<AddrFilter>,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only this TCP state, such as ESTABLISHED
    #[arg(long, value_parser = parse_name::<State>)]
    state: Option<State>,
    /// Only conns without a packet for longer than this, such as 90, 90s or 1h
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    idle_gt: Option<Duration>,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl ConnArgs {
    pub(super) fn filter(&self) -> ConnFilter {
        let Self { client, backend, service, state, idle_gt, limit } = self;
        ConnFilter {
            client: *client,
            backend: *backend,
            service: service.clone(),
            state: *state,
            idle_gt: idle_gt.map(|time| time.as_secs()),
            limit: *limit,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendVerb {
    /// Send it no new conns, keep the ones it has
    Drain {
        #[command(flatten)]
        target: Target,
        /// Reset what is left after this, such as 90s or 10m; without: as the config says
        #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
        deadline: Option<Duration>,
    },
    /// Send it new conns again, with the weight it had
    Undrain(Target),
    /// Take it out until it is enabled; its conns stay, see kill
    Disable(Target),
    /// Put it back, whether drained or disabled
    Enable(Target),
    /// Reset both ends of all its conns
    Kill(Target),
    /// Give it another weight; 0 takes no new conns
    Weight {
        #[command(flatten)]
        target: Target,
        /// 0 to 65535
        #[arg(value_name = "N")]
        weight: u16,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Target {
    /// IP:PORT of the backend
    #[arg(value_parser = backend_address)]
    pub(super) address: SocketAddrV4,
    /// The service, if several have this backend
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
}

impl BackendVerb {
    pub(super) fn parts(&self) -> (BackendAction, &Target) {
        match self {
            Self::Drain { target, deadline } => {
                (BackendAction::Drain { deadline_seconds: deadline.map(|time| time.as_secs()) }, target)
            }
            Self::Undrain(target) => (BackendAction::Undrain, target),
            Self::Disable(target) => (BackendAction::Disable, target),
            Self::Enable(target) => (BackendAction::Enable, target),
            Self::Kill(target) => (BackendAction::Kill, target),
            Self::Weight { target, weight } => (BackendAction::Weight { weight: *weight }, target),
        }
    }
}

fn backend_address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 192.168.80.167:3306".to_owned())
}

fn timeout(text: &str) -> Result<Duration, String> {
    // The kernel takes 0 for "wait forever".
    let most = Duration::from_secs(86_400);
    let timeout = text::parse_duration(text)?;
    if (Duration::from_millis(1)..=most).contains(&timeout) {
        return Ok(timeout);
    }
    Err("expected 1ms to 1d".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let (least, most) = interval_range();
    let interval = text::parse_duration(text)?;
    if (least..=most).contains(&interval) {
        return Ok(interval);
    }
    Err(format!("expected {}ms to {}s", least.as_millis(), most.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (line, message) in [
            ("backend drain 192.168.80.167", "expected IP:PORT, such as"),
            ("backend weight 192.168.80.167:3306 65536", "65536 is not in 0..=65535"),
            ("conns --state open", "expected one of SYN_RECV, ESTABLISHED"),
            ("conns --client db1", "is no IPv4 address: write"),
            ("conns --idle-gt 5y", "expected a time"),
            ("status --timeout 0", "expected 1ms to 1d"),
            ("rate --interval 50ms", "expected 100ms to 60s"),
        ] {
            let words = ["lbctl"].into_iter().chain(line.split(' '));
            let error = Args::try_parse_from(words).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{line}");
            assert!(error.to_string().contains(message), "{line}: {error}");
        }
    }

    #[test]
    fn filters_reach_the_request() {
        let line = "lbctl conns --client 10.80.1.0/24 --state established --idle-gt 1h --limit 5 -o json";
        let Verb::Conns(conns) = Args::try_parse_from(line.split(' ')).unwrap().verb else { panic!("{line}") };
        let expected = ConnFilter {
            client: Some("10.80.1.0/24".parse().unwrap()),
            state: Some(State::Established),
            idle_gt: Some(3600),
            limit: Some(5),
            ..ConnFilter::default()
        };
        assert_eq!(conns.filter(), expected);
    }
}

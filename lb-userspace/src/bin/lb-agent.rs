//! `lb-agent`: the daemon of a director. Parses the command line; everything else is `lb_userspace`.

#[path = "lb-agent/object.rs"]
mod object;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use lb_userspace::{agent, config};

/// The agent of a director: loads and steers the packet path in front of MySQL servers.
#[derive(Parser)]
#[command(name = "lb-agent", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Load or adopt the packet path, then steer it until SIGTERM
    Run {
        /// The config file
        #[arg(long, default_value = "/etc/lb/lb.toml")]
        config: PathBuf,
        /// Which [director.NAME] of the config this is; else the host's name tells
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Take the packet path off the interfaces when the agent stops, and forget all conns
        #[arg(long)]
        detach: bool,
    },
    /// Check a config file and tell what it would take; change nothing
    Check {
        /// The config file
        #[arg(long, default_value = "/etc/lb/lb.toml")]
        config: PathBuf,
    },
    /// Take the packet path off the interfaces and forget all conns; no agent may be running
    Unload {
        /// The config file; only its pin directory counts
        #[arg(long, default_value = "/etc/lb/lb.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run { config, node, detach } => agent::run(object::OBJECT, &config, node.as_deref(), detach),
        Verb::Check { config } => {
            let (text, ok) = config::check_report(&config);
            print!("{text}");
            return if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Verb::Unload { config } => agent::unload(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

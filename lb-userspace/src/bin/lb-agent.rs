//! `lb-agent`: the daemon of a director. Parses the command line; everything else is `lb_userspace`.

#[path = "lb-agent/object.rs"]
mod object;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use lb_userspace::{agent, config, sync};

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
    /// Make a key for connection sync, which both directors must have; never overwrites a file
    Keygen {
        /// The file to write, for root alone
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// The outcome of `check` as text, with what only this host can tell.
fn check(path: &Path) -> ExitCode {
    let (text, ok) = config::check_report(path);
    print!("{text}");
    if let Some(note) = agent::check_key(path) {
        println!("{note}");
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn keygen(path: &Path) -> anyhow::Result<()> {
    sync::generate_key(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    println!("{}: a new key; copy it to the other director, for root alone (mode 0600)", path.display());
    Ok(())
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run { config, node, detach } => agent::run(object::OBJECT, &config, node.as_deref(), detach),
        Verb::Check { config } => return check(&config),
        Verb::Keygen { file } => keygen(&file),
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

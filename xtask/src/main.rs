//! Developer and demo commands: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod lab;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, check and test this repository, and show it at work")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A lab to play with: real MariaDB servers behind a director, in network namespaces
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Lab(args) => lab::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Developer and demo commands: `cargo xtask --help`.
//!
//! One file per verb, and this table. A verb's file owns its arguments (`Args`) and its work (`run`); what several
//! verbs need lives in `cmd` (child processes), `host` (facts about this machine), `paths`, `setup` and `toolchain`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod build_ebpf;
mod check;
mod cmd;
mod demo;
mod host;
mod inspect;
mod kernels;
mod lab;
mod libtest;
mod objfile;
mod paths;
mod setup;
mod test;
mod toolchain;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, check and test this repository, and show it at work")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The order is the one a newcomer needs, and the one `--help` prints.
#[derive(Subcommand)]
enum Verb {
    /// Install what this machine lacks for building and testing, and say what that was
    Setup(setup::Args),
    /// Build the eBPF object target/bpf/lb.o
    BuildEbpf(build_ebpf::Args),
    /// Build the eBPF object, lb-agent and lbctl, and print where they are
    Build(build::Args),
    /// Formatting, lints and documentation, with warnings denied
    Check(check::Args),
    /// Real MySQL traffic through the VIP, start to end: sets up, builds, shows, checks, and gives a verdict
    Demo(demo::Args),
    /// A lab to play with: real MariaDB servers behind a director, in network namespaces
    Lab(lab::Args),
    /// The bpftool tour of a packet path, with the commands
    Inspect(inspect::Args),
    /// Run the tests of one or more levels and print a table of results
    Test(test::Args),
    /// Measure what a packet costs, beside a plain forwarder
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(args),
        Verb::BuildEbpf(args) => build_ebpf::run(args),
        Verb::Build(args) => build::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Bench(args) => bench::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

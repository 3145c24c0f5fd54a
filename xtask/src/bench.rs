//! `cargo xtask bench`: what things cost, measured. `datapath`: nanoseconds per packet of the real programs, beside a
//! plain forwarder and a program that does nothing. The measuring itself is `lb_tests::bench`.

use std::{
    fs,
    io::{IsTerminal as _, Write as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use lb_tests::bench::{self, Options};

use crate::build_ebpf;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Nanoseconds per packet, in the program; needs root
    Datapath(Datapath),
}

#[derive(clap::Args)]
struct Datapath {
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the picture here instead of beside the JSON file
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Samples of each row
    #[arg(long, default_value_t = 41)]
    samples: usize,
    /// Calls of 250 runs in each sample
    #[arg(long, default_value_t = 100)]
    calls: u32,
    /// A look in seconds: too few samples to quote
    #[arg(long)]
    quick: bool,
    /// CPU to run on, the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    /// Only the rows with this in their name, and the baselines
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Measure another build of target/bpf/lb.o in the same run
    #[arg(long, value_name = "OBJECT")]
    against: Option<PathBuf>,
    /// Fail if a goal is missed
    #[arg(long)]
    check: bool,
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::Datapath(args) => datapath(&args),
    }
}

fn datapath(args: &Datapath) -> Result<ExitCode> {
    build_ebpf::build()?;
    let (samples, calls) =
        if args.quick { (args.samples.min(7), args.calls.min(20)) } else { (args.samples, args.calls) };
    let options = Options { samples, calls, cpu: args.cpu, only: args.only.clone(), against: args.against.clone() };
    let report = bench::datapath(options, &progress)?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    if let Some(path) = args.plot.clone().or_else(|| args.json.as_ref().map(|json| json.with_extension("svg"))) {
        write(&path, &report.svg())?;
    }
    Ok(if args.check && !report.met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn progress(done: usize, of: usize) {
    if stderr().is_terminal() {
        // Only a sign of life: a terminal that went away is no reason to stop.
        let _ = write!(stderr(), "\rsample {done} of {of}");
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    println!("written    {}", path.display());
    Ok(())
}

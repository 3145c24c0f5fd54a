//! `cargo xtask bench`: what things cost, measured. `datapath`: nanoseconds per packet of the real programs, beside a
//! plain forwarder and a program that does nothing. `failover`: sessions and gaps when the Active goes, beside keepalived
//! with nftables and conntrackd. `sync`: what connection sync costs. The measuring itself is `lb_tests::bench`,
//! `lb_tests::failover` and `lb_tests::sync_pair`.

use std::{
    fs,
    io::{IsTerminal as _, Write as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use lb_tests::{
    bench::{self, Options},
    failover::{self, Contender, Timing},
    sync_pair,
};

use crate::{build, build_ebpf, setup};

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
    /// Sessions and gaps when the Active stops, dies or loses its links, and when it returns; needs root
    Failover(Failover),
    /// Delay, bulk, CPU, memory and bytes of connection sync, and the CPU of a login; needs root
    Sync(Sync),
}

#[derive(clap::Args)]
struct Sync {
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// New conns a second
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// For so many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Conns that a director without any is sent; 0: do not measure that
    #[arg(long, default_value_t = 1_000_000)]
    bulk: u32,
    /// How often 250 logins go through each of two labs, for what a login costs; 0: do not measure that
    #[arg(long, default_value_t = 41)]
    logins: usize,
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

#[derive(clap::Args)]
struct Failover {
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Repetitions of each event
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// Sessions that are open when an event comes
    #[arg(long, default_value_t = 300)]
    sessions: usize,
    /// Three repetitions: too few to quote
    #[arg(long)]
    quick: bool,
    /// Only one of the two
    #[arg(long, value_enum)]
    director: Option<Director>,
    /// Only one setting of VRRP's timers
    #[arg(long, value_enum)]
    timers: Option<Timers>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Director {
    /// Our agent
    Lb,
    /// keepalived, nftables and conntrackd
    Keepalived,
}

#[derive(Clone, Copy, ValueEnum)]
enum Timers {
    /// Version 2, an advert a second
    Classic,
    /// Version 3, ten adverts a second
    Fast,
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::Datapath(args) => datapath(&args),
        Verb::Failover(args) => failover(&args),
        Verb::Sync(args) => sync(&args),
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

fn sync(args: &Sync) -> Result<ExitCode> {
    build_ebpf::build()?;
    if args.logins != 0 {
        setup::lab()?;
        setup::bpffs()?;
        build::build(false)?;
    }
    let options = sync_pair::Options {
        rate: args.rate,
        time: Duration::from_secs(args.seconds),
        bulk: args.bulk,
        logins: args.logins,
    };
    let report = sync_pair::measure(options, &|line| println!("{line}"))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failover(args: &Failover) -> Result<ExitCode> {
    let contenders = match args.director {
        Some(Director::Lb) => vec![Contender::Lb],
        Some(Director::Keepalived) => vec![Contender::Keepalived],
        None => vec![Contender::Lb, Contender::Keepalived],
    };
    let timings = match args.timers {
        Some(Timers::Classic) => vec![Timing::Classic],
        Some(Timers::Fast) => vec![Timing::Fast],
        None => vec![Timing::Classic, Timing::Fast],
    };
    setup::lab()?;
    setup::bpffs()?;
    if contenders.contains(&Contender::Keepalived) {
        setup::rival()?;
    }
    build::build(false)?;
    let repetitions = if args.quick { args.repetitions.min(3) } else { args.repetitions };
    let options = failover::Options { repetitions, sessions: args.sessions, contenders, timings };
    let report = failover::measure(options, &|line| println!("{line}"))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    Ok(ExitCode::SUCCESS)
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

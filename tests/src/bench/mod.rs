//! What a packet costs: the real programs by `BPF_PROG_TEST_RUN`, beside a plain forwarder and a program that does
//! nothing.
//!
//! All rows are measured in turn, sample by sample, in one thread on one CPU, so that whatever else the machine does
//! hits them alike. The run starts behind the driver: there is no card, no DMA and, at TC, no allocation of a buffer in
//! the figures. They are good for ratios.

mod chain;
mod established;
mod figures;
mod frame;
mod loaded;
mod memory;
mod openings;
mod plan;
mod plot;
mod report;
mod row;
mod sandbox;
mod table;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use lb_common::abi;

pub use crate::hook::Hook;
pub use figures::{Fact, Figure, Group, Ratio, Row};
pub use report::{Machine, Report};
pub use sandbox::cpu_time;

use loaded::Loader;
use plan::{Plan, Planned, Table};
use sandbox::Sandbox;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Samples of each row.
    pub samples: usize,
    /// Calls of 250 runs in one sample.
    pub calls: u32,
    /// The CPU to run on; `None`: the last one.
    pub cpu: Option<usize>,
    /// Only the rows with this in their name, and the baselines; `None`: all.
    pub only: Option<String>,
    /// Another build of the packet path's object to measure in the same run.
    pub against: Option<PathBuf>,
}

/// Measures everything. `progress` hears how many of how many samples are done.
///
/// # Errors
///
/// Without root or the objects of `cargo xtask build-ebpf`; when a sample took another way than its row claims.
pub fn datapath(options: Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Report> {
    ensure!(options.samples > 0 && options.calls > 0, "nothing to measure");
    let cpu = options.cpu.map_or_else(sandbox::last_cpu, Ok)?;
    sandbox::run(cpu, |sandbox| measure(sandbox, options, cpu, progress))
}

fn measure(sandbox: &Sandbox, options: Options, cpu: usize, progress: &dyn Fn(usize, usize)) -> Result<Report> {
    let loader = Loader::of("lb.o")?;
    let mut plan = Plan::new(sandbox, &options);
    plan.baselines()?;
    let million = plan.packet_path(&loader, Group::Path)?;
    if let Some(path) = &options.against {
        plan.packet_path(&Loader::at(path)?, Group::Against)?;
    }
    for done in 0..=options.samples {
        for Planned { row, probe, calls } in &mut plan.rows {
            let ns = probe.sample(*calls).with_context(|| format!("{} {}", row.group.name(), row.name))?;
            // The first round only warms up.
            if done > 0 {
                row.samples.push(ns);
            }
        }
        progress(done, options.samples);
    }
    let rows: Vec<_> = plan.rows.into_iter().map(|planned| planned.row).collect();
    let (mut facts, mut verified) = (Vec::new(), Vec::new());
    if let Some(Table { loaded, chain }) = million {
        for name in [abi::PROG_XDP, abi::PROG_TC] {
            verified.push((name, loaded.programs.verified(name)?));
        }
        facts.extend(figures::random_loads(&rows));
        facts.extend(table::measure(&loaded, &chain)?);
    }
    Ok(Report { rows, facts, verified, machine: Machine::read(cpu)?, options })
}

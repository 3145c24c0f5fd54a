//! What the table of a million conns costs off the packet path: memory, a snapshot, a sweep that removes everything.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_common::{
    MapType as _, abi,
    backend::Load,
    conn::FlowKey,
    retire::{BATCH, Request},
};
use lb_userspace::datapath::Scan;

use super::{
    chain::{BACKEND, Chain},
    figures::{Fact, Figure},
    loaded::Loaded,
    sandbox::cpu_time,
};

/// Snapshots taken; the figure is their median.
const SNAPSHOTS: usize = 5;

/// Measures a table that holds `chain`, and empties it.
pub(super) fn measure(loaded: &Loaded, chain: &Chain) -> Result<Vec<Fact>> {
    let conns = chain.len();
    let memory = loaded.conns_memory()? as f64 / (f64::from(loaded.tables.conns.capacity()) / 2.0);
    let mut facts = vec![fact("conn_bytes", "kernel memory of a planned conn", memory, "B", Some(320.0))];

    let mut seconds = Vec::new();
    let mut seen = HashMap::new();
    for _ in 0..SNAPSHOTS {
        let began = cpu_time()?;
        let entries = snapshot(loaded)?;
        seconds.push((cpu_time()? - began).as_secs_f64());
        ensure!(entries == 2 * conns, "a snapshot of {entries} entries of {conns} conns");
    }
    let snapshot = Figure::of(&seconds).median * per_million(conns);
    facts.push(fact("snapshot_s", "reading both entries of 1,000,000 conns", snapshot, "s CPU", Some(0.5)));

    loaded.tables.conns.for_each_slice(|slice| seen.extend(slice.iter().map(|(key, conn)| (*key, conn.last_seen))))?;
    let sweep = retire(loaded, chain, &seen)?;
    facts.push(fact("retire_ns", "removing a conn, in the kernel", sweep.kernel_ns / conns as f64, "ns", None));
    let total = snapshot + sweep.cpu.as_secs_f64() * per_million(conns);
    facts.push(fact("sweep_s", "reading and removing 1,000,000 conns", total, "s CPU", Some(1.0)));
    Ok(facts)
}

fn fact(name: &'static str, what: &'static str, value: f64, unit: &'static str, goal: Option<f64>) -> Fact {
    Fact { name, what, value, unit, goal }
}

fn per_million(conns: usize) -> f64 {
    1e6 / conns as f64
}

/// Reads the whole table as the agent does.
fn snapshot(loaded: &Loaded) -> Result<usize> {
    let mut scan = Scan::new();
    let mut entries = 0;
    while let Some(slice) = scan.next(&loaded.tables.conns)? {
        entries += slice.len();
    }
    ensure!(scan.invalid().0 == 0, "{} entries do not decode", scan.invalid().0);
    Ok(entries)
}

struct Retired {
    kernel_ns: f64,
    cpu: Duration,
}

/// Removes every conn by the packet path's own program.
fn retire(loaded: &Loaded, chain: &Chain, seen: &HashMap<FlowKey, u32>) -> Result<Retired> {
    let conns = chain.len() as u64;
    loaded.tables.loads.set(u32::from(BACKEND), &Load { active: conns })?;
    let requests: Vec<Request> = chain
        .entries()
        .map(|[(key, _), (other, _)]| {
            let at = |key| seen.get(key).copied().context("an entry is missing in the snapshot");
            Ok(Request { key, forward_seen: at(&key)?, reverse_seen: at(&other)? })
        })
        .collect::<Result<_>>()?;
    let mut retired = Retired { kernel_ns: 0.0, cpu: Duration::ZERO };
    for batch in requests.chunks(BATCH) {
        let frame: Vec<u8> = batch.iter().flat_map(|request| request.bytes().iter().copied()).collect();
        let began = cpu_time()?;
        let (ns, removed) = loaded.programs.run_on(abi::PROG_RETIRE, &frame)?;
        retired.cpu += cpu_time()? - began;
        retired.kernel_ns += ns;
        ensure!(removed as usize == batch.len(), "{removed} conns of {} were removed", batch.len());
    }
    let left = (snapshot(loaded)?, loaded.tables.loads.get(u32::from(BACKEND))?.active);
    ensure!(left == (0, 0), "(entries, load) are {left:?} after the last conn was removed");
    Ok(retired)
}

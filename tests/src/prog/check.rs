//! Runs the rows of a packet table against both programs and reports every row that fails, not only the first.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result, bail, ensure};
use lb_common::{
    addr::MacPair,
    conn::{Conn, Direction, FlowKey},
    counter::Counter,
    event::Event,
    stats::BackendStats,
};

use super::{
    bench::{Bench, Outcome, Verdict},
    case::{Case, Fate, Sent, Step},
    flow::Flow,
    tables::Counters,
};
use crate::{
    hook::Hook,
    packet::{describe, difference},
};

/// Failures that are printed; the rest is counted.
const SHOWN: usize = 10;

/// Runs all rows on all hooks.
///
/// # Panics
///
/// With a list of all rows that failed and why.
pub fn run(cases: &[Case]) {
    let mut failures = Vec::new();
    let mut names = BTreeMap::new();
    for case in cases {
        assert!(names.insert(&case.name, ()).is_none(), "two rows are called {:?}", case.name);
        assert!(!case.steps.is_empty(), "{}: no packet", case.name);
    }
    for hook in Hook::ALL {
        let mut shared = match Bench::load(hook) {
            Ok(bench) => bench,
            Err(error) => panic!("{error:#}"),
        };
        for case in cases.iter().filter(|case| case.only.is_none_or(|only| only == hook)) {
            if let Err(error) = on_hook(hook, &mut shared, case) {
                failures.push(format!("{hook}: {}\n   {error:#}\n", case.name));
            }
        }
    }
    let shown = failures.iter().take(SHOWN).fold(String::new(), |text, failure| format!("{text}\n{failure}"));
    assert!(failures.is_empty(), "{} rows failed, up to {SHOWN} shown:\n{shown}", failures.len());
    let single = cases.iter().filter(|case| case.only.is_some()).count();
    println!("{} rows at both hooks, {single} at one", cases.len() - single);
}

fn on_hook(hook: Hook, shared: &mut Bench, case: &Case) -> Result<()> {
    let mut own;
    let bench = match case.sizes {
        Some(sizes) => {
            own = Bench::with_sizes(hook, sizes)?;
            &mut own
        }
        None => shared,
    };
    bench.tables.clear()?;
    case.site.apply(&mut bench.tables)?;
    let now = bench.jiffies()?;
    for flow in &case.before {
        put(bench, flow, now)?;
    }
    for key in &case.missing {
        bench.tables.remove(key)?;
    }
    for (number, step) in case.steps.iter().enumerate() {
        let packet = || {
            let before: String = case.steps[..number].iter().fold(String::new(), |mut text, step| {
                let _ = write!(text, "\n   after {}", describe(&step.frame));
                text
            });
            format!("packet {} of {}{before}\n   at {}", number + 1, case.steps.len(), describe(&step.frame))
        };
        check_step(hook, bench, case, step).with_context(packet)?;
    }
    Ok(())
}

/// Writes a conn into the tables.
///
/// # Errors
///
/// When the kernel refuses an entry.
pub fn put(bench: &mut Bench, flow: &Flow, now: u32) -> Result<()> {
    for (key, entry) in flow.entries() {
        let last_seen = now.wrapping_sub(flow.age);
        let entry = Conn { last_seen, created: last_seen.wrapping_sub(1000), ..entry };
        match flow.half_open {
            true => bench.tables.put_half_open(key, entry)?,
            false => bench.tables.put_conn(key, entry)?,
        }
    }
    if flow.is_load() {
        let active = bench.tables.load(flow.backend_id)?;
        bench.tables.set_load(flow.backend_id, active + 1)?;
    }
    Ok(())
}

/// The contents of both conn tables.
#[derive(Clone)]
struct Snapshot {
    conns: BTreeMap<FlowKey, Conn>,
    half_open: BTreeMap<FlowKey, Conn>,
    counters: Counters,
    stats: Vec<BackendStats>,
    loads: Vec<u64>,
}

impl Snapshot {
    fn of(bench: &mut Bench, backends: u16) -> Result<Self> {
        let tables = &mut bench.tables;
        Ok(Self {
            conns: tables.conns()?,
            half_open: tables.half_open()?,
            counters: tables.counters()?,
            stats: (0..backends).map(|id| tables.stats(id)).collect::<Result<_>>()?,
            loads: (0..backends).map(|id| tables.load(id)).collect::<Result<_>>()?,
        })
    }

    fn entry(&self, key: &FlowKey) -> Option<&Conn> {
        self.conns.get(key).or_else(|| self.half_open.get(key))
    }
}

fn check_step(hook: Hook, bench: &mut Bench, case: &Case, step: &Step) -> Result<()> {
    let mut before = Snapshot::of(bench, case.site.backends())?;
    if step.deferred && hook == Hook::Xdp {
        let outcome = bench.run(step.port, &step.frame)?;
        check_fate(&Fate::Pass, &step.frame, hook, step, &outcome).context("at XDP, which should defer it")?;
        let after = Snapshot::of(bench, case.site.backends())?;
        let counts: Vec<_> = step.xdp_counts.iter().copied().chain([Counter::Deferred]).collect();
        check_counters(&before.counters, &after.counters, &counts).context("at XDP")?;
        ensure!(before.conns == after.conns, "XDP changed `conns`{}", changes(&before.conns, &after.conns));
        ensure!(before.stats == after.stats, "XDP counted traffic for a packet that it left to TC");
        before = after;
    }
    // The TC program behind XDP does the work that XDP defers.
    let hook = if step.deferred { Hook::Tc } else { hook };
    let started = bench.jiffies()?;
    let outcome = bench.run_at(hook, step.port, &step.frame)?;
    check_fate(&step.fate, &step.frame, hook, step, &outcome)?;
    let after = Snapshot::of(bench, case.site.backends())?;
    check_counters(&before.counters, &after.counters, &step.counts)?;
    check_stats(&before, &after, step)?;
    check_events(bench, step, started)?;
    match &step.leaves {
        Some(flows) => check_tables(&before, &after, step, flows, started),
        None => {
            ensure!(before.loads == after.loads, "loads: before {:?}, after {:?}", before.loads, after.loads);
            ensure!(before.conns == after.conns, "`conns` changed{}", changes(&before.conns, &after.conns));
            ensure!(before.half_open == after.half_open, "`half_open`{}", changes(&before.half_open, &after.half_open));
            Ok(())
        }
    }
}

fn check_fate(fate: &Fate, frame: &[u8], hook: Hook, step: &Step, outcome: &Outcome) -> Result<()> {
    let (verdict, packet) = match fate {
        Fate::Pass => (Verdict::Pass, frame),
        Fate::Drop => (Verdict::Drop, frame),
        Fate::Sent(Sent { frame, egress, .. }) if hook == Hook::Xdp && *egress == step.port => {
            (Verdict::Tx, &frame[..])
        }
        Fate::Sent(Sent { frame, .. }) => (Verdict::Redirect, &frame[..]),
        Fate::Reflected(frame) if hook == Hook::Xdp => (Verdict::Tx, &frame[..]),
        Fate::Reflected(frame) => (Verdict::Redirect, &frame[..]),
    };
    ensure!(
        outcome.verdict == verdict,
        "expected {verdict:?}, found {:?} with {}",
        outcome.verdict,
        describe(&outcome.packet)
    );
    match difference(packet, &outcome.packet) {
        Some(text) => bail!("the packet afterwards:\n   {text}"),
        None => Ok(()),
    }
}

fn check_counters(before: &Counters, after: &Counters, expected: &[Counter]) -> Result<()> {
    let mut wanted = before.clone();
    for &counter in expected {
        *wanted.entry(counter).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for &counter in Counter::ALL {
        let count = |counters: &Counters| counters.get(&counter).copied().unwrap_or(0);
        let (rose, wanted) = (count(after) - count(before), count(&wanted) - count(before));
        if rose != wanted {
            wrong.push(format!("{counter} rose by {rose}, not {wanted}"));
        }
    }
    ensure!(wrong.is_empty(), "counters: {}", wrong.join(", "));
    Ok(())
}

fn check_stats(before: &Snapshot, after: &Snapshot, step: &Step) -> Result<()> {
    let mut wanted = before.stats.clone();
    if let Fate::Sent(Sent { traffic: Some(traffic), .. }) = &step.fate {
        let stats = &mut wanted[usize::from(traffic.backend)];
        let (packets, bytes) = match traffic.direction {
            Direction::Forward => (&mut stats.in_packets, &mut stats.in_bytes),
            Direction::Reverse => (&mut stats.out_packets, &mut stats.out_bytes),
        };
        *packets += 1;
        *bytes += traffic.bytes;
        stats.conns += step.counts.iter().filter(|&&counter| counter == Counter::Opened).count() as u64;
        ensure!(wanted == after.stats, "stats: expected {wanted:?}, found {:?}", after.stats);
    } else {
        let packets = |all: &[BackendStats]| -> Vec<_> { all.iter().map(|s| (s.in_packets, s.out_packets)).collect() };
        ensure!(packets(&wanted) == packets(&after.stats), "stats count a packet that was not sent: {:?}", after.stats);
    }
    Ok(())
}

/// In jiffies. No conn of a test is older, and a stamp that was forgotten is farther away.
const OLDEST: u32 = 1_000_000;

fn check_events(bench: &mut Bench, step: &Step, started: u32) -> Result<()> {
    let mut events = bench.tables.events()?;
    let now = bench.jiffies()?;
    for event in &mut events {
        let within = (event.jiffies as u32).wrapping_sub(started) <= now.wrapping_sub(started);
        ensure!(within, "the event's time {} is not that of the run ({started} to {now})", event.jiffies as u32);
        // A conn that the test brought was born before the run, one that the packets opened during it.
        let born = if event.backend_port == 0 { event.created == 0 } else { now.wrapping_sub(event.created) < OLDEST };
        ensure!(born, "the event's conn was created at {}, and now is {now}", event.created);
        (event.jiffies, event.created) = (0, 0);
    }
    let lines = |events: &[Event]| events.iter().fold(String::new(), |text, event| format!("{text}\n      {event:?}"));
    ensure!(events == step.events, "events: expected {}\n   found {}", lines(&step.events), lines(&events));
    Ok(())
}

/// Both tables hold exactly the entries of `flows`, with the right times.
fn check_tables(before: &Snapshot, after: &Snapshot, step: &Step, flows: &[Flow], started: u32) -> Result<()> {
    let opened = step.counts.contains(&Counter::Opened);
    let rough = |entry: Conn| if step.roughly { Conn { seq: 0, ack: 0, bytes: 0, ..entry } } else { entry };
    let table = |half_open: bool| -> BTreeMap<FlowKey, Conn> {
        flows
            .iter()
            .filter(|flow| flow.half_open == half_open)
            .flat_map(Flow::entries)
            .map(|(k, v)| (k, rough(v)))
            .collect()
    };
    let timeless = |table: &BTreeMap<FlowKey, Conn>| -> BTreeMap<FlowKey, Conn> {
        table.iter().map(|(&key, &entry)| (key, rough(without_noise(entry)))).collect()
    };
    for (name, expected, found) in [("conns", table(false), &after.conns), ("half_open", table(true), &after.half_open)]
    {
        let found = timeless(found);
        ensure!(expected == found, "`{name}`{}", changes(&expected, &found));
    }
    let mut loads = vec![0; after.loads.len()];
    for flow in flows.iter().filter(|flow| flow.is_load()) {
        loads[usize::from(flow.backend_id)] += 1;
    }
    ensure!(loads == after.loads, "loads: expected {loads:?}, found {:?}", after.loads);
    if step.roughly {
        return Ok(());
    }
    for (key, entry) in after.conns.iter().chain(&after.half_open) {
        let fresh = |jiffies: u32| jiffies.wrapping_sub(started) < 10_000;
        let born = fresh(entry.last_seen) && fresh(entry.created);
        match before.entry(key) {
            // A key that was taken over by a new conn.
            Some(_) if opened && born => {}
            Some(old) => {
                let packet = old.bytes != entry.bytes;
                ensure!(!packet || fresh(entry.last_seen), "{key:?}: last_seen is not the time of the run");
                ensure!(packet || old.last_seen == entry.last_seen, "{key:?}: last_seen changed without a packet");
                ensure!(old.created == entry.created, "{key:?}: created changed");
            }
            None => ensure!(born, "{key:?}: a new entry with old times"),
        }
    }
    Ok(())
}

/// An entry without its times, and without the addresses of a next hop that was never looked up.
fn without_noise(entry: Conn) -> Conn {
    let entry = Conn { last_seen: 0, created: 0, ..entry };
    if entry.hop_gen == 0 { Conn { macs: MacPair::default(), ifindex: 0, mtu: 0, ..entry } } else { entry }
}

/// The entries that differ between two tables, for people.
fn changes(expected: &BTreeMap<FlowKey, Conn>, found: &BTreeMap<FlowKey, Conn>) -> String {
    let mut text = String::new();
    for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(key))) {
        let (e, f) = (expected.get(key), found.get(key));
        if e != f {
            let _ = write!(text, "\n   {key:?}\n      expected {e:?}\n      found    {f:?}");
        }
    }
    text
}

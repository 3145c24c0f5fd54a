//! What connection sync costs: the delay of a new conn until the peer's packet path has it, a million conns at once, CPU,
//! memory and bytes on the wire.

use std::{
    collections::HashMap,
    fs,
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey},
};
use lb_userspace::sync::{Key, Running, State};

use super::{
    host::{Ends, Host, Setup, Written, now, pair, sync_threads},
    logins,
    report::{Bulk, Delay, Report},
};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// New conns a second.
    pub rate: u32,
    /// For so long.
    pub time: Duration,
    /// Conns that a director without any is sent.
    pub bulk: u32,
    /// Visits of each lab for the CPU of a login; 0: not measured.
    pub logins: usize,
}

/// Conns of the bulk are numbered from here.
const OLD: u32 = 5_000_000;
/// New conns a second while the bulk runs.
const MEANWHILE: u32 = 1_000;
/// Nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures.
///
/// # Errors
///
/// Without root or the object; a conn did not come to the peer.
pub fn measure(options: Options, progress: &dyn Fn(&str)) -> Result<Report> {
    let steady = steady(options, progress)?;
    let bulk = if options.bulk == 0 { None } else { Some(bulk(options, progress)?) };
    let logins = if options.logins == 0 { None } else { Some(logins::measure(options.logins, progress)?) };
    Ok(Report { bulk, logins, ..steady })
}

fn setup(conns: u32) -> Setup {
    Setup { conns, heartbeat: Duration::from_millis(50) }
}

/// Waits until something is so.
fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let end = now() + PATIENCE;
    while !is_so() {
        ensure!(now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn are_equal(both: [&Running; 2]) -> bool {
    both.iter().all(|running| running.status().state == State::Equal)
}

/// CPU time of a thread.
fn cpu(thread: &str) -> Result<Duration> {
    let text = fs::read_to_string(format!("{thread}/schedstat")).context("schedstat of a sync thread")?;
    let ns = text.split_ascii_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(ns.parse()?))
}

/// Starts the sync of a host; answers its thread, too.
fn start(host: &Host) -> Result<(Running, Written, String)> {
    let before = sync_threads()?;
    let (running, written) = host.start()?;
    // A thread gives itself its name.
    let new = || sync_threads().unwrap_or_default().into_iter().find(|thread| !before.contains(thread));
    until("the thread of the sync", || new().is_some())?;
    let thread = new().context("the thread of the sync is gone")?;
    Ok((running, written, thread))
}

/// Waits until so many conns were written. The thread that writes needs the lock: whoever counts must not hold it long.
fn until_written(count: usize, written: &Written) -> Result<()> {
    until("all conns are with the peer", || written.lock().unwrap_or_else(PoisonError::into_inner).len() >= count)
}

/// The delay of each conn, all of which are written.
fn delay_of(opened: &[(Key, Instant)], written: &Written) -> Result<Delay> {
    let written: HashMap<Key, Instant> =
        written.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
    let delay = |(key, at): &(Key, Instant)| {
        let there = written.get(key).with_context(|| format!("the conn of {} did not come to the peer", key.client))?;
        Ok(there.saturating_duration_since(*at))
    };
    Ok(Delay::of(opened.iter().map(delay).collect::<Result<_>>()?))
}

fn steady(options: Options, progress: &dyn Fn(&str)) -> Result<Report> {
    let count = options.rate * options.time.as_secs() as u32;
    progress(&format!("{} new conns a second for {:?}", options.rate, options.time));
    let [one, other] = pair(setup(count + 100_000))?;
    let (sender, _, sending) = start(&one)?;
    let (receiver, written, receiving) = start(&other)?;
    until("both are equal", || are_equal([&sender, &receiver]))?;
    let before = (cpu(&sending)?, cpu(&receiving)?, sender.status().counters.sent, now());
    let opened = one.open(0..count, options.rate)?;
    let took = now() - before.3;
    let cpus = [cpu(&sending)? - before.0, cpu(&receiving)? - before.1];
    until_written(opened.len(), &written)?;
    let delay = delay_of(&opened, &written)?;
    let sent = sender.status().counters.sent;
    let status = receiver.status();
    ensure!(status.conns == count as usize, "{} conns of {count} at the peer", status.conns);
    // What an idle pair sends is small beside it, and is counted in.
    let wire = (sent.bytes - before.2.bytes) + 42 * (sent.frames - before.2.frames);
    Ok(Report {
        rate: f64::from(count) / took.as_secs_f64(),
        conns: count,
        delay,
        cpu: cpus.map(|cpu| cpu.as_secs_f64() / took.as_secs_f64()),
        memory: status.bytes as f64 / f64::from(count),
        wire: wire as f64 / f64::from(count),
        bulk: None,
        logins: None,
    })
}

fn bulk(options: Options, progress: &dyn Fn(&str)) -> Result<Bulk> {
    let count = options.bulk;
    progress(&format!("{count} conns for a director that has none"));
    let [one, other] = pair(setup(count + 200_000))?;
    fill(&one, count)?;
    let began = now();
    let (sender, _, sending) = start(&one)?;
    until("the table is known", || sender.status().settled && sender.status().conns == count as usize)?;
    let scan = now() - began;
    let before = cpu(&sending)?;
    let (receiver, written, receiving) = start(&other)?;
    until("the session is open", || receiver.status().peer.is_some())?;
    let began = now();
    let live = thread::scope(|scope| {
        let live = scope.spawn(|| one.open(0..3 * MEANWHILE, MEANWHILE));
        until_written((count + 3 * MEANWHILE) as usize, &written)?;
        live.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let old = |(key, at): &(Key, Instant)| {
        (u32::from(*key.client.ip()) >= u32::from(Ends::nth(OLD).client_ip())).then_some(*at)
    };
    let cpus = [cpu(&sending)? - before, cpu(&receiving)?];
    let log = written.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let last = log.iter().filter_map(old).max().context("none was written")?;
    // The bulk is over before the last of the new ones.
    let live: Vec<_> = live.into_iter().filter(|(_, at)| *at < last).collect();
    let delay = delay_of(&live, &written)?;
    let began_equal = now();
    until("both are equal", || are_equal([&sender, &receiver]))?;
    let status = receiver.status();
    Ok(Bulk {
        conns: count,
        seconds: (last - began).as_secs_f64(),
        cpu_seconds: cpus.map(|cpu| cpu.as_secs_f64()),
        equal_after: (now() - began_equal).as_secs_f64(),
        live: delay,
        scan_seconds: scan.as_secs_f64(),
        memory: status.bytes as f64 / status.conns as f64,
    })
}

/// Writes conns into a table as if they had come by long ago.
fn fill(host: &Host, count: u32) -> Result<()> {
    let now = host.datapath.clock()?.jiffies as u32;
    let [first, second] = crate::sandbox::conn(1);
    for from in (0..count).step_by(10_000) {
        let entries: Vec<(FlowKey, Conn)> = (from..count.min(from + 10_000))
            .flat_map(|n| {
                let key = Ends::nth(OLD + n).flow();
                let client: Ipv4 = key.src;
                let base = Conn { last_seen: now.wrapping_sub(n % 5000), created: now.wrapping_sub(9000), ..first.1 };
                let forward = Conn { src: client, sport: key.sport, dir: Direction::Forward, ..base };
                let reverse = Conn {
                    src: second.1.src,
                    sport: second.1.sport,
                    dst: client,
                    dport: key.sport,
                    dir: Direction::Reverse,
                    ..base
                };
                [(key, forward), (forward.other_key(), reverse)]
            })
            .collect();
        let written = host.datapath.tables().conns.insert_many(&entries)?;
        ensure!(written == entries.len(), "{written} of {} entries", entries.len());
    }
    Ok(())
}

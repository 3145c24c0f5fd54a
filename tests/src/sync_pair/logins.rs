//! What a MySQL login costs the whole lab: through a pair with connection sync, and through a director that only routes.
//! Two labs with real servers, visited in turn.
//!
//! Counted is the CPU time of the clients' threads and of every server and agent, by the kernel's own clocks. Packets are
//! handled in the time of whoever sends them, so that their way counts, too, but for what the kernel leaves to its
//! ksoftirqd threads. These are counted as well, although others on this machine may have kept them busy. What a lab costs
//! while nobody logs in is not counted, and told beside.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::host::now;
use crate::{
    checks::Pair,
    lab::{Lab, LabOptions, VrrpOptions, addr, login},
};

/// Logins of a visit, and how many at once.
const LOGINS: u32 = 250;
const AT_ONCE: u32 = 2;
/// For so long it is seen what a lab costs in which nobody logs in.
const IDLE: Duration = Duration::from_secs(2);
/// For tables to become equal.
const EQUAL: Duration = Duration::from_secs(60);

/// CPU per login.
#[derive(Clone, Debug)]
pub struct LoginCpu {
    /// Visits of each lab.
    pub rounds: usize,
    /// Microseconds a login, routed and balanced; medians.
    pub routed: f64,
    /// With both directors, both agents and connection sync.
    pub pair: f64,
    /// Of the ratios of two visits that followed each other: the median, the lower and the upper quartile.
    pub ratio: [f64; 3],
    /// Of both: the client, the servers, the agents, the kernel's threads; medians.
    pub parts: [[f64; 4]; 2],
    /// What both agents take of a core while nobody logs in, which is not counted for the logins.
    pub idle: f64,
}

/// Measures; `rounds` visits of each lab.
///
/// # Errors
/// When a lab does not come up, or a login fails.
pub(super) fn measure(rounds: usize, progress: &dyn Fn(&str)) -> Result<LoginCpu> {
    progress(&format!("logins, {rounds} times {LOGINS} through each of two labs"));
    let options = LabOptions { directors: 2, ..LabOptions::default() };
    let routed = Routed::up(&options)?;
    let pair = Balanced::up(&options)?;
    for visited in [&routed as &dyn Visited, &pair] {
        visited.visit(4 * LOGINS, &[0.0; 4])?;
    }
    let (idle_routed, idle_pair) = (routed.idle()?, pair.idle()?);
    let mut visits = Vec::new();
    for round in 0..rounds {
        // Who comes first changes, so that a machine that becomes slower treats both alike.
        let (one, other) = if round % 2 == 0 {
            let one = routed.visit(LOGINS, &idle_routed)?;
            (one, pair.visit(LOGINS, &idle_pair)?)
        } else {
            let other = pair.visit(LOGINS, &idle_pair)?;
            (routed.visit(LOGINS, &idle_routed)?, other)
        };
        visits.push((one, other));
    }
    pair.0.lab.wait_until_safe(EQUAL)?;
    let mut ratios: Vec<f64> = visits.iter().map(|(routed, pair)| pair.all() / routed.all()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    Ok(LoginCpu {
        rounds,
        routed: median(visits.iter().map(|(routed, _)| routed.all()).collect()),
        pair: median(visits.iter().map(|(_, pair)| pair.all()).collect()),
        ratio: [2, 1, 3].map(|quarters| ratios[(ratios.len() - 1) * quarters / 4]),
        parts: [
            std::array::from_fn(|part| median(visits.iter().map(|(routed, _)| routed.0[part]).collect())),
            std::array::from_fn(|part| median(visits.iter().map(|(_, pair)| pair.0[part]).collect())),
        ],
        idle: idle_pair[2],
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds a login: the client, the servers, the agents, the kernel's threads.
#[derive(Clone, Copy, Debug)]
struct Visit([f64; 4]);

impl Visit {
    fn all(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// A lab that can be logged in to.
trait Visited {
    fn lab(&self) -> &Lab;
    /// Who is asked, in turn.
    fn targets(&self) -> Vec<Ipv4Addr>;
    fn agents(&self) -> Result<Vec<u32>>;

    /// What the lab takes of a core while nobody logs in; parts as in a [`Visit`].
    fn idle(&self) -> Result<[f64; 4]> {
        let (lab, agents, kernel) = (self.lab(), self.agents()?, ksoftirqd()?);
        let (before, began) = (spent(lab, &agents, &kernel)?, now());
        thread::sleep(IDLE);
        let (after, took) = (spent(lab, &agents, &kernel)?, now() - began);
        let share = |part: usize| after[part].saturating_sub(before[part]).as_secs_f64() / took.as_secs_f64();
        // The kernel's threads work for everybody: what they do for others now says nothing about later.
        Ok([0.0, share(0), share(1), 0.0])
    }

    fn visit(&self, logins: u32, idle: &[f64; 4]) -> Result<Visit> {
        let (lab, agents, kernel, targets) = (self.lab(), self.agents()?, ksoftirqd()?, self.targets());
        let client = || {
            lab.client().host().enter(|| {
                let began = own_cpu()?;
                for target in targets.iter().cycle().take((logins / AT_ONCE) as usize) {
                    // Dropped at once: it says goodbye.
                    login(SocketAddrV4::new(*target, addr::MYSQL_PORT))?;
                }
                Ok(own_cpu()? - began)
            })
        };
        let (before, began) = (spent(lab, &agents, &kernel)?, now());
        let client: Duration = thread::scope(|scope| {
            let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(client)).collect();
            clients
                .into_iter()
                .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
                .sum::<Result<_>>()
        })?;
        let (after, took) = (spent(lab, &agents, &kernel)?, now() - began);
        let [servers, agents, kernel] = [0, 1, 2].map(|part| after[part].saturating_sub(before[part]));
        let mut parts = [client, servers, agents, kernel].map(|time| time.as_secs_f64());
        for (part, idle) in parts.iter_mut().zip(idle) {
            *part = (*part - idle * took.as_secs_f64()) * 1e6 / f64::from(logins);
        }
        Ok(Visit(parts))
    }
}

/// CPU time so far: servers, agents, threads of the kernel.
fn spent(lab: &Lab, agents: &[u32], kernel: &[u32]) -> Result<[Duration; 3]> {
    let servers = lab.servers().iter().map(|server| process_cpu(server.pid()?)).sum::<Result<_>>()?;
    let agents = agents.iter().map(|pid| process_cpu(*pid)).sum::<Result<_>>()?;
    Ok([servers, agents, kernel.iter().map(|pid| thread_cpu(*pid)).sum::<Result<_>>()?])
}

/// The first director routes; there is no agent, and clients ask for a server by its own address.
struct Routed(Lab);

impl Routed {
    fn up(options: &LabOptions) -> Result<Self> {
        let lab = options.up()?;
        lab.d1().enable_forwarding()?;
        lab.take_vips(lab.d1())?;
        Ok(Self(lab))
    }
}

impl Visited for Routed {
    fn lab(&self) -> &Lab {
        &self.0
    }

    fn targets(&self) -> Vec<Ipv4Addr> {
        self.0.servers().iter().map(crate::lab::Server::address).collect()
    }

    fn agents(&self) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
}

/// Two directors with connection sync.
struct Balanced(Pair);

impl Balanced {
    fn up(options: &LabOptions) -> Result<Self> {
        let lab = options.up()?;
        let agent = lab.agent_options().sync(lab.sync_options()?);
        let pair = Pair::of(lab, VrrpOptions::fast(), agent)?;
        pair.start(0)?;
        pair.gets(0)?;
        pair.start(1)?;
        pair.lab.wait_until_safe(EQUAL)?;
        Ok(Self(pair))
    }
}

impl Visited for Balanced {
    fn lab(&self) -> &Lab {
        &self.0.lab
    }

    fn targets(&self) -> Vec<Ipv4Addr> {
        vec![addr::VIP]
    }

    fn agents(&self) -> Result<Vec<u32>> {
        self.0.lab.directors().iter().map(crate::lab::Director::agent_pid).collect()
    }
}

/// The kernel's threads for packets that nobody's time was taken for.
fn ksoftirqd() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while its name is read.
        if fs::read_to_string(entry.path().join("comm")).unwrap_or_default().starts_with("ksoftirqd/") {
            found.push(pid);
        }
    }
    Ok(found)
}

/// CPU time of a single thread.
fn thread_cpu(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).context("schedstat of a kernel thread")?;
    let ns = text.split_ascii_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(ns.parse()?))
}

/// CPU time of a process, those of its threads included that have ended.
fn process_cpu(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: the clock is valid for writes.
    let result = unsafe { libc::clock_getcpuclockid(i32::try_from(pid).context("pid out of range")?, &raw mut clock) };
    ensure!(result == 0, "process {pid}: {}", std::io::Error::from_raw_os_error(result));
    read(clock)
}

/// CPU time of the calling thread.
fn own_cpu() -> Result<Duration> {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Result<Duration> {
    // SAFETY: zeros are a time.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the time is valid for writes.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "read a CPU clock: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec)?))
}

//! The packet path as the agent sees it: one facade over the eBPF object, its maps and its links.
//!
//! Owns loading, pinning, attaching, typed tables, the plan from config to tables, events, expiry and the next-hop
//! generation. Types of the loader library stay inside. What a conn or a service is, `lb_common` says.

mod apply;
mod attach;
mod attachment;
mod bpf;
pub mod clock;
mod clsact;
mod ends;
mod error;
pub mod events;
pub mod expiry;
mod health;
pub mod hops;
mod join;
mod loader;
mod mode;
mod netdev;
mod pins;
pub mod plan;
mod preflight;
mod replica;
pub mod ring;
mod scan;
pub mod sweep;
pub mod sysctl;
mod tables;
mod tally;
mod undo;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    programs::{Program, TestRun, TestRunOptions},
};
use lb_common::{
    Invalid, MapType, abi,
    addr::Ipv4,
    control::{ArpGate, Control, MAX_VIPS},
    link::Link,
    retire::{self, Outcome, Request},
};

pub use attachment::{InterfaceStatus, LinkStatus};
pub use clock::Ticks;
pub use ends::{Ends, Numbers};
pub use error::{Error, Result};
pub use events::Events;
pub use expiry::Timeouts;
pub use loader::{InterfaceSettings, Report, Settings, unload};
pub use mode::{Hook, Mode};
pub use pins::versioned;
pub use plan::{DesiredBackend, DesiredService, Ids, Plan};
pub use scan::Scan;
pub use sweep::{Keep, Silent, Sweep};
pub use tables::{Array, Table, TableSizes, Tables};
pub use tally::{Summary, Tally};

fn map_ids(pins: &pins::PinDir) -> Result<Vec<(&'static str, u32)>> {
    let id = |name: &'static str| {
        let path = pins.map(name);
        let map = bpf::Map::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
        Ok((name, map.info().id))
    };
    abi::map::ALL.into_iter().map(id).collect()
}

/// The loaded and attached packet path. Dropping it leaves everything attached; [`Datapath::detach`] does not.
///
/// All methods take `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Datapath {
    tables: Tables,
    report: Report,
    ticks: Ticks,
    ebpf: Ebpf,
    /// `control` is one element with several writers of ours: each reads, changes and writes it as a whole.
    control: Mutex<()>,
    pins: pins::PinDir,
    /// The kernel's ids of the pinned maps.
    map_ids: Vec<(&'static str, u32)>,
    /// Addresses that interfaces take frames for beside their own.
    virtual_macs: Mutex<Vec<(u32, [u8; 6])>>,
    events: Mutex<Option<Events>>,
    /// Raised with every change of services and backends.
    generation: AtomicU64,
}

impl Datapath {
    /// Loads `object`, adopting what an earlier agent left, and attaches it. Blocks for about 60 ms.
    ///
    /// `object` must be aligned to 8 bytes (`aya::include_bytes_aligned!`, or a `Vec` as read from a file).
    ///
    /// # Errors
    ///
    /// Any [`Error`]; then nothing that this call made is left, and links of an earlier agent run their old program.
    pub fn open(object: &[u8], settings: &Settings) -> Result<Self> {
        let mut loaded = loader::load(object, settings)?;
        let events = Events::take(&mut loaded.ebpf)?;
        let mut datapath = Self {
            tables: loaded.tables,
            report: loaded.report,
            ticks: Ticks { hz: 0 },
            ebpf: loaded.ebpf,
            control: Mutex::new(()),
            map_ids: map_ids(&loaded.pins)?,
            pins: loaded.pins,
            virtual_macs: Mutex::new(Vec::new()),
            events: Mutex::new(Some(events)),
            generation: AtomicU64::new(0),
        };
        // Routes and neighbours may have changed while no agent watched them.
        datapath.new_hops()?;
        datapath.ticks = datapath.calibrate()?;
        loaded.undo.keep();
        Ok(datapath)
    }

    /// The typed tables.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the start did: interfaces with their hooks, adopted maps, notes for the operator.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The kernel's tick rate.
    #[must_use]
    pub const fn ticks(&self) -> Ticks {
        self.ticks
    }

    /// Brings the tables to the desired services: the fewest writes, live conns untouched.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] if the services do not fit; then nothing was written.
    pub fn apply(&self, desired: &[DesiredService]) -> Result<(Plan, Ids)> {
        let applied = apply::apply(&self.tables, desired, |change| self.steer(change));
        self.generation.fetch_add(1, Ordering::Release);
        applied
    }

    /// A number that changes whenever services or backends may have changed: what was read from their tables before is
    /// then to be read anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Frees the ids of removed backends without conns; answers which.
    ///
    /// `conns` is the number of entries per backend id that a sweep found which began after the last [`Self::apply`].
    ///
    /// # Errors
    ///
    /// A table cannot be read or written.
    pub fn reclaim(&self, conns: &[u32]) -> Result<Vec<u16>> {
        let freed = apply::reclaim(&self.tables, conns, |change| self.steer(change))?;
        if !freed.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(freed)
    }

    /// Makes every cached next hop be looked up again, and tells the packet path the addresses of its interfaces.
    ///
    /// # Errors
    ///
    /// The interfaces cannot be listed, or a table cannot be written.
    pub fn new_hops(&self) -> Result<()> {
        let virtual_macs = self.virtual_macs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let attached = |dev: &&netdev::NetDev| self.report.interfaces.iter().any(|known| known.ifindex == dev.index);
        for dev in netdev::list()?.iter().filter(attached) {
            if let Some(own) = dev.mac {
                let other = virtual_macs.iter().find(|(ifindex, _)| *ifindex == dev.index).map_or(own, |(_, mac)| *mac);
                self.tables.links.set(Link::slot(dev.index), &Link { ifindex: dev.index, own, other })?;
            }
        }
        self.steer(&Control::new_hops)
    }

    /// Has the packet path take frames for one more link-layer address per interface (by index), and for no others than
    /// these and its own.
    ///
    /// # Errors
    ///
    /// As [`Self::new_hops`].
    pub fn set_virtual_macs(&self, macs: &[(u32, [u8; 6])]) -> Result<()> {
        let mut virtual_macs = self.virtual_macs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *virtual_macs == macs {
            return Ok(());
        }
        macs.clone_into(&mut virtual_macs);
        drop(virtual_macs);
        self.new_hops()
    }

    /// Tells the packet path after which silence a half-open conn is dead.
    ///
    /// # Errors
    ///
    /// `control` cannot be written.
    pub fn set_syn_recv(&self, timeout: std::time::Duration) -> Result<()> {
        let ticks = self.ticks.from_duration(timeout);
        self.steer(&|control| control.syn_recv_jiffies = ticks)
    }

    /// Sets which VIPs the ARP gate guards, what it does, and after which silence of the agent it closes. Counts as a
    /// heartbeat.
    ///
    /// # Errors
    ///
    /// More than [`MAX_VIPS`] VIPs, or `control` cannot be written.
    pub fn guard(&self, vips: &[Ipv4], gate: ArpGate, stale: std::time::Duration) -> Result<()> {
        let mut places = [Ipv4::new([0; 4]); MAX_VIPS];
        let Some(used) = places.get_mut(..vips.len()) else {
            return Err(Error::Plan(format!("{} VIPs, the ARP gate guards at most {MAX_VIPS}", vips.len())));
        };
        used.copy_from_slice(vips);
        let now = self.clock()?.jiffies as u32;
        let heartbeat_jiffies = self.ticks.from_duration(stale);
        self.steer(&|control| {
            // One write of the whole element: the gate never sees half of this.
            *control = Control { vips: places, arp_gate: gate, heartbeat: now, heartbeat_jiffies, ..*control };
        })
    }

    /// Tells the ARP gate that the agent is alive.
    ///
    /// Takes no lock and allocates nothing: a thread that must not wait calls it. A change of `control` that runs at the
    /// same moment may put the previous heartbeat back; the next one heals that.
    ///
    /// # Errors
    ///
    /// The kernel refuses to run `lb_beat`.
    pub fn heartbeat(&self) -> Result<()> {
        self.run(abi::PROG_BEAT, &[0; 64], None).map(drop)
    }

    /// The reading end of the event ring; `None`: it was taken before.
    #[must_use]
    pub fn take_events(&self) -> Option<Events> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// Reads the kernel's clocks.
    ///
    /// # Errors
    ///
    /// The kernel refuses to run `lb_clock`.
    pub fn clock(&self) -> Result<clock::Reading> {
        let _only_writer = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The kernel wants a packet: an empty Ethernet frame will do.
        self.run(abi::PROG_CLOCK, &[0; 64], None)?;
        let control = self.tables.control.get(0)?;
        Ok(clock::Reading { jiffies: control.clock_jiffies, ns: control.clock_ns })
    }

    /// Removes conns of `conns` unless a packet of theirs came since they were seen; answers what became of each.
    ///
    /// # Errors
    ///
    /// More than [`retire::BATCH`] requests, or the kernel refuses to run `lb_retire`.
    pub fn retire(&self, requests: &[Request]) -> Result<Vec<Outcome>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        if requests.len() > retire::BATCH {
            return Err(Error::Plan(format!(
                "{} conns to retire at once, {} are possible",
                requests.len(),
                retire::BATCH
            )));
        }
        let frame: Vec<u8> = requests.iter().flat_map(|request| request.bytes().iter().copied()).collect();
        let mut back = vec![0; frame.len()];
        self.run(abi::PROG_RETIRE, &frame, Some(&mut back))?;
        let unreadable = |error: Invalid| Error::object("run lb_retire".to_owned(), &error);
        back.chunks_exact(Outcome::SIZE).map(|bytes| Outcome::decode(bytes).map_err(unreadable)).collect()
    }

    /// Runs a program that is never attached over a frame; answers what it returns, and in `back` what it made of the
    /// frame.
    fn run(&self, name: &str, frame: &[u8], back: Option<&mut [u8]>) -> Result<u32> {
        let Some(Program::Xdp(program)) = self.ebpf.program(name) else {
            return Err(Error::Object { what: format!("run {name}"), why: "it is not an XDP program".to_owned() });
        };
        let options = TestRunOptions { data_in: Some(frame), data_out: back, ..TestRunOptions::default() };
        let result = program.test_run(options).map_err(|error| Error::object(format!("run {name}"), &error))?;
        Ok(result.return_value)
    }

    /// Takes everything off: links, programs, maps with all conns; tells what. As [`unload`], for the running agent.
    ///
    /// # Errors
    ///
    /// The kernel refuses to detach.
    pub fn detach(self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        loader::remove_all(self.pins, &mut done)?;
        Ok(done)
    }

    /// Reads `control`, changes it and writes it back.
    fn steer(&self, change: &dyn Fn(&mut Control)) -> Result<()> {
        let _only_writer = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut control = self.tables.control.get(0)?;
        change(&mut control);
        self.tables.control.set(0, &control)
    }

    fn calibrate(&self) -> Result<Ticks> {
        let mut span = clock::SPAN;
        for _ in 0..5 {
            let first = self.clock()?;
            std::thread::sleep(span);
            if let Some(hz) = clock::rate(first, self.clock()?) {
                return Ok(Ticks { hz });
            }
            // A virtual machine that was not scheduled: look at a longer stretch.
            span *= 2;
        }
        let why = "jiffies and CLOCK_MONOTONIC do not agree on a tick rate of 100, 250, 300 or 1000 Hz".to_owned();
        Err(Error::Object { what: "find the kernel's tick rate".to_owned(), why })
    }
}

//! One loaded object with its maps, and single calls of `BPF_PROG_TEST_RUN`.
//!
//! Follows `Documentation/bpf/bpf_prog_run.rst`. The kernel measures the time, around the runs and without the system
//! call, and answers whole nanoseconds per run.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, Map, RingBuf},
    programs::{Program, SchedClassifier, Xdp, xdp::XdpMode},
};
use lb_common::{
    abi::{self, map},
    control::Control,
    counter::Counter,
    link::Link,
};
use lb_userspace::datapath::{TableSizes, Tables};

use super::{
    Hook,
    chain::HOP_GEN,
    frame::LEN,
    sandbox::{NEIGHBOUR_MAC, PORT, PORT_MAC, Sandbox},
};

/// Runs per call: as many as the TTL allows a packet that starts with the highest.
pub(super) const REPEAT: u32 = 250;

/// What one call yields.
pub(super) struct Outcome {
    /// Nanoseconds per run.
    pub(super) ns: f64,
    /// The return value of the last run.
    pub(super) action: i32,
    /// The packet after the last run.
    pub(super) frame: [u8; LEN],
}

/// An object file.
pub(super) struct Loader {
    object: Vec<u8>,
}

impl Loader {
    /// One that `cargo xtask build-ebpf` made.
    pub(super) fn of(name: &str) -> Result<Self> {
        Self::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name))
    }

    /// One from anywhere.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let read = fs::read(path);
        let object = read.with_context(|| format!("read {}: built by `cargo xtask build-ebpf`", path.display()))?;
        Ok(Self { object })
    }
}

/// Loaded programs of one object.
pub(super) struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Loads the object of the two baselines.
    pub(super) fn baselines(sandbox: &Sandbox) -> Result<Self> {
        let object = Loader::of("lb-bench.o")?.object;
        let mut programs = Self { ebpf: EbpfLoader::new().load(&object).context("load lb-bench.o")? };
        for name in ["bench_noop", "bench_forwarder"] {
            programs.load_xdp(name, Some(sandbox.stand()?))?;
        }
        for name in ["bench_noop_tc", "bench_fwd_tc"] {
            programs.load_tc(name)?;
        }
        Ok(programs)
    }

    /// Loads an XDP program, and attaches it so that runs with repeats are as cheap as packets.
    fn load_xdp(&mut self, name: &str, stand: Option<u32>) -> Result<()> {
        let Some(Program::Xdp(program)) = self.ebpf.program_mut(name) else { bail!("no XDP program {name}") };
        program.load().with_context(|| format!("load {name}"))?;
        if let Some(stand) = stand {
            program.attach_to_if_index(stand, XdpMode::Skb).with_context(|| format!("attach {name}"))?;
        }
        Ok(())
    }

    fn load_tc(&mut self, name: &str) -> Result<()> {
        let Some(Program::SchedClassifier(program)) = self.ebpf.program_mut(name) else {
            bail!("no TC program {name}")
        };
        program.load().with_context(|| format!("load {name}"))
    }

    /// Runs a program `repeat` times on a frame that came in by the port.
    pub(super) fn run(&self, hook: Hook, name: &str, frame: &[u8; LEN], repeat: u32) -> Result<Outcome> {
        let mut out = [0; LEN];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let xdp_md = [0, LEN as u32, 0, PORT, 0, 0];
        // struct __sk_buff up to ingress_ifindex (word 9) and ifindex (word 10); the rest is zero.
        let sk_buff = [0, 0, 0, 0, 0, 0, 0, 0, 0, PORT, PORT];
        let context = match hook {
            Hook::Xdp => xdp_md.as_slice(),
            Hook::Tc => sk_buff.as_slice(),
        };
        let mut context_bytes = [0; 44];
        for (bytes, word) in context_bytes.chunks_exact_mut(4).zip(context) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context_bytes[..4 * context.len()]),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self.test_run(name, options)?;
        if result.data_size_out as usize != LEN {
            bail!("{name} left a packet of {} bytes", result.data_size_out);
        }
        // The kernel cuts off what is below a nanosecond: half of one on average.
        let ns = result.duration.as_nanos() as f64 + 0.5;
        Ok(Outcome { ns, action: result.return_value.cast_signed(), frame: out })
    }

    /// Runs a program once on `data`, without an interface.
    pub(super) fn run_on(&self, name: &str, data: &[u8]) -> Result<(f64, u32)> {
        let result = self.test_run(name, TestRunOptions { data_in: Some(data), ..TestRunOptions::default() })?;
        Ok((result.duration.as_nanos() as f64 + 0.5, result.return_value))
    }

    fn test_run(&self, name: &str, options: TestRunOptions<'_>) -> Result<aya::TestRunResult> {
        match self.ebpf.program(name) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => bail!("no program {name}"),
        }
        .with_context(|| format!("run {name}"))
    }

    /// Instructions that the verifier looked at.
    pub(super) fn verified(&self, name: &str) -> Result<u32> {
        let info = match self.ebpf.program(name) {
            Some(Program::Xdp(program)) => Xdp::info(program),
            Some(Program::SchedClassifier(program)) => SchedClassifier::info(program),
            _ => bail!("no program {name}"),
        };
        info.context("program info")?.verified_instruction_count().context("the kernel does not tell (before 5.16)")
    }
}

/// The packet path over maps of its own.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) tables: Tables,
    events: std::cell::RefCell<RingBuf<aya::maps::MapData>>,
    conns_fd: String,
}

impl Loaded {
    /// Loads the packet path with tables of these sizes, all empty, and `control` as the agent would write it.
    pub(super) fn load(
        sandbox: &Sandbox,
        loader: &Loader,
        sizes: TableSizes,
        admit: impl FnOnce(&mut Control),
    ) -> Result<Self> {
        let pins = sandbox.pin_dir()?;
        let at = |map: &str| -> PathBuf { pins.join(map) };
        let object = &loader.object;
        let mut loader = EbpfLoader::new();
        let capacities = [
            (map::SERVICES, sizes.services),
            (map::CURSORS, sizes.services),
            (map::BACKENDS, sizes.backends),
            (map::STATS, sizes.backends),
            (map::LOADS, sizes.backends),
            (map::RINGS, sizes.services),
            (map::CONNS, 2 * sizes.conns),
            (map::HALF_OPEN, 2 * sizes.half_open),
        ];
        for (map, capacity) in capacities {
            loader.map_max_entries(map, capacity);
        }
        for map in map::ALL {
            loader.map_pin_path(map, at(map));
        }
        let ebpf = loader.load(object).context("load the packet path")?;
        let mut programs = Programs { ebpf };
        programs.load_xdp(abi::PROG_XDP, Some(sandbox.stand()?))?;
        programs.load_xdp(abi::PROG_RETIRE, None)?;
        programs.load_tc(abi::PROG_TC)?;
        let tables = Tables::open(&pins).context("open the tables")?;
        let mut control = Control { hop_gen: HOP_GEN, syn_recv_jiffies: u32::MAX, ..Control::default() };
        admit(&mut control);
        tables.control.set(0, &control)?;
        let links = programs.ebpf.map_mut(map::LINKS).context("no map of links")?;
        // Every run but the first finds the address of the next hop where its own should be: the port takes both.
        let link = Link { ifindex: PORT, own: PORT_MAC, other: NEIGHBOUR_MAC };
        Array::try_from(links)?.set(Link::slot(PORT), link, 0).context("write the link")?;
        let events = programs.ebpf.take_map(map::EVENTS).context("no map of events")?;
        let events = std::cell::RefCell::new(RingBuf::try_from(events).context("the ring of events")?);
        let Some(Map::HashMap(conns)) = programs.ebpf.map(map::CONNS) else { bail!("no map of conns") };
        let conns_fd = conns.fd().as_fd().as_raw_fd().to_string();
        Ok(Self { programs, tables, events, conns_fd })
    }

    /// Takes the records of new conns off the ring, as the agent does.
    pub(super) fn drain_events(&self) -> usize {
        let mut events = self.events.borrow_mut();
        let mut count = 0;
        while events.next().is_some() {
            count += 1;
        }
        count
    }

    /// What `conns` takes of the kernel's memory, in bytes.
    pub(super) fn conns_memory(&self) -> Result<u64> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.conns_fd)).context("read fdinfo")?;
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock in fdinfo")?;
        line.trim().parse().context("memlock")
    }

    /// Every counter, and the packets of every backend.
    pub(super) fn counts(&self, backends: u16) -> Result<Counts> {
        let mut counts = Counts { counters: self.tables.counters()?, forward: 0, reverse: 0 };
        for backend in 0..backends {
            let stats = self.tables.stats(backend)?;
            counts.forward += stats.in_packets;
            counts.reverse += stats.out_packets;
        }
        Ok(counts)
    }
}

/// What the packet path counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) counters: Vec<(Counter, u64)>,
    pub(super) forward: u64,
    pub(super) reverse: u64,
}

impl Counts {
    /// The counts after `forward` and `reverse` translated packets, and `also` of some counters.
    pub(super) fn plus(&self, forward: u64, reverse: u64, also: &[(Counter, u64)]) -> Self {
        let mut sum = self.clone();
        sum.forward += forward;
        sum.reverse += reverse;
        for (counter, count) in also {
            if let Some(entry) = sum.counters.iter_mut().find(|entry| entry.0 == *counter) {
                entry.1 += count;
            }
        }
        sum
    }
}

//! One program of the object, loaded privately, run packet by packet with `BPF_PROG_TEST_RUN`.
//!
//! Follows `Documentation/bpf/bpf_prog_run.rst`. Nothing is attached and nothing is pinned.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, Xdp},
};
use aya::{TestRun, TestRunOptions};
use lb_common::abi::{self, map};

use super::{
    network::{Network, Port},
    tables::Tables,
};
use crate::hook::Hook;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the kernel (`XDP_PASS`, `TC_ACT_UNSPEC` = `TCX_NEXT`).
    Pass,
    /// Is discarded (`XDP_DROP`, `TC_ACT_SHOT`).
    Drop,
    /// Leaves by the interface it came in by (`XDP_TX`).
    Tx,
    /// Leaves by an interface that a helper was told (`XDP_REDIRECT`, `TC_ACT_REDIRECT`); which one, a test run hides.
    Redirect,
}

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// Capacities of the maps that a test may want full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of `conns`: two for each conn.
    pub conns: u32,
    /// Entries of `half_open`: two for each conn.
    pub half_open: u32,
    /// Bytes of the event ring; a multiple of the page size and a power of two.
    pub events: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { conns: 1024, half_open: 1024, events: abi::EVENTS_BYTES }
    }
}

/// Services, backends and ring slots that a test can use.
const SERVICES: u32 = 8;
const BACKENDS: u32 = 16;
const SLOTS: u32 = 64;

/// A program under test, its maps and the network it sees.
pub struct Bench {
    hook: Hook,
    ebpf: Ebpf,
    /// The maps.
    pub tables: Tables,
    /// The namespace; last, so that it goes last.
    pub network: Network,
}

impl Bench {
    /// Loads the program of `hook` with maps of the default sizes.
    ///
    /// # Errors
    ///
    /// Without the object, without root, or when the verifier refuses the program.
    pub fn load(hook: Hook) -> Result<Self> {
        Self::with_sizes(hook, Sizes::default())
    }

    /// Loads the program of `hook`.
    ///
    /// # Errors
    ///
    /// As [`Bench::load`].
    pub fn with_sizes(hook: Hook, sizes: Sizes) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lb.o");
        let object = std::fs::read(&path)
            .with_context(|| format!("read {}: build it with `cargo xtask build-ebpf`", path.display()))?;
        let network = Network::enter()?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::CONNS, sizes.conns)
            .map_max_entries(map::HALF_OPEN, sizes.half_open)
            .map_max_entries(map::EVENTS, sizes.events)
            .map_max_entries(map::SERVICES, SERVICES)
            .map_max_entries(map::CURSORS, SERVICES)
            .map_max_entries(map::BACKENDS, BACKENDS)
            .map_max_entries(map::STATS, BACKENDS)
            .map_max_entries(map::LOADS, BACKENDS)
            .map_max_entries(map::RINGS, SLOTS)
            .load(&object)
            .context("load the object")?;
        // Both, over the same maps: what XDP defers, TC translates.
        program::<Xdp>(&mut ebpf, abi::PROG_XDP)?.load().context("load the XDP program")?;
        program::<SchedClassifier>(&mut ebpf, abi::PROG_TC)?.load().context("load the TC program")?;
        program::<Xdp>(&mut ebpf, abi::PROG_CLOCK)?.load().context("load the clock")?;
        program::<Xdp>(&mut ebpf, abi::PROG_REPLICA)?.load().context("load the writer of the peer's conns")?;
        let tables = Tables::take(&mut ebpf)?;
        let mut bench = Self { hook, ebpf, tables, network };
        bench.tables.clear()?;
        Ok(bench)
    }

    /// The hook.
    #[must_use]
    pub const fn hook(&self) -> Hook {
        self.hook
    }

    /// The low word of the kernel's jiffies, as the packet path reads them.
    pub fn jiffies(&mut self) -> Result<u32> {
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
        program::<Xdp>(&mut self.ebpf, abi::PROG_CLOCK)?.test_run(options).context("run the clock")?;
        Ok(self.tables.control()?.clock_jiffies as u32)
    }

    /// Runs the program that writes conns of the other director over a frame; answers the frame afterwards.
    ///
    /// # Errors
    ///
    /// The kernel refuses the run: a frame shorter than an Ethernet header.
    pub fn replicate(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        program::<Xdp>(&mut self.ebpf, abi::PROG_REPLICA)?.test_run(options).context("run lb_replica")?;
        Ok(out)
    }

    /// Runs the program on one frame that came in by `port`.
    ///
    /// # Errors
    ///
    /// As [`Bench::run_at`].
    pub fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        self.run_at(self.hook, port, frame)
    }

    /// Runs the program of another hook than the bench's own over the same maps.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the run (a frame shorter than an Ethernet header), or the program returns a number that
    /// is no verdict of its hook.
    pub fn run_at(&mut self, hook: Hook, port: Port, frame: &[u8]) -> Result<Outcome> {
        self.runs(hook, port, frame, 1)
    }

    /// Runs the program `times` times on one frame that it leaves as it is: the kernel hands each run what the one
    /// before made of the frame.
    ///
    /// # Errors
    ///
    /// As [`Bench::run_at`].
    pub fn repeat(&mut self, port: Port, frame: &[u8], times: u32) -> Result<Outcome> {
        self.runs(self.hook, port, frame, times)
    }

    fn runs(&mut self, hook: Hook, port: Port, frame: &[u8], repeat: u32) -> Result<Outcome> {
        let mut out = vec![0; frame.len() + 256];
        let context = match hook {
            Hook::Xdp => xdp_md(frame.len(), port),
            Hook::Tc => sk_buff(port),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, abi::PROG_XDP)?.test_run(options),
            Hook::Tc => program::<SchedClassifier>(&mut self.ebpf, abi::PROG_TC)?.test_run(options),
        }
        .with_context(|| format!("run {} on {} bytes", hook, frame.len()))?;
        let size = result.data_size_out as usize;
        ensure!(size <= out.len(), "the packet grew to {size} bytes");
        out.truncate(size);
        Ok(Outcome { verdict: verdict(hook, result.return_value)?, packet: out })
    }
}

/// The program of a name, as its type.
fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program `{name}`"))?;
    program.try_into().with_context(|| format!("program `{name}`"))
}

/// The verdict behind a return value (`linux/bpf.h`, `linux/pkt_cls.h`).
fn verdict(hook: Hook, value: u32) -> Result<Verdict> {
    Ok(match (hook, value.cast_signed()) {
        (Hook::Xdp, 1) | (Hook::Tc, 2) => Verdict::Drop,
        (Hook::Xdp, 2) | (Hook::Tc, -1) => Verdict::Pass,
        (Hook::Xdp, 3) => Verdict::Tx,
        (Hook::Xdp, 4) | (Hook::Tc, 7) => Verdict::Redirect,
        (_, other) => bail!("{hook} returned {other}"),
    })
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_md(len: usize, port: Port) -> Vec<u8> {
    [0, len as u32, 0, port.ifindex(), 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

/// The start of `struct __sk_buff`, up to `ingress_ifindex` (word 9) and `ifindex` (word 10); the rest is zero.
fn sk_buff(port: Port) -> Vec<u8> {
    let mut words = [0_u32; 11];
    (words[9], words[10]) = (port.ifindex(), port.ifindex());
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

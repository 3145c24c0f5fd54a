//! What memory alone costs on this machine: loads from random places, each of which says where the next one is.
//!
//! A table of a million conns is about as large as an area of 256 MiB, and its pages are as small. So the rows with many
//! flows can be read as a number of such loads, whatever the machine. An area of 64 MiB is what a table would take that
//! spends no more than a cache line on a flow: no packet of one in a million can cost less than a load from it.

use std::io;

use anyhow::{Context, Result, ensure};

use super::{chain::shuffled, loaded::REPEAT, row::Probe, sandbox::cpu_time};

/// Lines in a mebibyte.
const LINES: u32 = (1 << 20) / 64;
/// Bytes of a small page: what the kernel's tables lie in.
const PAGE: usize = 4096;

/// A cache line that holds the number of the next one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(u32);

/// The area: a ring through all of its lines in random order.
pub(super) struct Memory {
    lines: Vec<Line>,
    at: u32,
}

impl Memory {
    pub(super) fn new(mebibytes: u32) -> Result<Self> {
        let count = mebibytes * LINES;
        let mut lines: Vec<Line> = Vec::with_capacity(count as usize);
        let area = lines.spare_capacity_mut();
        let first = area.as_mut_ptr().map_addr(|at| at.next_multiple_of(PAGE));
        let bytes = (size_of_val(area) - PAGE) & !(PAGE - 1);
        // SAFETY: whole pages inside the allocation, which nobody else uses; the advice changes no contents.
        let status = unsafe { libc::madvise(first.cast(), bytes, libc::MADV_NOHUGEPAGE) };
        ensure!(status == 0, "madvise: {}", io::Error::last_os_error());
        lines.resize(count as usize, Line(0));
        let order = shuffled(count);
        for (line, next) in order.iter().zip(order.iter().cycle().skip(1)) {
            lines[*line as usize] = Line(*next);
        }
        Ok(Self { lines, at: 0 })
    }
}

impl Probe for Memory {
    fn sample(&mut self, calls: u32) -> Result<f64> {
        let loads = calls * REPEAT;
        let began = cpu_time()?;
        let mut at = self.at;
        for _ in 0..loads {
            at = self.lines.get(at as usize).context("the ring leaves the area")?.0;
        }
        let ns = (cpu_time()? - began).as_nanos() as f64;
        self.at = at;
        Ok(ns / f64::from(loads))
    }
}

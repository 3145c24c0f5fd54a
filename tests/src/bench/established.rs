//! Packets of established conns: the rows that the goals are about.

use std::rc::Rc;

use anyhow::Result;
use lb_common::conn::Direction;

use super::{
    Hook,
    chain::Chain,
    frame::Frame,
    loaded::{Loaded, REPEAT},
    openings,
    row::{Probe, TTL_AFTER, call, check, packet_path, plain},
    sandbox::{NEIGHBOUR_MAC, PORT_MAC},
};

/// The most runs before a sample that only warm up. What the caches can hold of these flows, they hold then, as if these
/// were all that the director has.
const WARM_UP: usize = 200_000;
/// Walks around the ring before a sample, if that is less. One is not enough: a last-level cache takes in a line that
/// was pushed out before.
const WALKS: usize = 3;

/// Packets of established conns, each run another one of the chain.
pub(super) struct Established {
    loaded: Rc<Loaded>,
    chain: Rc<Chain>,
    hook: Hook,
    dir: Direction,
    partial: bool,
    /// Where in the chain the next call starts.
    step: usize,
    /// Grows from call to call, so that every packet has something new to tell.
    seq: u32,
}

impl Established {
    /// Packets of `chain` in one direction with finished checksums.
    pub(super) fn new(loaded: &Rc<Loaded>, chain: &Rc<Chain>, hook: Hook, dir: Direction) -> Self {
        // The hooks share a table: where one has just been, the other would find warm caches.
        let step = if hook == Hook::Tc { chain.len() / 2 } else { 0 };
        Self { loaded: Rc::clone(loaded), chain: Rc::clone(chain), hook, dir, partial: false, step, seq: 1000 }
    }

    /// The same with checksums that look unfinished: the TC program uses the kernel's helpers.
    pub(super) fn partial(self) -> Self {
        Self { partial: true, ..self }
    }

    /// One call; answers nanoseconds per run.
    fn call(&mut self) -> Result<f64> {
        let frame = self.frame();
        self.step += REPEAT as usize;
        self.seq = self.seq.wrapping_add(1000);
        let expected = Frame {
            dst_mac: NEIGHBOUR_MAC,
            src_mac: PORT_MAC,
            key: self.chain.key(self.dir, self.step),
            ttl: TTL_AFTER,
            ..frame
        };
        call(&self.loaded.programs, self.hook, packet_path(self.hook), &frame, true, &expected)
    }

    /// The next packet. Without the care that a finished checksum may need by chance, see [`Frame::looks_partial`]: the
    /// chain would end at that flow.
    fn frame(&self) -> Frame {
        let mut frame =
            Frame { seq: self.seq, ack: self.seq, partial: self.partial, ..plain(self.chain.key(self.dir, self.step)) };
        let steps = (REPEAT as usize).min(self.chain.len());
        let unlucky = |frame: &Frame| {
            let key = |step| self.chain.key(self.dir, self.step + step);
            (0..steps).any(|step| Frame { key: key(step), ..*frame }.looks_partial())
        };
        while !self.partial && unlucky(&frame) {
            frame.payload = frame.payload.wrapping_add(1);
        }
        frame
    }
}

impl Probe for Established {
    fn sample(&mut self, calls: u32) -> Result<f64> {
        let before = self.loaded.counts(openings::COUNT as u16)?;
        let warm_up = (WALKS * self.chain.len()).min(WARM_UP) as u32 / REPEAT;
        for _ in 0..warm_up {
            self.call()?;
        }
        let mut ns = 0.0;
        for _ in 0..calls {
            ns += self.call()?;
        }
        let runs = u64::from((warm_up + calls) * REPEAT);
        let (forward, reverse) = match self.dir {
            Direction::Forward => (runs, 0),
            Direction::Reverse => (0, runs),
        };
        check(&self.loaded, &before, forward, reverse, &[])?;
        Ok(ns / f64::from(calls))
    }
}

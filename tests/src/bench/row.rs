//! What one row of the benchmark runs, and the proof that it ran what it says.
//!
//! A sample that took another way than its row claims is an error, never a figure: verdict and packet of every call
//! are compared with what they should be, and the packet path's own counters with the number of runs.

use std::rc::Rc;

use anyhow::{Result, ensure};
use lb_common::{abi, addr::Ipv4, conn::FlowKey, counter::Counter, tcp::flag};

use super::{
    Hook,
    chain::BACKEND,
    frame::{Frame, LEN, TTL, same},
    loaded::{Counts, Loaded, Programs, REPEAT},
    openings,
    sandbox::{NEIGHBOUR_MAC, PORT_MAC},
};

/// `XDP_PASS`, `XDP_TX`, `XDP_REDIRECT`.
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// `TCX_NEXT`, `TC_ACT_REDIRECT`.
const TC_NEXT: i32 = -1;
const TC_REDIRECT: i32 = 7;

/// The TTL after a call.
pub(super) const TTL_AFTER: u8 = TTL - REPEAT as u8;

/// Something that can be measured again and again.
pub(super) trait Probe {
    /// Makes `calls` calls of [`REPEAT`] runs each; answers the mean time of a run in nanoseconds.
    fn sample(&mut self, calls: u32) -> Result<f64>;
}

/// What a program does with a packet that it sends on, or leaves alone.
fn action(hook: Hook, sent: bool) -> i32 {
    match (hook, sent) {
        (Hook::Xdp, true) => XDP_TX,
        (Hook::Xdp, false) => XDP_PASS,
        (Hook::Tc, true) => TC_REDIRECT,
        (Hook::Tc, false) => TC_NEXT,
    }
}

/// The packet path's program at a hook.
pub(super) fn packet_path(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => abi::PROG_XDP,
        Hook::Tc => abi::PROG_TC,
    }
}

pub(super) fn call(
    programs: &Programs,
    hook: Hook,
    name: &str,
    frame: &Frame,
    sent: bool,
    expected: &Frame,
) -> Result<f64> {
    let outcome = programs.run(hook, name, &frame.bytes(), REPEAT)?;
    let wanted = action(hook, sent);
    ensure!(outcome.action == wanted, "{name} answered {} instead of {wanted}", outcome.action);
    let expected: [u8; LEN] = expected.bytes();
    ensure!(
        same(&outcome.frame, &expected),
        "{name} made of {frame:x?}\n{:x?} instead of\n{expected:x?}",
        outcome.frame
    );
    Ok(outcome.ns)
}

pub(super) fn check(
    loaded: &Loaded,
    before: &Counts,
    forward: u64,
    reverse: u64,
    also: &[(Counter, u64)],
) -> Result<()> {
    let (after, wanted) = (loaded.counts(openings::COUNT as u16)?, before.plus(forward, reverse, also));
    ensure!(after == wanted, "the packet path took another way: it counts\n{after:?} instead of\n{wanted:?}");
    Ok(())
}

/// A TCP packet of nobody's: neither end is a service or a backend.
pub(super) struct Foreign {
    pub(super) loaded: Rc<Loaded>,
    pub(super) hook: Hook,
}

impl Probe for Foreign {
    fn sample(&mut self, calls: u32) -> Result<f64> {
        let before = self.loaded.counts(openings::COUNT as u16)?;
        let mut ns = 0.0;
        for _ in 0..calls {
            let frame = plain(FlowKey::tcp(Ipv4::new([10, 80, 1, 1]), 40000, Ipv4::new([192, 168, 80, 9]), 22));
            ns += call(&self.loaded.programs, self.hook, packet_path(self.hook), &frame, false, &frame)?;
        }
        check(&self.loaded, &before, 0, 0, &[])?;
        Ok(ns / f64::from(calls))
    }
}

/// An ordinary segment that came in by the port.
pub(super) fn plain(key: FlowKey) -> Frame {
    let (dst_mac, src_mac) = (PORT_MAC, NEIGHBOUR_MAC);
    Frame { dst_mac, src_mac, key, ttl: TTL, flags: flag::ACK, seq: 1, ack: 1, partial: false, payload: 0 }
}

/// A program of the baseline.
pub(super) struct Baseline {
    pub(super) programs: Rc<Programs>,
    pub(super) hook: Hook,
    /// Routes the packet; otherwise it does nothing.
    pub(super) forwards: bool,
}

impl Probe for Baseline {
    fn sample(&mut self, calls: u32) -> Result<f64> {
        let name = match (self.hook, self.forwards) {
            (Hook::Xdp, true) => "bench_forwarder",
            (Hook::Xdp, false) => "bench_noop",
            (Hook::Tc, true) => "bench_fwd_tc",
            (Hook::Tc, false) => "bench_noop_tc",
        };
        let frame = plain(FlowKey::tcp(Ipv4::new([10, 80, 1, 1]), 40000, Ipv4::new([192, 168, 80, 167]), 3306));
        let expected = if self.forwards {
            Frame { dst_mac: NEIGHBOUR_MAC, src_mac: PORT_MAC, ttl: TTL_AFTER, ..frame }
        } else {
            frame
        };
        // A program that does nothing sends the frame back at XDP and leaves it to the kernel at TC.
        let sent = self.forwards || self.hook == Hook::Xdp;
        let mut ns = 0.0;
        for _ in 0..calls {
            ns += call(&self.programs, self.hook, name, &frame, sent, &expected)?;
        }
        Ok(ns / f64::from(calls))
    }
}

/// The backend whose counters the chains count on is one of those that [`check`] reads.
const _: () = assert!((BACKEND as u32) < openings::COUNT);

//! The entry points, and the one place where a verdict becomes an action of the hook.
//!
//! The way of a packet: hook (here) → `datapath` → (`opening`, `closing`) → `forward` → `hop` → `nat` → verdict (here).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros wrap the documented function in one without docs"
)]

mod arp;
mod atomic;
mod clock;
mod closing;
mod count;
mod datapath;
mod events;
mod forward;
mod hook;
mod hop;
mod load;
mod maps;
mod nat;
mod opening;
mod reset;
mod retire;
mod schedule;
mod tc;
mod xdp;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::counter::Counter;

use crate::{hook::Hook, tc::Tc, xdp::Xdp};

/// Where a packet goes.
pub(crate) enum Verdict {
    /// On to the kernel, untouched.
    Pass,
    /// On to the TC program, untouched: this hook cannot translate it.
    Defer,
    /// Run again once the headers lie in the linear part of the buffer.
    Pull,
    /// Nowhere, for this reason.
    Drop(Counter),
    /// Back to its sender as a RST, for this reason.
    Reset(Counter),
    /// Translated, to the neighbour whose addresses are in the frame.
    Send {
        /// The interface it leaves by.
        ifindex: u32,
    },
    /// Translated, to a neighbour that the kernel has yet to ask for its address.
    SendUnresolved {
        /// The interface it leaves by.
        ifindex: u32,
        /// The neighbour, as a word of the packet.
        gateway: u32,
    },
}

/// Runs the packet path and turns its verdict into the hook's action, with the counter of every drop.
#[inline(always)]
fn act<H: Hook>(hook: &H) -> H::Action {
    match datapath::run(hook) {
        Verdict::Pass => H::PASS,
        Verdict::Defer => {
            count::one(Counter::Deferred);
            H::PASS
        }
        Verdict::Pull => H::PULL,
        Verdict::Drop(reason) => {
            count::one(reason);
            H::DROP
        }
        Verdict::Reset(reason) => {
            count::one(reason);
            datapath::reset(hook)
        }
        Verdict::Send { ifindex } => hook.send(ifindex),
        Verdict::SendUnresolved { ifindex, gateway } => hook.send_unresolved(ifindex, gateway),
    }
}

/// The packet path at the XDP hook.
#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    act(&Xdp::new(&ctx))
}

/// The packet path at the TC hook (TCX or clsact ingress).
#[classifier]
pub fn lb_tc(ctx: TcContext) -> i32 {
    let action = tc_once(ctx.skb.skb);
    if action != Tc::PULL {
        return action;
    }
    // The headers reach beyond the linear part of the buffer: pull them in, then start again.
    match ctx.pull_data(tc::HEADERS.min(ctx.len())) {
        Ok(()) => match tc_once(ctx.skb.skb) {
            Tc::PULL => Tc::PASS,
            action => action,
        },
        Err(_) => Tc::PASS,
    }
}

/// One run of the packet path over a socket buffer. Not inlined: it has two call sites.
#[inline(never)]
fn tc_once(skb: *mut __sk_buff) -> i32 {
    act(&Tc::new(skb))
}

/// Passes everything. A veth takes redirected frames only when its far end runs an XDP program.
#[xdp(frags)]
pub fn lb_xdp_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Writes the kernel's clocks into `control`. The agent runs it by `BPF_PROG_TEST_RUN`; it is never attached.
#[xdp]
pub fn lb_clock(_: XdpContext) -> u32 {
    clock::publish();
    xdp_action::XDP_PASS
}

/// Removes the expired conns that the frame names. The agent runs it by `BPF_PROG_TEST_RUN`; it is never attached.
#[xdp]
pub fn lb_retire(ctx: XdpContext) -> u32 {
    retire::batch(&ctx)
}

/// Never reached: a panic that the compiler could not remove makes the verifier refuse the object, as it should.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers for checksums, redirects and neighbours are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

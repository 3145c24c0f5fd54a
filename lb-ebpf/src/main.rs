//! The entry points, and the one place where a verdict becomes an action of the hook.
//!
//! The way of a packet: hook (here) → `straight`, where nearly all end. The others:
//! hook (here) → `datapath` → (`opening`, `closing`) → `forward` → `hop` → `nat` → verdict (here).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros wrap the documented function in one without docs"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or a value that is handed over by value is first copied on the stack"
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
mod icmp;
mod load;
mod maps;
mod nat;
mod opening;
mod replica;
mod reset;
mod retire;
mod schedule;
mod straight;
mod tc;
mod undeliverable;
mod xdp;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action, xdp_md},
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
    /// On to the kernel, untouched: it is nothing this packet path knows.
    Foreign,
    /// To the part of the path that translates ICMP errors.
    Icmp,
    /// Nowhere, for this reason.
    Drop(Counter),
    /// Back to its sender as a RST, for this reason.
    Reset(Counter),
    /// Nowhere, for this reason, of which its sender is told.
    Undeliverable(Counter),
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

/// Turns a verdict into the hook's action, with the counter of every drop.
#[inline(always)]
fn act<H: Hook>(hook: &H, verdict: Verdict) -> H::Action {
    match verdict {
        Verdict::Pass => H::PASS,
        Verdict::Defer => {
            count::one(Counter::Deferred);
            H::PASS
        }
        Verdict::Pull => H::PULL,
        Verdict::Foreign => H::FOREIGN,
        Verdict::Icmp => H::ICMP,
        Verdict::Drop(reason) => {
            count::one(reason);
            H::DROP
        }
        Verdict::Reset(reason) => {
            count::one(reason);
            H::RESET
        }
        Verdict::Undeliverable(reason) => {
            count::one(reason);
            H::UNDELIVERABLE
        }
        Verdict::Send { ifindex } => hook.send(ifindex),
        Verdict::SendUnresolved { ifindex, gateway } => hook.send_unresolved(ifindex, gateway),
    }
}

/// The packet path at the XDP hook.
#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    let hook = Xdp::new(ctx.ctx);
    if let Some(verdict) = straight::run(&hook) {
        return act(&hook, verdict);
    }
    match xdp_tcp(ctx.ctx) {
        Xdp::ICMP => xdp_icmp(ctx.ctx),
        Xdp::RESET => xdp_reset(ctx.ctx),
        Xdp::UNDELIVERABLE => xdp_undeliverable(ctx.ctx),
        action => action,
    }
}

/// The packet path at the TC hook (TCX or clsact ingress).
#[classifier]
pub fn lb_tc(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let hook = Tc::new(skb);
    if let Some(verdict) = straight::run(&hook) {
        return act(&hook, verdict);
    }
    let mut action = tc_tcp(skb);
    let again = match action {
        // The headers reach beyond the linear part of the buffer: pull them in, then start again.
        Tc::PULL => ctx.pull_data(tc::HEADERS.min(ctx.len())).is_ok(),
        Tc::FOREIGN => tc::restore_link_header(skb),
        _ => false,
    };
    if again {
        action = tc_tcp(skb);
    }
    match action {
        Tc::ICMP => tc_icmp(skb),
        Tc::RESET => tc_reset(skb),
        Tc::UNDELIVERABLE => tc_undeliverable(skb),
        Tc::PULL | Tc::FOREIGN => Tc::PASS,
        action => action,
    }
}

// Each part of the path but the straight way is a function of its own, called one after the other, because together they
// would need more than the 512 bytes of stack that a program has. A function that keeps its name is a global one to the
// verifier: it is looked at once, with any packet, instead of once for every way that leads to it.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_tcp(ctx: *mut xdp_md) -> u32 {
    let hook = Xdp::new(ctx);
    act(&hook, datapath::run(&hook))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_icmp(ctx: *mut xdp_md) -> u32 {
    let hook = Xdp::new(ctx);
    act(&hook, icmp::run(&hook))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_reset(ctx: *mut xdp_md) -> u32 {
    reset::run(&Xdp::new(ctx))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_undeliverable(ctx: *mut xdp_md) -> u32 {
    undeliverable::run(&Xdp::new(ctx))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tc_tcp(skb: *mut __sk_buff) -> i32 {
    let hook = Tc::new(skb);
    act(&hook, datapath::run(&hook))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tc_icmp(skb: *mut __sk_buff) -> i32 {
    let hook = Tc::new(skb);
    act(&hook, icmp::run(&hook))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tc_reset(skb: *mut __sk_buff) -> i32 {
    reset::run(&Tc::new(skb))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tc_undeliverable(skb: *mut __sk_buff) -> i32 {
    undeliverable::run(&Tc::new(skb))
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

/// Tells the ARP gate that the agent is alive. The agent runs it by `BPF_PROG_TEST_RUN`; it is never attached.
#[xdp]
pub fn lb_beat(_: XdpContext) -> u32 {
    clock::beat();
    xdp_action::XDP_PASS
}

/// Removes the expired conns that the frame names. The agent runs it by `BPF_PROG_TEST_RUN`; it is never attached.
#[xdp]
pub fn lb_retire(ctx: XdpContext) -> u32 {
    retire::batch(&ctx)
}

/// Writes the conns of the other director that the frame tells of. The agent runs it by `BPF_PROG_TEST_RUN`; it is never
/// attached.
#[xdp]
pub fn lb_replica(ctx: XdpContext) -> u32 {
    replica::batch(ctx.ctx, replica_nth);
    xdp_action::XDP_PASS
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn replica_nth(ctx: *mut xdp_md, index: u32) -> u32 {
    replica::nth(ctx, index)
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

//! The two programs that the packet path is measured against: a plain forwarder, and one that does nothing.
//!
//! Never shipped, never attached to a port that carries traffic. Both exist for both hooks, so that a ratio compares
//! programs of the same kind.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros wrap the documented function in one without docs"
)]

mod forwarder;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// `TCX_NEXT`.
const NEXT: i32 = -1;

/// A router at the XDP hook: what Linux's own XDP forwarder does for a TCP packet.
#[xdp(frags)]
pub fn bench_forwarder(ctx: XdpContext) -> u32 {
    // SAFETY: the verifier turns the load into the interface's number.
    let ingress = unsafe { (*ctx.ctx).ingress_ifindex };
    match forwarder::route(ctx.ctx.cast(), ctx.data(), ctx.data_end(), ingress) {
        Some(egress) if egress == ingress => xdp_action::XDP_TX,
        // SAFETY: the helper only notes the interface.
        Some(egress) => unsafe { bpf_redirect(egress, 0) as u32 },
        None => xdp_action::XDP_PASS,
    }
}

/// The same router at the TC hook.
#[classifier]
pub fn bench_fwd_tc(ctx: TcContext) -> i32 {
    // SAFETY: the verifier turns the load into the interface's number.
    let ingress = unsafe { (*ctx.skb.skb).ifindex };
    match forwarder::route(ctx.skb.skb.cast(), ctx.data(), ctx.data_end(), ingress) {
        // SAFETY: the helper only notes the interface.
        Some(egress) => unsafe { bpf_redirect(egress, 0) as i32 },
        None => NEXT,
    }
}

/// Sends every frame back: what running any program costs.
#[xdp(frags)]
pub fn bench_noop(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Leaves every packet to the kernel: what running any program costs.
#[classifier]
pub fn bench_noop_tc(_: TcContext) -> i32 {
    NEXT
}

/// Never reached: a panic that the compiler could not remove makes the verifier refuse the object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helper that asks the routing table is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

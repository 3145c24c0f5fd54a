//! The XDP hook: direct writes, and the TC program behind it for what XDP cannot do.
//!
//! XDP sees neither whether a checksum is finished (`CHECKSUM_PARTIAL`) nor a VLAN device, and it cannot wait for a
//! neighbour's address. Such frames are passed on untouched: `lb_tc` is attached behind it and translates them.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::{conn::Conn, counter::Counter, parse::Tcp};

use crate::{hook::Hook, nat};

pub(crate) struct Xdp<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Xdp<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

impl Hook for Xdp<'_> {
    type Action = u32;
    const PASS: u32 = xdp_action::XDP_PASS;
    const DROP: u32 = xdp_action::XDP_DROP;
    const PULL: u32 = Self::PASS;
    const COMPLETE: bool = false;

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.ctx.data(), self.ctx.data_end())
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Tcp, conn: &Conn) -> Result<(), Counter> {
        nat::rewrite(packet, conn);
        Ok(())
    }

    #[inline(always)]
    fn resize(&self, len: u32) -> bool {
        let ctx = self.ctx.ctx;
        // SAFETY: the helpers take the context and check the length.
        unsafe { bpf_xdp_adjust_tail(ctx, len as i32 - bpf_xdp_get_buff_len(ctx) as i32) == 0 }
    }

    #[inline(always)]
    fn reflect(&self) -> u32 {
        xdp_action::XDP_TX
    }

    #[inline(always)]
    fn send(&self, ifindex: u32) -> u32 {
        if ifindex == self.ingress() {
            return xdp_action::XDP_TX;
        }
        // SAFETY: the helper only notes the interface.
        unsafe { bpf_redirect(ifindex, 0) as u32 }
    }

    #[inline(always)]
    fn send_unresolved(&self, _: u32, _: u32) -> u32 {
        // `hop::resolve` defers before anything is rewritten.
        Self::DROP
    }
}

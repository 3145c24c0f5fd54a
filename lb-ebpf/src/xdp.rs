//! The XDP hook: direct writes, and the TC program behind it for what XDP cannot do.
//!
//! XDP sees neither whether a checksum is finished (`CHECKSUM_PARTIAL`) nor a VLAN device, and it cannot wait for a
//! neighbour's address. Such frames are passed on untouched: `lb_tc` is attached behind it and translates them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use lb_common::{conn::Conn, counter::Counter, link::Link, parse::Tcp, word};

use crate::{hook::Hook, maps::LINKS, nat};

pub(crate) struct Xdp {
    ctx: *mut xdp_md,
}

impl Xdp {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }
}

impl Hook for Xdp {
    type Action = u32;
    const PASS: u32 = xdp_action::XDP_PASS;
    const DROP: u32 = xdp_action::XDP_DROP;
    const PULL: u32 = Self::PASS;
    const FOREIGN: u32 = Self::PASS;
    const ICMP: u32 = 101;
    const RESET: u32 = 102;
    const UNDELIVERABLE: u32 = 103;
    const COMPLETE: bool = false;

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.ctx.cast()
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the verifier turns these loads into the packet's pointers.
        unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn is_addressed(&self, eth: *const u8) -> bool {
        let ifindex = self.ingress();
        let Some(link) = LINKS.get(Link::slot(ifindex)) else { return true };
        if link.ifindex != ifindex {
            return true;
        }
        let (own, other) = (link.own.as_ptr(), link.other.as_ptr());
        // SAFETY: the frame was checked to the end of its TCP header. `own` is 4-aligned, `other` 2-aligned.
        unsafe {
            let (head, tail): (u32, u16) = (word::load(eth), word::load(eth.add(4)));
            (head == word::load(own) && tail == word::load(own.add(4)))
                || (head == word::load(other) && tail == word::load(other.add(4)))
        }
    }

    #[inline(always)]
    fn fits(&self, packet: &Tcp, mtu: u16) -> bool {
        packet.ip_len <= mtu
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Tcp, conn: &Conn) -> Result<(), Counter> {
        nat::rewrite(packet, conn);
        Ok(())
    }

    #[inline(always)]
    fn readdress(&self, eth: *mut u8, _: u8, conn: &Conn) -> Result<(), Counter> {
        nat::readdress(eth, conn);
        Ok(())
    }

    #[inline(always)]
    fn resize(&self, len: u32) -> bool {
        // SAFETY: the helpers take the context and check the length.
        unsafe { bpf_xdp_adjust_tail(self.ctx, len as i32 - bpf_xdp_get_buff_len(self.ctx) as i32) == 0 }
    }

    #[inline(always)]
    fn prepend(&self, len: u32) -> bool {
        // SAFETY: the helper checks that there is room in front.
        unsafe { bpf_xdp_adjust_head(self.ctx, -(len as i32)) == 0 }
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

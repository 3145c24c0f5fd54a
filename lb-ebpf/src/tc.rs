//! The TC hook: direct writes where the TCP checksum is finished, the kernel's helpers where it may not be.
//!
//! A sender that counts on its device leaves only the pseudo-header's sum in the TCP checksum (`CHECKSUM_PARTIAL`);
//! between virtual devices such frames never get a finished one. The helpers know (`net/core/filter.c`,
//! `inet_proto_csum_replace_by_diff`), but cost 3.5 times the direct writes.

use core::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_change_head,
        bpf_skb_change_tail, bpf_skb_load_bytes_relative, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
};
use lb_common::{
    conn::Conn,
    counter::Counter,
    link::Link,
    parse::{Parsed, Tcp, parse},
    word,
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr, tcp::TcpHdr};

use crate::{hook::Hook, hop::AF_INET, maps::LINKS, nat};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` for clsact: the next program decides, or the kernel goes on.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// `PACKET_HOST` of `if_packet.h`: the frame's destination is an address of the interface.
const PACKET_HOST: u32 = 0;
/// The longest headers this path reads: Ethernet, two VLAN tags, IPv4 and TCP with all their options.
pub(crate) const HEADERS: u32 = 14 + 2 * 4 + 60 + 60;

/// `BPF_HDR_START_MAC`: offsets count from the link-layer header, wherever the frame begins.
const FROM_LINK_HEADER: u32 = 0;

pub(crate) struct Tc {
    skb: *mut __sk_buff,
}

impl Tc {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// Tells that the TCP checksum may be left to a device: certainly for a super-frame.
    #[inline(always)]
    fn maybe_partial(&self, packet: &Tcp) -> bool {
        // SAFETY: the verifier turns the load into one from the socket buffer.
        let segments = unsafe { (*self.skb).gso_size };
        segments != 0 || nat::maybe_partial(packet)
    }
}

/// Rewrites a packet whose TCP checksum may be unfinished, by the helpers that know its state; `false`: one refused.
///
/// A function of its own, because it is rare where frames come off a wire, and nobody else shall keep stack for it. It
/// finds the headers anew: that is cheaper than to hand them over.
#[inline(never)]
fn rewrite_with_helpers(skb: *mut __sk_buff, conn: &Conn) -> bool {
    let (start, end) = Tc::new(skb).bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    let Parsed::Tcp(packet) = (unsafe { parse(start, end) }) else { return false };
    let plan = nat::Plan::new(&packet, conn);
    let ip_at = (packet.ip as usize - packet.eth as usize) as u32;
    let tcp_at = (packet.tcp as usize - packet.eth as usize) as u32;
    let check_at = tcp_at + offset_of!(TcpHdr, check) as u32;
    let store = |at: u32, from: *const c_void, len: u32| {
        // SAFETY: `from` is valid for `len` bytes; the helper checks the offset.
        unsafe { bpf_skb_store_bytes(skb, at, from, len, 0) }
    };
    // SAFETY: the helpers check the offset.
    let failed = unsafe {
        bpf_l4_csum_replace(skb, check_at, 0, u64::from(plan.addresses.to_csum_diff()), u64::from(BPF_F_PSEUDO_HDR))
            | bpf_l4_csum_replace(skb, check_at, 0, u64::from(plan.ports.to_csum_diff()), 0)
    };
    let failed = failed
        | store(ip_at + offset_of!(Ipv4Hdr, ttl) as u32, (&raw const plan.ip).cast(), 12)
        | store(tcp_at, (&raw const plan.tcp_ports).cast(), 4);
    failed == 0
}

/// Puts the Ethernet header back in front of a frame that generic XDP has copied; `false`: nothing was missing.
///
/// Since Linux 6.9 the copy forgets the length of its link-layer header (`skb_pp_cow_data` in `net/core/skbuff.c`), so
/// that a program behind it finds the IP header where the frame should begin. The header itself is still known.
#[inline(always)]
pub(crate) fn restore_link_header(skb: *mut __sk_buff) -> bool {
    let (start, end) = Tc::new(skb).bounds();
    if start + EthHdr::LEN > end {
        return false;
    }
    // SAFETY: the bound was checked.
    let (head, tail): (u32, u16) = unsafe { (word::load(start as *const u8), word::load((start + 4) as *const u8)) };
    // A frame that begins like an IPv4 header may still be one for such a link-layer address.
    if head.to_ne_bytes()[0] & 0xf0 != 0x40 {
        return false;
    }
    // Words, so that the loads below are aligned; the header is 14 bytes of them.
    let mut header = MaybeUninit::<[u32; 4]>::uninit();
    let at = header.as_mut_ptr().cast::<u32>();
    // SAFETY: the helper writes the header into the array, or fails.
    unsafe {
        if bpf_skb_load_bytes_relative(skb.cast(), 0, at.cast(), EthHdr::LEN as u32, FROM_LINK_HEADER) != 0 {
            return false;
        }
        let (known_head, known_tail) = (at.read(), at.add(1).cast::<u16>().read());
        if (known_head, known_tail) == (head, tail) {
            return false;
        }
        bpf_skb_change_head(skb, EthHdr::LEN as u32, 0) == 0
            && bpf_skb_store_bytes(skb, 0, at.cast(), EthHdr::LEN as u32, 0) == 0
    }
}

impl Hook for Tc {
    type Action = i32;
    const PASS: i32 = NEXT;
    const DROP: i32 = SHOT;
    const PULL: i32 = -100;
    const ICMP: i32 = -101;
    const RESET: i32 = -102;
    const FOREIGN: i32 = -103;
    const UNDELIVERABLE: i32 = -104;
    const COMPLETE: bool = true;

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the verifier turns these loads into the packet's pointers.
        unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn is_addressed(&self, eth: *const u8) -> bool {
        // SAFETY: as above.
        if unsafe { (*self.skb).pkt_type } == PACKET_HOST {
            return true;
        }
        // The kernel does not know the address of a virtual router: it is that of a device above.
        let ifindex = self.ingress();
        let Some(link) = LINKS.get(Link::slot(ifindex)) else { return false };
        let other = link.other.as_ptr();
        // SAFETY: the frame was checked to the end of its TCP header. `other` is 2-aligned.
        link.ifindex == ifindex
            && unsafe {
                let (head, tail): (u32, u16) = (word::load(eth), word::load(eth.add(4)));
                head == word::load(other) && tail == word::load(other.add(4))
            }
    }

    #[inline(always)]
    fn fits(&self, packet: &Tcp, mtu: u16) -> bool {
        if packet.ip_len <= mtu {
            return true;
        }
        // A super-frame leaves in pieces, each with these headers.
        // SAFETY: as above.
        let segment = unsafe { (*self.skb).gso_size };
        segment != 0 && u32::from(packet.ip_len - packet.payload) + segment <= u32::from(mtu)
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Tcp, conn: &Conn) -> Result<(), Counter> {
        if !self.maybe_partial(packet) {
            nat::rewrite(packet, conn);
        } else if !rewrite_with_helpers(self.skb, conn) {
            return Err(Counter::RewriteFailed);
        }
        Ok(())
    }

    #[inline(always)]
    fn readdress(&self, _: *mut u8, tags: u8, conn: &Conn) -> Result<(), Counter> {
        // The rewrite may have moved the frame, so its start is read anew.
        let (start, end) = self.bounds();
        if start + EthHdr::LEN > end {
            return Err(Counter::RewriteFailed);
        }
        nat::readdress(start as *mut u8, conn);
        // The next hop is another segment: the tags of this one end here. A VLAN device puts its own.
        // SAFETY: the loads are from the socket buffer; the helper checks the frame.
        unsafe {
            if (*self.skb).vlan_present != 0 || tags != 0 {
                let failed = bpf_skb_vlan_pop(self.skb) != 0
                    || ((*self.skb).vlan_present != 0 && bpf_skb_vlan_pop(self.skb) != 0);
                if failed {
                    return Err(Counter::RewriteFailed);
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn resize(&self, len: u32) -> bool {
        // SAFETY: the helper checks the length.
        unsafe { bpf_skb_change_tail(self.skb, len, 0) == 0 }
    }

    #[inline(always)]
    fn prepend(&self, len: u32) -> bool {
        // SAFETY: the helper checks the length.
        unsafe { bpf_skb_adjust_room(self.skb, len as i32, BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    #[inline(always)]
    fn reflect(&self) -> i32 {
        self.send(self.ingress())
    }

    #[inline(always)]
    fn send(&self, ifindex: u32) -> i32 {
        // SAFETY: the helper only notes the interface.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    #[inline(always)]
    fn send_unresolved(&self, ifindex: u32, gateway: u32) -> i32 {
        // Address family, then the address in as many bytes as IPv6 needs: `struct bpf_redir_neigh`.
        let mut next_hop = [AF_INET, gateway, 0, 0, 0];
        let (params, len) = ((&raw mut next_hop).cast(), size_of_val(&next_hop) as i32);
        // SAFETY: the parameters live on the stack for the call.
        unsafe { bpf_redirect_neigh(ifindex, params, len, 0) as i32 }
    }
}

//! The next hop: looked up once per direction of a conn, then cached in the entry until anything changes.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams},
    helpers::generated::bpf_fib_lookup,
};
use lb_common::{
    addr::MacPair,
    backend::BackendState,
    conn::{Conn, Proto},
    counter::Counter,
    parse::Tcp,
    service::OnDown,
    word,
};

use crate::{Verdict, count, hook::Hook, maps::BACKENDS};

/// IPv4 in `bpf_fib_lookup` and `bpf_redirect_neigh`.
pub(crate) const AF_INET: u32 = 2;

/// Where a packet of a conn leaves.
pub(crate) struct Hop {
    ifindex: u32,
    /// The neighbour that the kernel has yet to ask for its address, as a word of the packet; 0: `macs` of the entry
    /// is right. (Both fields always have a value: the verifier refuses to spill one that has none.)
    gateway: u32,
}

impl Hop {
    /// The neighbour's address is known, and with it the rest of the entry's next hop.
    #[inline(always)]
    pub(crate) fn is_resolved(&self) -> bool {
        self.gateway == 0
    }

    /// The verdict that sends a rewritten packet there.
    #[inline(always)]
    pub(crate) fn verdict(self) -> Verdict {
        let Self { ifindex, gateway } = self;
        if gateway == 0 { Verdict::Send { ifindex } } else { Verdict::SendUnresolved { ifindex, gateway } }
    }
}

/// The entry's next hop is of generation `hop_gen`.
#[inline(always)]
pub(crate) fn is_current(conn: &Conn, hop_gen: u32) -> bool {
    conn.hop_gen == hop_gen
}

/// Makes sure that the entry's next hop is of generation `hop_gen`.
#[inline(always)]
pub(crate) fn ensure<H: Hook>(hook: &H, conn: &mut Conn, hop_gen: u32) -> Result<Hop, Verdict> {
    if is_current(conn, hop_gen) {
        return Ok(Hop { ifindex: conn.ifindex, gateway: 0 });
    }
    resolve(hook, conn, hop_gen)
}

/// The backend is down, and its conns are not to be kept.
#[inline(always)]
pub(crate) fn is_dead(backend: u16) -> bool {
    BACKENDS
        .get(u32::from(backend))
        .is_some_and(|backend| matches!((backend.state, backend.on_down), (BackendState::Down, OnDown::Rst)))
}

/// Asks the kernel's routing and neighbour tables for the translated packet's way.
///
/// The agent raises the generation when a backend goes down, too: so every conn comes here once, and the hot path need
/// not look at the backend.
#[inline(always)]
fn resolve<H: Hook>(hook: &H, conn: &mut Conn, hop_gen: u32) -> Result<Hop, Verdict> {
    if is_dead(conn.backend) {
        return Err(Verdict::Reset(Counter::ResetDown));
    }
    count::one(Counter::HopLookup);
    let mut params = MaybeUninit::<[u64; 8]>::uninit();
    let words = params.as_mut_ptr().cast::<u64>();
    // Word by word and volatile: otherwise the compiler makes it a call to memset, a loop over the bytes.
    for word in 0..size_of::<FibParams>() / 8 {
        // SAFETY: within the array.
        unsafe { words.add(word).write_volatile(0) };
    }
    let fib = words.cast::<FibParams>();
    // SAFETY: 64 zeroed, aligned bytes are a valid `FibParams`; the helper reads and writes no more than that.
    let (status, ifindex, gateway) = unsafe {
        (*fib).family = AF_INET as u8;
        (*fib).l4_protocol = Proto::Tcp as u8;
        (*fib).sport = conn.sport.to_be();
        (*fib).dport = conn.dport.to_be();
        (*fib).ifindex = hook.ingress();
        // The length of no packet at all: with one, the kernel tells how long they may be (`mtu_result`).
        (*fib).__bindgen_anon_1.tot_len = 1;
        (*fib).__bindgen_anon_3.ipv4_src = conn.src.word();
        (*fib).__bindgen_anon_4.ipv4_dst = conn.dst.word();
        let status = bpf_fib_lookup(hook.context(), fib, size_of::<FibParams>() as i32, 0);
        (status, (*fib).ifindex, (*fib).__bindgen_anon_4.ipv4_dst)
    };
    if status == i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        // SAFETY: as above.
        let (dst, src, mtu) = unsafe { ((*fib).dmac, (*fib).smac, (*fib).__bindgen_anon_1.mtu_result) };
        conn.macs = MacPair { dst, src };
        conn.mtu = mtu;
        conn.ifindex = ifindex;
        conn.hop_gen = hop_gen;
        return Ok(Hop { ifindex, gateway: 0 });
    }
    if status == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return if H::COMPLETE { Ok(Hop { ifindex, gateway }) } else { Err(Verdict::Defer) };
    }
    Err(Verdict::Drop(Counter::NoRoute))
}

/// The addresses of an entry that has no next hop yet: those of its first frame, because writing zeros would become a
/// call to memset. Nothing reads them before [`ensure`] has set them.
#[inline(always)]
pub(crate) fn unset(packet: &Tcp) -> MacPair {
    // SAFETY: `parse` checked the Ethernet header.
    unsafe { MacPair { dst: word::load(packet.eth), src: word::load(packet.eth.add(6)) } }
}

//! A router without state: Ethernet, IPv4, TCP; one question to the kernel's tables; new Ethernet addresses, TTL and
//! IPv4 checksum. The steps are those of the kernel's `samples/bpf/xdp_fwd_kern.c`, and nothing more.

use core::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams},
    helpers::generated::bpf_fib_lookup,
};
use lb_common::word;
use network_types::{eth::EthHdr, ip::Ipv4Hdr, tcp::TcpHdr};

const ETH_P_IP: u16 = 0x0800_u16.to_be();
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;
/// Version 4, no options.
const PLAIN_IPV4: u8 = 0x45;

/// Rewrites the frame for its next hop and answers the interface that it leaves by; `None`: it is not ours to route,
/// and untouched.
#[inline(always)]
pub(crate) fn route(ctx: *mut c_void, start: usize, end: usize, ingress: u32) -> Option<u32> {
    let eth = start as *mut u8;
    if start + EthHdr::LEN + Ipv4Hdr::LEN + TcpHdr::LEN > end {
        return None;
    }
    // SAFETY: within the headers, whose bound was checked; so are all loads and stores of this function.
    let (ip, tcp) = unsafe { (eth.add(EthHdr::LEN), eth.add(EthHdr::LEN + Ipv4Hdr::LEN)) };
    // SAFETY: as above.
    let (ether_type, vihl, proto, ttl): (u16, u8, u8, u8) = unsafe {
        (
            word::load(eth.add(offset_of!(EthHdr, ether_type))),
            word::load(ip),
            word::load(ip.add(offset_of!(Ipv4Hdr, proto))),
            word::load(ip.add(offset_of!(Ipv4Hdr, ttl))),
        )
    };
    if ether_type != ETH_P_IP || vihl != PLAIN_IPV4 || proto != IPPROTO_TCP || ttl <= 1 {
        return None;
    }
    let mut params = MaybeUninit::<[u64; 8]>::uninit();
    let words = params.as_mut_ptr().cast::<u64>();
    // Word by word and volatile: otherwise the compiler makes it a call to memset, a loop over the bytes.
    for word in 0..size_of::<FibParams>() / 8 {
        // SAFETY: within the array.
        unsafe { words.add(word).write_volatile(0) };
    }
    let fib = words.cast::<FibParams>();
    // SAFETY: 64 zeroed, aligned bytes are a valid `FibParams`; the helper reads and writes no more than that.
    unsafe {
        (*fib).family = AF_INET;
        (*fib).l4_protocol = proto;
        (*fib).sport = word::load(tcp.add(offset_of!(TcpHdr, source)));
        (*fib).dport = word::load(tcp.add(offset_of!(TcpHdr, dest)));
        (*fib).ifindex = ingress;
        (*fib).__bindgen_anon_1.tot_len = u16::from_be(word::load(ip.add(offset_of!(Ipv4Hdr, tot_len))));
        (*fib).__bindgen_anon_3.ipv4_src = word::load(ip.add(offset_of!(Ipv4Hdr, src_addr)));
        (*fib).__bindgen_anon_4.ipv4_dst = word::load(ip.add(offset_of!(Ipv4Hdr, dst_addr)));
        if bpf_fib_lookup(ctx, fib, size_of::<FibParams>() as i32, 0) != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            return None;
        }
        age(ip, ttl);
        let (dst, src) = ((&raw const (*fib).dmac).cast::<u16>(), (&raw const (*fib).smac).cast::<u16>());
        for half in 0..3 {
            word::store(eth.add(2 * half), dst.add(half).read());
            word::store(eth.add(6 + 2 * half), src.add(half).read());
        }
        Some((*fib).ifindex)
    }
}

/// Lowers the TTL and raises the checksum by as much (`ip_decrease_ttl` of the kernel).
///
/// # Safety
///
/// `ip` is a writable IPv4 header whose TTL is `ttl`.
#[inline(always)]
unsafe fn age(ip: *mut u8, ttl: u8) {
    // SAFETY: upheld by the caller.
    unsafe {
        let at = ip.add(offset_of!(Ipv4Hdr, check));
        let sum = u32::from(word::load::<u16>(at)) + u32::from(0x0100_u16.to_be());
        word::store(at, (sum + u32::from(sum >= 0xffff)) as u16);
        word::store(ip.add(offset_of!(Ipv4Hdr, ttl)), ttl - 1);
    }
}

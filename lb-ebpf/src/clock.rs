//! The packet path's clock: jiffies, which cost one load where `bpf_ktime_get_ns` costs 40 ns.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64};

use crate::maps::CONTROL;

/// Jiffies since boot.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_jiffies64() }
}

/// Jiffies since boot, low word: what conns store. Differences are right for 49 days at 1,000 Hz.
#[inline(always)]
pub(crate) fn now() -> u32 {
    jiffies() as u32
}

/// Writes both clocks into `control`, for the agent to learn how they relate.
#[inline(always)]
pub(crate) fn publish() {
    if let Some(control) = CONTROL.get_ptr_mut(0) {
        // SAFETY: the element of the array lives as long as the map; only this program writes these two words.
        unsafe {
            (*control).clock_jiffies = jiffies();
            (*control).clock_ns = bpf_ktime_get_ns();
        }
    }
}

/// Tells the ARP gate that the agent is alive.
#[inline(always)]
pub(crate) fn beat() {
    if let Some(control) = CONTROL.get_ptr_mut(0) {
        // SAFETY: the element of the array lives as long as the map, and a word is written in one piece.
        unsafe { (*control).heartbeat = now() };
    }
}

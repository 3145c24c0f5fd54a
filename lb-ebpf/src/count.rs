//! Counters: per CPU, so that no packet waits for another.

use lb_common::{conn::Direction, counter::Counter};

use crate::{
    atomic,
    maps::{COUNTERS, STATS},
};

/// Counts one.
#[inline(always)]
pub(crate) fn one(counter: Counter) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // The compiler knows which counters there are and would drop the comparison, which the verifier wants to see.
    let at = atomic::opaque_word(counter as u64);
    if at < u64::from(Counter::COUNT) {
        // SAFETY: this CPU's element, whose words are the counters; nothing else runs on it meanwhile.
        unsafe { *counters.cast::<u64>().add(at as usize) += 1 };
    }
}

/// Counts a translated packet of a backend. `bytes` is the length of the IP packet.
#[inline(always)]
pub(crate) fn traffic(backend: u16, dir: Direction, bytes: u16) {
    if let Some(stats) = STATS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: as above.
        let stats = unsafe { &mut *stats };
        if matches!(dir, Direction::Forward) {
            stats.in_packets += 1;
            stats.in_bytes += u64::from(bytes);
        } else {
            stats.out_packets += 1;
            stats.out_bytes += u64::from(bytes);
        }
    }
}

/// Counts a conn of a backend.
#[inline(always)]
pub(crate) fn opened(backend: u16) {
    one(Counter::Opened);
    if let Some(stats) = STATS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: as above.
        unsafe { (*stats).conns += 1 };
    }
}

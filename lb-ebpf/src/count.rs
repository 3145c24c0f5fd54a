//! Counters: per CPU, so that no packet waits for another.

use lb_common::{conn::Direction, counter::Counter};

use crate::maps::{COUNTERS, STATS};

/// Counts one.
#[inline(always)]
pub(crate) fn one(counter: Counter) {
    if let Some(count) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's element; nothing else runs on it meanwhile.
        unsafe { *count += 1 };
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

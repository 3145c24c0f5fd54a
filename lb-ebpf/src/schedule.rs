//! The scheduler: a ring of backend ids, and an index into it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lb_common::{
    abi,
    addr::Ipv4,
    service::{Scheduler, Service},
};

use crate::{
    atomic, load,
    maps::{BACKENDS, CURSORS, LOADS, RINGS},
};

/// Who gets a new conn.
pub(crate) enum Pick {
    /// The backend of this id.
    Backend(u16),
    /// No backend takes new conns.
    Nobody,
    /// Each has all it may have.
    Full,
}

/// The backend for a new conn of `client`.
#[inline(always)]
pub(crate) fn pick(service: &Service, client: Ipv4) -> Pick {
    let index = match service.scheduler {
        Scheduler::Sh | Scheduler::Mh => u64::from(client.word().wrapping_mul(0x9e37_79b1) >> 8),
        Scheduler::Rr | Scheduler::Wrr | Scheduler::Lc | Scheduler::Wlc => match step(service) {
            Some(index) => index,
            None => return Pick::Nobody,
        },
    };
    let weigh = match service.scheduler {
        Scheduler::Lc => weigh::CONNS,
        Scheduler::Wlc => weigh::CONNS_BY_WEIGHT,
        _ => {
            let Some(id) = at(service, index) else { return Pick::Nobody };
            let (record, load) = (BACKENDS.get(u32::from(id)), LOADS.get(u32::from(id)));
            match (record, load) {
                // Rarely: then the next one in the ring that has room.
                (Some(record), Some(load)) if load::is_full(record, load) => weigh::NOTHING,
                _ => return Pick::Backend(id),
            }
        }
    };
    match walk(service, index, weigh) {
        NOBODY => Pick::Nobody,
        FULL => Pick::Full,
        id => Pick::Backend(id as u16),
    }
}

/// What a walk looks for.
mod weigh {
    /// The first backend with room.
    pub(super) const NOTHING: u32 = 0;
    /// The one with the fewest conns.
    pub(super) const CONNS: u32 = 1;
    /// The one with the fewest conns for its weight.
    pub(super) const CONNS_BY_WEIGHT: u32 = 2;
}

/// Answers of a walk that are no ids, which have 16 bits.
const NOBODY: u32 = 1 << 16;
const FULL: u32 = 1 << 17;

/// The backend in the slot of an index, modulo the ring's length; `None` if the ring is empty.
#[inline(always)]
fn at(service: &Service, index: u64) -> Option<u16> {
    let slot = service.ring_start + index.checked_rem(u64::from(service.ring_len))? as u32;
    RINGS.get(slot).map(|slot| slot.backend as u16)
}

/// Steps the service's cursor.
#[inline(always)]
fn step(service: &Service) -> Option<u64> {
    let cursor = CURSORS.get_ptr_mut(u32::from(service.id))?;
    // SAFETY: an aligned word of an array element.
    Some(unsafe { atomic::fetch_add(&raw mut (*cursor).next, 1) })
}

/// Walks the ring for the backend with the fewest established conns, or the fewest for its weight, or just the first,
/// among those that have room. The walk begins at the cursor, so that equal backends take turns.
#[inline(always)]
fn walk(service: &Service, start: u64, weigh: u32) -> u32 {
    // The ring of a service whose conns are compared holds each backend once, and not too many of them.
    let most = if weigh == weigh::NOTHING { service.ring_len } else { abi::MAX_LEAST_CONN };
    let mut walk = Walk {
        start,
        ring_start: service.ring_start,
        ring_len: service.ring_len.min(most),
        weigh,
        best: 0,
        best_score: u64::MAX,
    };
    // A loop in the program itself would be unrolled by the verifier, once for every way that leads here.
    // SAFETY: the callback takes what it is given, and `walk` outlives the loop.
    unsafe {
        bpf_loop(walk.ring_len, compare as *mut c_void, (&raw mut walk).cast(), 0);
    }
    match (walk.best_score, walk.ring_len) {
        (_, 0) => NOBODY,
        (u64::MAX, _) => FULL,
        _ => walk.best & u32::from(u16::MAX),
    }
}

/// The state of [`walk`] from backend to backend.
#[repr(C)]
struct Walk {
    start: u64,
    best_score: u64,
    ring_start: u32,
    ring_len: u32,
    weigh: u32,
    best: u32,
}

/// One step of [`walk`]: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn compare(offset: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` hands over its own state.
    let walk = unsafe { &mut *walk };
    let Some(index) = (walk.start + offset).checked_rem(u64::from(walk.ring_len)) else { return 1 };
    let Some(slot) = RINGS.get(walk.ring_start + index as u32) else { return 1 };
    let (Some(load), Some(backend)) = (LOADS.get(slot.backend), BACKENDS.get(slot.backend)) else { return 1 };
    if load::is_full(backend, load) {
        return 0;
    }
    if walk.weigh == weigh::NOTHING {
        (walk.best, walk.best_score) = (slot.backend, 0);
        return 1;
    }
    let weight = if walk.weigh == weigh::CONNS_BY_WEIGHT { u64::from(backend.weight) } else { 1 };
    // The conn to come counts, so that idle backends are filled by weight, too.
    if let Some(score) = ((load.active + 1) << 20).checked_div(weight)
        && score < walk.best_score
    {
        walk.best_score = score;
        walk.best = slot.backend;
    }
    0
}

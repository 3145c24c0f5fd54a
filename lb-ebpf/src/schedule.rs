//! The scheduler: a ring of backend ids, and an index into it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lb_common::{
    abi,
    addr::Ipv4,
    service::{Scheduler, Service},
};

use crate::{
    atomic,
    maps::{BACKENDS, CURSORS, LOADS, RINGS},
};

/// The id of the backend for a new conn of `client`; `None` if no backend takes new conns.
#[inline(always)]
pub(crate) fn pick(service: &Service, client: Ipv4) -> Option<u16> {
    match service.scheduler {
        Scheduler::Sh | Scheduler::Mh => at(service, u64::from(client.word().wrapping_mul(0x9e37_79b1) >> 8)),
        Scheduler::Rr | Scheduler::Wrr => at(service, step(service)?),
        Scheduler::Lc => least(service, step(service)?, false),
        Scheduler::Wlc => least(service, step(service)?, true),
    }
}

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

/// The backend with the fewest established conns, or the fewest for its weight. The ring of such a service holds each
/// backend once. The walk begins at the cursor, so that equal backends take turns.
#[inline(always)]
fn least(service: &Service, start: u64, weighted: bool) -> Option<u16> {
    let mut walk = Walk {
        start,
        ring_start: service.ring_start,
        ring_len: service.ring_len.min(abi::MAX_LEAST_CONN),
        weighted: u32::from(weighted),
        best: 0,
        best_score: u64::MAX,
    };
    // A loop in the program itself would be unrolled by the verifier, once for every way that leads here.
    // SAFETY: the callback takes what it is given, and `walk` outlives the loop.
    unsafe {
        bpf_loop(walk.ring_len, compare as *mut c_void, (&raw mut walk).cast(), 0);
    }
    (walk.best_score != u64::MAX).then_some(walk.best as u16)
}

/// The state of [`least`] from backend to backend.
#[repr(C)]
struct Walk {
    start: u64,
    best_score: u64,
    ring_start: u32,
    ring_len: u32,
    weighted: u32,
    best: u32,
}

/// One step of [`least`]: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn compare(offset: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `least` hands over its own state.
    let walk = unsafe { &mut *walk };
    let Some(index) = (walk.start + offset).checked_rem(u64::from(walk.ring_len)) else { return 1 };
    let Some(slot) = RINGS.get(walk.ring_start + index as u32) else { return 1 };
    let (Some(load), Some(backend)) = (LOADS.get(slot.backend), BACKENDS.get(slot.backend)) else { return 1 };
    let weight = if walk.weighted != 0 { u64::from(backend.weight) } else { 1 };
    // The conn to come counts, so that idle backends are filled by weight, too.
    if let Some(score) = ((load.active + 1) << 20).checked_div(weight)
        && score < walk.best_score
    {
        walk.best_score = score;
        walk.best = slot.backend;
    }
    0
}

//! How many established conns a backend has: exact, because every conn is counted once and uncounted once.

use core::mem::offset_of;

use lb_common::{
    backend::{Backend, Load},
    conn::{Conn, once},
};

use crate::{
    atomic,
    maps::{BACKENDS, LOADS},
};

/// Counts a conn that is about to be established; false, and nothing is counted, if the backend has all it may have.
///
/// Of two that want the last place one gets it, or, for a moment, none: the limit is never exceeded.
#[inline(always)]
pub(crate) fn admit(backend: u16) -> bool {
    let Some(load) = LOADS.get_ptr_mut(u32::from(backend)) else { return true };
    let most = BACKENDS.get(u32::from(backend)).map_or(0, |record| record.max_conn);
    // SAFETY: an aligned word of an array element.
    let before = unsafe { atomic::fetch_add(&raw mut (*load).active, 1) };
    if most == 0 || before < u64::from(most) {
        return true;
    }
    // SAFETY: as above. Adding -1 subtracts.
    unsafe { atomic::fetch_add(&raw mut (*load).active, u64::MAX) };
    false
}

/// Counts a conn that the other director has established: it is there, whatever the backend may have.
#[inline(always)]
pub(crate) fn count(backend: u16) {
    if let Some(load) = LOADS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: an aligned word of an array element.
        unsafe { atomic::fetch_add(&raw mut (*load).active, 1) };
    }
}

/// Takes back [`admit`].
#[inline(always)]
pub(crate) fn dismiss(backend: u16) {
    if let Some(load) = LOADS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: an aligned word of an array element. Adding -1 subtracts.
        unsafe { atomic::fetch_add(&raw mut (*load).active, u64::MAX) };
    }
}

/// The backend has all the conns it may have.
#[inline(always)]
pub(crate) fn is_full(record: &Backend, load: &Load) -> bool {
    record.max_conn != 0 && load.active >= u64::from(record.max_conn)
}

/// Uncounts a conn that is no longer established. Packets of both directions and the sweep may come here at the same
/// moment: the first one to set the bit does it.
///
/// # Safety
///
/// `forward` is the conn's forward entry.
#[inline(always)]
pub(crate) unsafe fn uncount(forward: *mut Conn) {
    // The atomic works on words: this is the one that holds `once`.
    const WORD: usize = offset_of!(Conn, once) & !7;
    const BIT: u64 = (once::UNCOUNTED as u64) << (8 * (offset_of!(Conn, once) & 7));
    // SAFETY: within the entry, and aligned.
    let before = unsafe { atomic::fetch_or(forward.cast::<u8>().add(WORD).cast(), BIT) };
    if before & BIT != 0 {
        return;
    }
    // SAFETY: upheld by the caller.
    let backend = unsafe { (*forward).backend };
    if let Some(load) = LOADS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: an aligned word of an array element. Adding -1 subtracts.
        unsafe { atomic::fetch_add(&raw mut (*load).active, u64::MAX) };
    }
}

//! The removal of conns that the agent found expired. See [`lb_common::retire`].

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::programs::XdpContext;
use lb_common::{
    MapType as _,
    conn::{Conn, Direction, FlowKey},
    retire::{BATCH, Outcome, Request},
    word,
};

use crate::{atomic, load, maps::CONNS};

/// Handles the requests that lie in the frame, writes their outcomes over them, and returns how many conns it removed.
#[inline(always)]
pub(crate) fn batch(ctx: &XdpContext) -> u32 {
    let mut removed = 0;
    for index in 0..BATCH {
        let at = ctx.data() + index * Request::SIZE;
        if at + Request::SIZE > ctx.data_end() {
            break;
        }
        // SAFETY: the bound was checked.
        removed += u32::from(unsafe { one(at as *mut u8) });
    }
    removed
}

/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn one(at: *mut u8) -> bool {
    let mut key = MaybeUninit::<FlowKey>::uninit();
    for word in 0..FlowKey::SIZE / 4 {
        // SAFETY: within both.
        unsafe { key.as_mut_ptr().cast::<u32>().add(word).write(word::load(at.add(4 * word))) };
    }
    // SAFETY: every byte was written. The protocol's byte is only compared by the map, never read as the enum.
    let key = unsafe { key.assume_init_ref() };
    // SAFETY: within the request.
    let (own_seen, other_seen): (u32, u32) =
        unsafe { (word::load(at.add(FlowKey::SIZE)), word::load(at.add(FlowKey::SIZE + 4))) };
    for word in 0..Outcome::SIZE / 4 {
        // SAFETY: as long as the request. Volatile, or it becomes a call to memset.
        unsafe { at.cast::<u32>().add(word).write_volatile(0) };
    }
    let Some(own) = CONNS.get_ptr_mut(key) else { return false };
    // SAFETY: an element is only read here; the key of the other entry is taken before anything is removed.
    let (last_seen, other_key, dir) = unsafe { ((*own).last_seen, (*own).other_key(), (*own).dir) };
    if last_seen != own_seen {
        return false;
    }
    let mut forward: *mut Conn = if matches!(dir, Direction::Forward) { own } else { core::ptr::null_mut() };
    if let Some(other) = CONNS.get_ptr_mut(&other_key) {
        // SAFETY: as above.
        if unsafe { (*other).last_seen } != other_seen {
            return false;
        }
        let reverse = if matches!(dir, Direction::Forward) { other } else { own };
        if matches!(dir, Direction::Reverse) {
            forward = other;
        }
        // SAFETY: both are elements, which are only read; the outcome's fields lie within the request.
        unsafe {
            word::store(at.add(offset_of!(Outcome, forward_ack)), (*forward).ack);
            word::store(at.add(offset_of!(Outcome, forward_seq)), (*forward).seq);
            word::store(at.add(offset_of!(Outcome, reverse_ack)), (*reverse).ack);
            word::store(at.add(offset_of!(Outcome, reverse_seq)), (*reverse).seq);
        }
    }
    let forward = atomic::opaque(forward);
    if !forward.is_null() {
        // SAFETY: the forward entry of this conn.
        unsafe { load::uncount(forward) };
    }
    let _ = (CONNS.remove(key), CONNS.remove(&other_key));
    // SAFETY: the first word of the outcome.
    unsafe { word::store(at, 1_u32) };
    true
}

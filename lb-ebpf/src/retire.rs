//! The removal of conns that the agent found expired. See [`lb_common::retire`].

use core::mem::MaybeUninit;

use aya_ebpf::programs::XdpContext;
use lb_common::{
    MapType as _,
    conn::{Conn, Direction, FlowKey},
    retire::{BATCH, Request},
    word,
};

use crate::{load, maps::CONNS};

/// Handles the requests that lie in the frame and returns how many conns it removed.
#[inline(always)]
pub(crate) fn batch(ctx: &XdpContext) -> u32 {
    let mut removed = 0;
    for index in 0..BATCH {
        let at = ctx.data() + index * Request::SIZE;
        if at + Request::SIZE > ctx.data_end() {
            break;
        }
        // SAFETY: the bound was checked.
        removed += u32::from(unsafe { one(at as *const u8) });
    }
    removed
}

/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn one(at: *const u8) -> bool {
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
        if matches!(dir, Direction::Reverse) {
            forward = other;
        }
    }
    if !forward.is_null() {
        // SAFETY: the forward entry of this conn.
        unsafe { load::uncount(forward) };
    }
    let _ = (CONNS.remove(key), CONNS.remove(&other_key));
    true
}

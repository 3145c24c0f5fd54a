//! Atomic instructions of BPF v3, which Rust offers no stable name for on this target.

use core::arch::asm;

/// Adds `value` to the word at `at` and returns what was there before.
///
/// # Safety
///
/// `at` points to an aligned word of a map value.
#[inline(always)]
pub(crate) unsafe fn fetch_add(at: *mut u64, value: u64) -> u64 {
    let mut old = value;
    // SAFETY: upheld by the caller; the instruction touches nothing else.
    unsafe {
        asm!("{old} = atomic_fetch_add((u64 *)({at} + 0), {old})", old = inout(reg) old, at = in(reg) at);
    }
    old
}

/// Sets `bits` in the word at `at` and returns what was there before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn fetch_or(at: *mut u64, bits: u64) -> u64 {
    let mut old = bits;
    // SAFETY: upheld by the caller; the instruction touches nothing else.
    unsafe {
        asm!("{old} = atomic_fetch_or((u64 *)({at} + 0), {old})", old = inout(reg) old, at = in(reg) at);
    }
    old
}

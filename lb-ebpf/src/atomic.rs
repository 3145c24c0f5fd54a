//! Instructions of BPF that Rust offers no stable name for on this target: atomics of v3, and what keeps the compiler
//! from knowing too much.

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

/// The same number, of which the compiler knows nothing: a comparison with a bound stays one.
#[inline(always)]
pub(crate) fn opaque_word(word: u64) -> u64 {
    let mut same = word;
    // SAFETY: as in `opaque`.
    unsafe { asm!("{same} = {same}", same = inout(reg) same, options(nomem, nostack, preserves_flags)) };
    same
}

/// The same pointer, of which the compiler knows nothing: a test for null stays a test of this very register. Verifiers
/// before Linux 6.8 forget what two copies of a value have in common once one of them was on the stack.
#[inline(always)]
pub(crate) fn opaque<T>(at: *mut T) -> *mut T {
    let mut same = at;
    // SAFETY: it moves a register onto itself. (Without an instruction, the line table would be refused.)
    unsafe { asm!("{same} = {same}", same = inout(reg) same, options(nostack, preserves_flags)) };
    same
}

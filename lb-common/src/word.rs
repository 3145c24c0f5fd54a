//! Loads and stores of whole words in packet memory.
//!
//! Headers lie at odd alignments (IPv4 starts 14 bytes into the frame). The BPF target would split an unaligned load
//! into bytes; the kernels that run this object allow the whole load, so on BPF the access is a plain one. The host
//! tests, which check alignment, use the unaligned form.

/// Reads a `T` at `at`.
///
/// # Safety
///
/// `at` is valid for reads of `size_of::<T>()` bytes, and every bit pattern is a valid `T`.
#[inline(always)]
#[must_use]
pub unsafe fn load<T: Copy>(at: *const u8) -> T {
    // SAFETY: upheld by the caller.
    #[cfg(target_arch = "bpf")]
    unsafe {
        at.cast::<T>().read()
    }
    // SAFETY: upheld by the caller.
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        at.cast::<T>().read_unaligned()
    }
}

/// Writes a `T` at `at`.
///
/// # Safety
///
/// `at` is valid for writes of `size_of::<T>()` bytes.
#[inline(always)]
pub unsafe fn store<T: Copy>(at: *mut u8, value: T) {
    // SAFETY: upheld by the caller.
    #[cfg(target_arch = "bpf")]
    unsafe {
        at.cast::<T>().write(value);
    }
    // SAFETY: upheld by the caller.
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        at.cast::<T>().write_unaligned(value);
    }
}

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

/// Two halves as one word that lies in memory as they do, the first one first.
#[inline(always)]
#[must_use]
pub const fn pair16(first: u16, second: u16) -> u32 {
    let (first, second) = (first as u32, second as u32);
    if cfg!(target_endian = "little") { second << 16 | first } else { first << 16 | second }
}

/// As [`pair16`], for words of 32 bits.
#[inline(always)]
#[must_use]
pub const fn pair32(first: u32, second: u32) -> u64 {
    let (first, second) = (first as u64, second as u64);
    if cfg!(target_endian = "little") { second << 32 | first } else { first << 32 | second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_lies_in_memory_in_its_order() {
        assert_eq!(pair16(u16::from_ne_bytes([1, 2]), u16::from_ne_bytes([3, 4])).to_ne_bytes(), [1, 2, 3, 4]);
        let words = [u32::from_ne_bytes([1, 2, 3, 4]), u32::from_ne_bytes([5, 6, 7, 8])];
        assert_eq!(pair32(words[0], words[1]).to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

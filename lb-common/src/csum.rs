//! Internet checksum deltas (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).
//!
//! One's complement addition does not care for byte order as long as all words are read the same way, so everything
//! here works on words in the order a native load from the packet gives. Nothing is ever summed over the payload.

/// What a hop takes from the word that holds TTL and protocol, as it lies in a packet. The TTL is its first byte: while
/// that is above 0, there is no borrow.
pub const ONE_HOP: u16 = 0x0100_u16.to_be();

/// The one's complement difference between the old and the new words of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No difference yet.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds the replacement of a 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Adds the replacement of two 32-bit words, such as both addresses. The old ones are summed first, as in
    /// [`pseudo_header`]: the compiler then does it once for both.
    #[inline(always)]
    #[must_use]
    pub const fn words32(self, old: [u32; 2], new: [u32; 2]) -> Self {
        // At most half a dozen such sums of 34 bits: a u64 cannot overflow.
        const ONES: u64 = 2 * u32::MAX as u64;
        Self(self.0 + ONES - (old[0] as u64 + old[1] as u64) + new[0] as u64 + new[1] as u64)
    }

    /// Adds the replacement of two 16-bit words, such as both ports.
    #[inline(always)]
    #[must_use]
    pub const fn words16(self, old: [u16; 2], new: [u16; 2]) -> Self {
        const ONES: u64 = 2 * u16::MAX as u64;
        Self(self.0 + ONES - (old[0] as u64 + old[1] as u64) + new[0] as u64 + new[1] as u64)
    }

    /// Adds a word that becomes smaller by `step`, without a borrow, whatever it is: `~m + (m - step)` is `~step`.
    #[inline(always)]
    #[must_use]
    pub const fn less16(self, step: u16) -> Self {
        Self(self.0 + !step as u64)
    }

    /// Both differences.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field after the replacement.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, check: u16) -> u16 {
        !fold(self.0 + !check as u64)
    }

    /// The difference as the `csum_diff` of the kernel's checksum helpers: a 32-bit one's complement sum.
    #[inline(always)]
    #[must_use]
    pub const fn to_csum_diff(self) -> u32 {
        fold(self.0) as u32
    }
}

/// Folds a sum of words, below 2^47, into 16 bits with end-around carry.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 16) as u32 + (sum & 0xffff) as u32;
    // Both halves are added in both halves: the carry of the lower one goes where the end-around carry belongs.
    (sum.wrapping_add(sum << 16).wrapping_add(sum >> 16) >> 16) as u16
}

/// The folded sum of TCP's pseudo-header (RFC 9293 §3.1), not complemented, from words in packet order.
///
/// `len` is the length of the TCP header and payload in bytes, in host order.
#[inline(always)]
#[must_use]
pub const fn pseudo_header(src: u32, dst: u32, proto: u8, len: u16) -> u16 {
    fold(src as u64 + dst as u64 + (proto as u16).to_be() as u64 + len.to_be() as u64)
}

/// Tells whether a TCP checksum field holds only the pseudo-header's sum, as a sender leaves it that counts on its
/// device to finish the job (`CHECKSUM_PARTIAL`).
///
/// A finished checksum equals that sum once in 65,536 packets, so "yes" means "treat it with care", not "it is".
/// "No" is certain. Zero is written `0x0000` or `0xffff`.
#[inline(always)]
#[must_use]
pub const fn maybe_partial(check: u16, pseudo: u16) -> bool {
    check == pseudo || (pseudo == 0xffff && check == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The checksum from scratch, RFC 1071.
    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&w| u64::from(w)).sum())
    }

    proptest! {
        #[test]
        fn folding_leaves_the_sum_modulo_65535(shift in 0_u32..32, bits in 0_u64..1 << 47) {
            for sum in [bits >> shift, (bits >> shift) | 0xffff, (1 << (47 - shift)) - 1 - (bits & 1)] {
                prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
                prop_assert_eq!(fold(sum) == 0, sum == 0, "only nothing folds to 0: {:#x}", sum);
            }
        }

        #[test]
        fn a_delta_equals_the_sum_from_scratch(
            mut words in prop::collection::vec(any::<u16>(), 12..32),
            addr in any::<(u32, u32)>(),
            ports in any::<[u16; 2]>(),
            ttl in 1_u8..,
            proto: u8,
        ) {
            words[7] = u16::from_ne_bytes([ttl, proto]);
            let before = full(&words);
            let old = [
                u32::from(words[0]) | u32::from(words[1]) << 16,
                u32::from(words[2]) | u32::from(words[3]) << 16,
            ];
            let delta = Delta::new().words32(old, [addr.0, addr.1]).words16([words[5], words[6]], ports).less16(ONE_HOP);
            words[0] = addr.0 as u16;
            words[1] = (addr.0 >> 16) as u16;
            words[2] = addr.1 as u16;
            words[3] = (addr.1 >> 16) as u16;
            [words[5], words[6]] = ports;
            words[7] = u16::from_ne_bytes([ttl - 1, proto]);
            // 0x0000 and 0xffff are the same number; a receiver sums the whole and accepts both.
            let sum: u64 = words.iter().map(|&w| u64::from(w)).sum();
            prop_assert_eq!(fold(sum + u64::from(delta.apply(before))), 0xffff);
        }

        #[test]
        fn a_delta_and_its_reverse_leave_the_checksum(check in 1u16.., old in any::<u32>(), new in any::<u32>()) {
            let there = Delta::new().words32([old, 7], [new, 7]).apply(check);
            let back = Delta::new().words32([new, 7], [old, 7]).apply(there);
            prop_assert!(back == check || (back == 0 && check == 0xffff) || (back == 0xffff && check == 0));
        }

        #[test]
        fn the_csum_diff_of_the_helpers_gives_the_same_field(check: u16, old: u32, new: u32) {
            let delta = Delta::new().words32([old, 7], [new, 7]);
            // inet_proto_csum_replace_by_diff: *sum = csum_fold(csum_add(diff, ~csum_unfold(*sum)))
            let by_diff = !fold(u64::from(delta.to_csum_diff()) + u64::from(!check));
            prop_assert!(by_diff == delta.apply(check) || by_diff ^ delta.apply(check) == 0xffff);
        }
    }

    #[test]
    fn a_partial_checksum_is_recognised() {
        let src = u32::from_ne_bytes([10, 80, 1, 1]);
        let dst = u32::from_ne_bytes([10, 80, 1, 243]);
        let pseudo = pseudo_header(src, dst, 6, 40);
        let by_hand: Vec<u16> =
            [[10, 80], [1, 1], [10, 80], [1, 243], [0, 6], [0, 40]].iter().map(|b| u16::from_ne_bytes(*b)).collect();
        assert_eq!(pseudo, !full(&by_hand));
        assert!(maybe_partial(pseudo, pseudo));
        assert!(!maybe_partial(!pseudo, pseudo));
    }
}

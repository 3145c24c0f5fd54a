//! TCP sequence numbers: order modulo 2^32 (RFC 9293 §3.4).

/// Tells whether `a` comes after `b`.
#[inline(always)]
#[must_use]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The most that a sender is believed to advance in one packet, lost ones before it included: 64 MiB, beyond what any
/// MySQL peer has in flight.
const LEAP: u32 = 1 << 26;
/// The most that a sender is believed to have in flight when it resets: 4 MiB.
const FLIGHT: u32 = 1 << 22;

/// Tells whether a FIN that ends at `end` may be its sender's, who has sent up to `next`: the next thing to come, with
/// what was lost on the way to us before it, or a repetition of the last one.
#[inline(always)]
#[must_use]
pub const fn plausible_fin(end: u32, next: u32) -> bool {
    next == UNKNOWN || end.wrapping_sub(next) <= FLIGHT
}

/// The number of a sender that was not heard yet: the next packet tells it, whatever it is. (A sender whose number
/// really is 0 is believed once more than needed.)
pub const UNKNOWN: u32 = 0;

/// Tells whether `a` comes after `b`, but not by more than a window's worth. A forged number passes once in 64 tries.
#[inline(always)]
#[must_use]
pub const fn shortly_after(a: u32, b: u32) -> bool {
    b == UNKNOWN || a.wrapping_sub(b).wrapping_sub(1) < LEAP
}

/// Tells whether a RST with number `rst` may be its sender's: right after what it has sent (`next`), as far as that is
/// in flight, or exactly where the receiver waits (`acked`). RFC 5961 §3 asks receivers for the latter.
#[inline(always)]
#[must_use]
pub const fn plausible_rst(rst: u32, next: u32, acked: u32) -> bool {
    rst == acked || (rst == next && next.wrapping_sub(acked) <= FLIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(after(1, 0) && !after(0, 1) && !after(7, 7));
        assert!(after(3, u32::MAX - 3) && !after(u32::MAX - 3, 3));
    }

    #[test]
    fn a_leap_beyond_any_window_is_not_believed() {
        assert!(shortly_after(8, 7) && shortly_after(LEAP + 7, 7) && shortly_after(5, u32::MAX));
        assert!(!shortly_after(7, 7) && !shortly_after(LEAP + 8, 7) && !shortly_after(0, 1));
        assert!(shortly_after(LEAP * 9, UNKNOWN), "the first number of a sender");
    }

    #[test]
    fn a_fin_is_believed_in_sequence() {
        assert!(plausible_fin(1001, 1000) && plausible_fin(1000, 1000) && plausible_fin(9000, 1000));
        assert!(!plausible_fin(999, 1000) && !plausible_fin(0x6000_0000, 1000));
    }

    #[test]
    fn a_rst_is_believed_at_two_places_only() {
        assert!(plausible_rst(1000, 1000, 400), "data in flight");
        assert!(plausible_rst(400, 1000, 400), "where the receiver waits");
        assert!(!plausible_rst(700, 1000, 400), "in between");
        assert!(!plausible_rst(0x6000_0000, 0x6000_0000, 400), "behind invented data");
        assert!(plausible_rst(5, 5, u32::MAX - 3), "across the wrap");
    }
}

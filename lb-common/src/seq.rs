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

/// Tells whether `a` comes after `b`, but not by more than a window's worth. A forged number passes once in 64 tries.
#[inline(always)]
#[must_use]
pub const fn shortly_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).wrapping_sub(1) < LEAP
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
        assert!(shortly_after(1, 0) && shortly_after(LEAP, 0) && shortly_after(5, u32::MAX));
        assert!(!shortly_after(0, 0) && !shortly_after(LEAP + 1, 0) && !shortly_after(0, 1));
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

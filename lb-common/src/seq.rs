//! TCP sequence numbers: order modulo 2^32 (RFC 9293 §3.4).

/// Tells whether `a` comes after `b`.
#[inline(always)]
#[must_use]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn order_survives_the_wrap() {
        assert!(after(1, 0) && !after(0, 1) && !after(7, 7));
        assert!(after(3, u32::MAX - 3) && !after(u32::MAX - 3, 3));
    }
}

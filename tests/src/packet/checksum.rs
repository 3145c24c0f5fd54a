//! The Internet checksum from scratch (RFC 1071), the oracle of every packet test.
//!
//! Shares nothing with the product's code: it sums bytes in big-endian pairs, the product keeps deltas of native words
//! (RFC 1624). Where both agree, neither has a mistake in byte order or carry.

use std::net::Ipv4Addr;

/// The one's complement sum of big-endian 16-bit words; an odd last byte counts as the high byte of a word.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])).fold(0, add)
}

/// One's complement addition: the carry comes back in at the right end.
#[must_use]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The checksum field for bytes in which that field is zero.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The sum of the pseudo-header of TCP (RFC 9293 §3.1) and UDP (RFC 768); `len` is header and payload in bytes.
#[must_use]
pub fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: usize) -> u16 {
    let mut bytes = Vec::with_capacity(12);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend([0, proto]);
    bytes.extend((len as u16).to_be_bytes());
    sum(&bytes)
}

/// The checksum field of a TCP or UDP segment in which that field is zero.
#[must_use]
pub fn of_segment(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, segment: &[u8]) -> u16 {
    !add(pseudo_header(src, dst, proto, segment.len()), sum(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_rfc_1071() {
        // §3: 0001 f203 f4f5 f6f7 sums to ddf2.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x00, 0x01, 0xf2]), 0xf201);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_all_ones() {
        let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 80, 1, 1, 10, 80, 1, 243];
        let check = of(&header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        assert_eq!(sum(&header), 0xffff);
    }
}

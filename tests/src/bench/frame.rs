//! The one kind of packet that is measured: 64 bytes, IPv4, TCP, 10 bytes of payload. Built from scratch, checksums
//! and all, so that what a program makes of it can be compared with what it should be.

use lb_common::{
    conn::FlowKey,
    csum::{fold, maybe_partial, pseudo_header},
};

pub(super) type Mac = [u8; 6];

/// Bytes of a frame.
pub(super) const LEN: usize = 64;
/// Bytes of its IP packet.
pub(super) const IP_LEN: u64 = 50;
/// Bytes of its TCP header and payload.
const TCP_LEN: u16 = 30;
/// The TTL that frames start with: the highest, as every run lowers it.
pub(super) const TTL: u8 = 255;
/// Offset of the TCP checksum.
const CHECK: usize = 14 + 20 + 16;

/// A frame in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) dst_mac: Mac,
    pub(super) src_mac: Mac,
    pub(super) key: FlowKey,
    pub(super) ttl: u8,
    /// [`lb_common::tcp::flag`].
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// The TCP checksum is left to the device, as senders on virtual links do: only the pseudo-header's sum is there.
    pub(super) partial: bool,
    /// The first word of the payload.
    pub(super) payload: u16,
}

impl Frame {
    /// The bytes on the wire.
    pub(super) fn bytes(&self) -> [u8; LEN] {
        let mut f = [0; LEN];
        f[0..6].copy_from_slice(&self.dst_mac);
        f[6..12].copy_from_slice(&self.src_mac);
        f[12..14].copy_from_slice(&[0x08, 0x00]);
        f[14..24].copy_from_slice(&[0x45, 0, 0, IP_LEN as u8, 0, 1, 0x40, 0, self.ttl, 6]);
        f[26..30].copy_from_slice(&self.key.src.octets);
        f[30..34].copy_from_slice(&self.key.dst.octets);
        f[34..36].copy_from_slice(&self.key.sport.to_be_bytes());
        f[36..38].copy_from_slice(&self.key.dport.to_be_bytes());
        f[38..42].copy_from_slice(&self.seq.to_be_bytes());
        f[42..46].copy_from_slice(&self.ack.to_be_bytes());
        f[46..50].copy_from_slice(&[0x50, self.flags, 1, 0]);
        f[54..56].copy_from_slice(&self.payload.to_ne_bytes());
        let ip_check = !fold(sum(&f[14..34]));
        f[24..26].copy_from_slice(&ip_check.to_ne_bytes());
        let pseudo = self.pseudo_header();
        let check = if self.partial { pseudo } else { !fold(sum(&f[34..]) + u64::from(pseudo)) };
        f[CHECK..CHECK + 2].copy_from_slice(&check.to_ne_bytes());
        f
    }

    fn pseudo_header(&self) -> u16 {
        pseudo_header(self.key.src.word(), self.key.dst.word(), 6, TCP_LEN)
    }

    /// The finished checksum happens to be what an unfinished one would be, as in one packet of 65,536: the packet path
    /// treats it with care.
    pub(super) fn looks_partial(&self) -> bool {
        let check = &self.bytes()[CHECK..CHECK + 2];
        maybe_partial(u16::from_ne_bytes([check[0], check[1]]), self.pseudo_header())
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

/// Compares frames; the two ways to write zero in a checksum (RFC 1624 §3) are the same.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let zero = |f: &[u8]| matches!(f[CHECK..CHECK + 2], [0, 0] | [0xff, 0xff]);
    if a.len() != LEN || b.len() != LEN {
        return false;
    }
    let check = a[CHECK..CHECK + 2] == b[CHECK..CHECK + 2] || (zero(a) && zero(b));
    check && a[..CHECK] == b[..CHECK] && a[CHECK + 2..] == b[CHECK + 2..]
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Ipv4;

    use super::*;

    #[test]
    fn both_checksums_hold() {
        let frame = Frame {
            dst_mac: [2; 6],
            src_mac: [4; 6],
            key: FlowKey::tcp(Ipv4::new([10, 80, 1, 1]), 40000, Ipv4::new([10, 80, 1, 243]), 3306),
            ttl: TTL,
            flags: 0x10,
            seq: 7,
            ack: 9,
            partial: false,
            payload: 0x0201,
        };
        let f = frame.bytes();
        assert_eq!(fold(sum(&f[14..34])), 0xffff);
        let mut pseudo = f[26..34].to_vec();
        pseudo.extend([0, 6, 0, 30]);
        assert_eq!(fold(sum(&f[34..]) + sum(&pseudo)), 0xffff);
        let mut other = f;
        assert!(same(&f, &other));
        other[40] ^= 1;
        assert!(!same(&f, &other));
        assert!(Frame { partial: true, ..frame }.looks_partial());
        let unlucky = (0..=u16::MAX).filter(|payload| Frame { payload: *payload, ..frame }.looks_partial()).count();
        assert!((1..=2).contains(&unlucky), "{unlucky}");
    }
}

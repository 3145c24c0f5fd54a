//! Hashes of keys and conns (SipHash-1-3).
//!
//! Both directors must sort conns into the same buckets and digest them alike, so that hash has a fixed key. Clients
//! choose their ports: the place within a bucket follows from it and a secret of this process.

use std::net::SocketAddrV4;

use siphasher::sip::SipHasher13;

use super::Slot;
use crate::sync::conn::Key;

/// Digests are kept for so many parts of the table.
pub const BUCKETS: usize = 4096;

/// The part of the table that holds a conn. Who tells of many conns in this order spares the processor's caches.
#[must_use]
pub fn bucket_of(key: &Key) -> usize {
    of_key(key).bucket()
}

/// The hash that both directors have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common(u64);

impl Common {
    pub(super) const fn bucket(self) -> usize {
        (self.0 >> (u64::BITS - BUCKETS.ilog2())) as usize
    }

    /// The hash within the bucket.
    pub(super) const fn local(self, secret: u64) -> u64 {
        let product = ((self.0 ^ secret) as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (product >> 64) as u64 ^ product as u64
    }
}

fn write(to: &mut [u8], address: SocketAddrV4) {
    let (ip, port) = to.split_at_mut(4);
    ip.copy_from_slice(&address.ip().octets());
    port.copy_from_slice(&address.port().to_be_bytes());
}

pub(super) fn of_key(key: &Key) -> Common {
    let mut bytes = [0; 12];
    write(&mut bytes[..6], key.client);
    write(&mut bytes[6..], key.vip);
    Common(hasher().hash(&bytes))
}

/// What a conn adds to the digest of its bucket: all that both directors must agree on, and nothing that changes with
/// every packet.
pub(super) fn of_slot(slot: &Slot) -> u64 {
    let mut bytes = [0; 32];
    write(&mut bytes[..6], slot.key.client);
    write(&mut bytes[6..12], slot.key.vip);
    write(&mut bytes[12..18], slot.backend);
    bytes[18..20].copy_from_slice(&slot.client_port.to_be_bytes());
    bytes[20..28].copy_from_slice(&slot.born.to_be_bytes());
    bytes[28] = slot.state() as u8;
    hasher().hash(&bytes)
}

fn hasher() -> SipHasher13 {
    SipHasher13::new_with_keys(u64::from_be_bytes(*b"lb sync "), u64::from_be_bytes(*b"buckets1"))
}

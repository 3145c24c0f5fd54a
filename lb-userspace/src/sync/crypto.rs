//! All cryptography of the sync, and no other file: keys from the pre-shared key (HKDF, RFC 5869) and sealed frames
//! (ChaCha20-Poly1305, RFC 8439).
//!
//! A nonce is never used twice with a key: every epoch has its own key for greetings, every handshake a new pair for
//! the frames after it, and the nonce is a counter.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

/// Bytes that sealing adds.
pub(super) const TAG: usize = 16;

/// 128 random bits.
pub type Random = [u8; 16];

/// A pre-shared key, and the byte that names it on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk {
    id: u8,
    key: [u8; 32],
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Psk").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Psk {
    /// A key of 256 random bits.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let [id] = expand(&extract(&[], &key), &[b"id"]);
        Self { id, key }
    }

    /// The key that everybody knows: frames are formed and checked like any others, and protect nothing.
    #[must_use]
    pub fn insecure() -> Self {
        Self::new(*b"lb connection sync, unprotected!")
    }

    pub(super) const fn id(&self) -> u8 {
        self.id
    }

    /// The key for the greetings of an epoch.
    pub(super) fn greeting(&self, node: u16, epoch: &Random) -> Cipher {
        let key = expand(&extract(epoch, &self.key), &[b"lb sync 1 greeting", &node.to_be_bytes()]);
        Cipher::new(&key)
    }
}

/// What one side brings to a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party<'a> {
    pub(super) psk: &'a Psk,
    pub(super) node: u16,
    pub(super) epoch: &'a Random,
    pub(super) challenge: &'a Random,
}

/// The keys of a session.
pub(super) struct SessionKeys {
    pub(super) send: Cipher,
    pub(super) receive: Cipher,
    pub(super) id: u64,
}

impl SessionKeys {
    /// The keys that follow from what both sides brought; each uses its own pre-shared key to greet, so both go in.
    pub(super) fn derive(own: Party<'_>, peer: Party<'_>) -> Self {
        let (low, high) = if own.node < peer.node { (own, peer) } else { (peer, own) };
        let mut salt = Vec::with_capacity(68);
        let mut secret = Vec::with_capacity(64);
        for party in [low, high] {
            salt.extend_from_slice(&party.node.to_be_bytes());
            salt.extend_from_slice(party.epoch);
            salt.extend_from_slice(party.challenge);
            secret.extend_from_slice(&party.psk.key);
        }
        let prk = extract(&salt, &secret);
        let from = |node: u16| Cipher::new(&expand(&prk, &[b"lb sync 1 frames", &node.to_be_bytes()]));
        Self {
            send: from(own.node),
            receive: from(peer.node),
            id: u64::from_be_bytes(expand(&prk, &[b"lb sync 1 session"])),
        }
    }
}

/// The `n`-th number that follows from a secret seed; nobody else can foretell it.
pub(super) fn nth(seed: &[u8; 32], purpose: &[u8], n: u64) -> Random {
    expand(&extract(&[], seed), &[purpose, &n.to_be_bytes()])
}

fn extract(salt: &[u8], secret: &[u8]) -> Prk {
    Salt::new(HKDF_SHA256, salt).extract(secret)
}

/// A number of bytes to derive.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    // It fails for more than 8,160 bytes only.
    let done = prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut out));
    debug_assert!(done.is_ok());
    out
}

/// Seals and opens.
pub(super) struct Cipher(Option<LessSafeKey>);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    fn new(key: &[u8; 32]) -> Self {
        // It fails for keys of another length only.
        Self(UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new))
    }

    /// Seals what stands behind the first `clear` bytes of the frame, and appends the tag; those bytes are covered.
    pub(super) fn seal(&self, nonce: u64, frame: &mut Vec<u8>, clear: usize) {
        let (aad, body) = frame.split_at_mut(clear);
        let seal = |key: &LessSafeKey| key.seal_in_place_separate_tag(number(nonce), Aad::from(&*aad), body).ok();
        match self.0.as_ref().and_then(seal) {
            Some(tag) => frame.extend_from_slice(tag.as_ref()),
            // It fails for more than 256 GiB only. Nothing must leave in the clear.
            None => frame.clear(),
        }
    }

    /// Opens a frame in place; `None`: forged or damaged, or sealed with another key.
    pub(super) fn open<'a>(&self, nonce: u64, frame: &'a mut [u8], clear: usize) -> Option<&'a mut [u8]> {
        let (aad, sealed) = frame.split_at_mut_checked(clear)?;
        self.0.as_ref()?.open_in_place(number(nonce), Aad::from(&*aad), sealed).ok()
    }
}

fn number(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_the_same_keys_and_every_ingredient_counts() {
        let (psk, old) = (Psk::new([1; 32]), Psk::new([2; 32]));
        let party = |psk, node, epoch, challenge| Party { psk, node, epoch, challenge };
        let (a, b) = (party(&psk, 1, &[3; 16], &[5; 16]), party(&old, 2, &[4; 16], &[6; 16]));
        let here = SessionKeys::derive(a, b);
        let there = SessionKeys::derive(b, a);
        assert_eq!(here.id, there.id);
        let mut frame = b"headbody".to_vec();
        here.send.seal(7, &mut frame, 4);
        assert_eq!(frame.len(), 8 + TAG);
        assert_eq!(&frame[..4], b"head");
        assert!(here.receive.open(7, &mut frame.clone(), 4).is_none(), "a frame of one's own comes back");
        assert!(there.receive.open(8, &mut frame.clone(), 4).is_none(), "another number");
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 1;
            assert!(there.receive.open(7, &mut damaged, 4).is_none(), "byte {at}");
        }
        assert_eq!(there.receive.open(7, &mut frame.clone(), 4).unwrap(), b"body");
        for other in [
            party(&psk, 2, &[4; 16], &[6; 16]),
            party(&old, 3, &[4; 16], &[6; 16]),
            party(&old, 2, &[9; 16], &[6; 16]),
            party(&old, 2, &[4; 16], &[9; 16]),
        ] {
            assert_ne!(SessionKeys::derive(a, other).id, here.id);
        }
    }

    #[test]
    fn the_derivation_is_the_one_that_was_released() {
        // Directors of different builds must agree: a change here is a new major version of the wire.
        let psk = Psk::new(std::array::from_fn(|at| at as u8));
        let a = Party { psk: &psk, node: 1, epoch: &[0x11; 16], challenge: &[0x22; 16] };
        let b = Party { psk: &psk, node: 2, epoch: &[0x33; 16], challenge: &[0x44; 16] };
        let keys = SessionKeys::derive(a, b);
        let mut frame = b"head".to_vec();
        keys.send.seal(1, &mut frame, 4);
        let mut greeting = b"head".to_vec();
        psk.greeting(1, &[0x11; 16]).seal(1, &mut greeting, 4);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            (psk.id(), format!("{:016x}", keys.id), hex(&frame[4..]), hex(&greeting[4..])),
            (
                123,
                "58a1e8784d424eac".to_owned(),
                "97f03c38d3969bb5aea1b9113e0e3f5c".to_owned(),
                "a61583a83ede5e62f7c60474e4adcc94".to_owned()
            )
        );
    }
}

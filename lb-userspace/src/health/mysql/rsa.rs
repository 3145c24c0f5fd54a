//! A password for a server without TLS: encrypted with the public key that the server sent. RSA-OAEP, RFC 8017 §7.1.1.
//!
//! The arithmetic is `mysql_common`'s. Its own reader of keys panics on a broken one, so keys are read here: PEM with
//! a SubjectPublicKeyInfo (RFC 5280 §4.1).

use mysql_common::crypto::rsa::{GetRandom, Pkcs1OaepPadding, PublicKey};
use num_bigint::BigUint;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use zeroize::Zeroizing;

/// Sizes of a modulus in bytes that make sense: 1024 to 8192 bits. A huge one would only burn our CPU.
const MODULUS: std::ops::RangeInclusive<usize> = 128..=1024;
/// OAEP takes two hashes of 20 bytes and two more.
const OVERHEAD: usize = 42;

/// Encrypts the password as caching_sha2_password wants it: zero-terminated, mixed with the nonce. None if the key is
/// no key, or too short for the password.
pub(super) fn encrypt(password: &[u8], nonce: &[u8], pem: &[u8]) -> Option<Vec<u8>> {
    let (modulus, exponent) = public_key(pem)?;
    if nonce.is_empty() || password.len() + 1 + OVERHEAD > modulus.len() {
        return None;
    }
    let mut mixed = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    mixed.extend(password.iter().chain(&[0]).zip(nonce.iter().cycle()).map(|(a, b)| a ^ b));
    let key = PublicKey::new(BigUint::from_bytes_be(&modulus), BigUint::from_bytes_be(&exponent));
    Some(key.encrypt_block(&mixed[..], Pkcs1OaepPadding::new(GetRandom)))
}

/// Modulus and exponent of an RSA key, without leading zeros.
fn public_key(pem: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let mut info = Der(der.as_ref()).element(0x30)?;
    info.element(0x30)?;
    // A bit string begins with the number of bits that are not used.
    let key = info.element(0x03)?.0.strip_prefix(&[0])?;
    let mut key = Der(key).element(0x30)?;
    let (modulus, exponent) = (key.unsigned()?, key.unsigned()?);
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let sizes = MODULUS.contains(&modulus.len()) && (1..=8).contains(&exponent.len());
    // The arithmetic counts bytes by the modulus' bits: all of them must be there.
    let whole = modulus.first().is_some_and(|byte| byte & 0x80 != 0);
    (sizes && whole && odd(modulus) && odd(exponent)).then(|| (modulus.to_vec(), exponent.to_vec()))
}

/// What is left of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, which must have this tag.
    fn element(&mut self, tag: u8) -> Option<Self> {
        let (&[found, length], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match length {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => {
                let (&[high, low], rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes([high, low])), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(Self(content))
    }

    /// A positive integer, without leading zeros.
    fn unsigned(&mut self) -> Option<&'a [u8]> {
        let bytes = self.element(0x02)?.0;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).filter(|number| !number.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `openssl genrsa 1024 | openssl rsa -pubout`
    const KEY: &str = include_str!("testdata/rsa1024.pub.pem");

    #[test]
    fn a_password_is_encrypted_to_the_length_of_the_key() {
        let first = encrypt(b"geheim", &[7; 20], KEY.as_bytes()).unwrap();
        assert_eq!(first.len(), 128);
        assert_ne!(first, encrypt(b"geheim", &[7; 20], KEY.as_bytes()).unwrap(), "the padding is random");
        assert!(encrypt(&[b'x'; 128 - OVERHEAD], &[7; 20], KEY.as_bytes()).is_none(), "too long for the key");
        assert!(encrypt(&[b'x'; 127 - OVERHEAD], &[7; 20], KEY.as_bytes()).is_some());
        assert!(encrypt(b"geheim", &[], KEY.as_bytes()).is_none());
    }

    #[test]
    fn what_is_no_rsa_key_is_none() {
        assert!(public_key(b"").is_none());
        assert!(public_key(b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n").is_none());
        let zero = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        assert!(public_key(zero.as_bytes()).is_none());
        // An elliptic curve's key.
        let ec = include_str!("testdata/ec.pub.pem");
        assert!(public_key(ec.as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_key_panics(at in 0..600_usize, byte: u8, cut in 0..600_usize) {
            let mut key = KEY.as_bytes().to_vec();
            let at = at % key.len();
            key[at] = byte;
            let _ = encrypt(b"geheim", &[7; 20], &key);
            let _ = encrypt(b"geheim", &[7; 20], &key[..cut.min(key.len())]);
        }

        #[test]
        fn no_der_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut der = Der(&bytes);
            while der.element(bytes.first().copied().unwrap_or(0x30)).is_some() && !der.0.is_empty() {}
            let _ = Der(&bytes).unsigned();
        }
    }
}

//! How the check user proves who it is: the plugins a server may ask for, and the answer to each.
//!
//! mysql_native_password and caching_sha2_password: MySQL, "Client/Server Protocol", authentication methods;
//! client_ed25519: MariaDB, "Authentication Plugin - ed25519".

use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};
use zeroize::Zeroizing;

use super::rsa;

/// Bytes of a nonce. A byte of zero after them ends them as a text and does not belong to them.
const NONCE: usize = 20;

/// A plugin that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    Native,
    CachingSha2,
    Ed25519,
}

impl Plugin {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"mysql_native_password" => Some(Self::Native),
            b"caching_sha2_password" => Some(Self::CachingSha2),
            b"client_ed25519" => Some(Self::Ed25519),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static [u8] {
        match self {
            Self::Native => b"mysql_native_password",
            Self::CachingSha2 => b"caching_sha2_password",
            Self::Ed25519 => b"client_ed25519",
        }
    }

    /// The first answer; empty for an empty password.
    pub(super) fn answer(self, password: &[u8], nonce: &[u8]) -> Zeroizing<Vec<u8>> {
        let short = nonce.get(..NONCE).unwrap_or(nonce);
        let answer = match self {
            _ if password.is_empty() => None,
            Self::Native => scramble_native(short, password).map(|scramble| scramble.to_vec()),
            Self::CachingSha2 => scramble_sha256(short, password).map(|scramble| scramble.to_vec()),
            Self::Ed25519 => Some(create_response_for_ed25519(password, nonce).to_vec()),
        };
        Zeroizing::new(answer.unwrap_or_default())
    }
}

/// What caching_sha2_password wants after the first answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum More {
    /// Nothing: the server knew the scramble. OK follows.
    Nothing,
    /// Send this.
    Send(Zeroizing<Vec<u8>>),
    /// It makes no sense.
    Broken,
}

/// Answers a packet of additional data. `secure`: nobody else reads what we send.
pub(super) fn more(password: &[u8], nonce: &[u8], data: &[u8], secure: bool) -> More {
    const FAST_OK: u8 = 3;
    const FULL: u8 = 4;
    const GIVE_KEY: u8 = 2;
    match data {
        [FAST_OK] => More::Nothing,
        [FULL] if secure => {
            let mut clear = Zeroizing::new(Vec::with_capacity(password.len() + 1));
            clear.extend_from_slice(password);
            clear.push(0);
            More::Send(clear)
        }
        [FULL] => More::Send(Zeroizing::new(vec![GIVE_KEY])),
        key => {
            let short = nonce.get(..NONCE).unwrap_or(nonce);
            match rsa::encrypt(password, short, key) {
                Some(encrypted) => More::Send(Zeroizing::new(encrypted)),
                None => More::Broken,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_that_ends_a_nonce_is_no_part_of_it() {
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            let mut nonce = vec![9; NONCE];
            let plain = plugin.answer(b"geheim", &nonce);
            nonce.push(0);
            assert_eq!(plain, plugin.answer(b"geheim", &nonce), "{plugin:?}");
            assert!(plugin.answer(b"", &nonce).is_empty());
            assert_eq!(Plugin::of(plugin.name()), Some(plugin));
        }
        assert_eq!(Plugin::of(b"mysql_clear_password"), None);
    }

    /// Signatures are checked for real by a server; here: that the whole nonce counts.
    #[test]
    fn ed25519_signs_all_of_its_nonce() {
        let mut nonce = [1; 32];
        let first = Plugin::Ed25519.answer(b"geheim", &nonce);
        nonce[31] = 0;
        assert_ne!(first, Plugin::Ed25519.answer(b"geheim", &nonce));
        assert_eq!(first.len(), 64);
    }

    #[test]
    fn the_password_itself_leaves_only_where_nobody_listens() {
        assert_eq!(more(b"geheim", &[1; 20], &[3], false), More::Nothing);
        assert_eq!(more(b"geheim", &[1; 20], &[4], true), More::Send(Zeroizing::new(b"geheim\0".to_vec())));
        assert_eq!(more(b"geheim", &[1; 20], &[4], false), More::Send(Zeroizing::new(vec![2])));
        assert_eq!(more(b"geheim", &[1; 20], b"no key", false), More::Broken);
        assert_eq!(more(b"geheim", &[1; 20], &[], true), More::Broken);
    }
}

//! The server's greeting, protocol 10. Read here: `mysql_common` panics on one whose nonce is announced too short.

use mysql_common::constants::CapabilityFlags as Caps;
use zeroize::Zeroizing;

use super::{auth::Plugin, reader::Reader};

/// Bytes of the nonce in the first part of the packet.
const FIRST: usize = 8;
/// And in the second.
const SECOND: usize = 12;

/// What a greeting says.
pub(super) struct Greeting {
    pub(super) version: Vec<u8>,
    pub(super) capabilities: Caps,
    /// None: one that we do not know.
    pub(super) plugin: Option<Plugin>,
    pub(super) nonce: Zeroizing<Vec<u8>>,
}

impl Greeting {
    /// Reads a payload.
    pub(super) fn read(payload: &[u8]) -> Result<Self, &'static str> {
        if payload.first() != Some(&10) {
            return Err("not a greeting of protocol 10");
        }
        let greeting = Self::fields(payload).ok_or("a broken greeting")?;
        if !greeting.capabilities.contains(Caps::CLIENT_PROTOCOL_41 | Caps::CLIENT_SECURE_CONNECTION) {
            return Err("older than MySQL 4.1");
        }
        Ok(greeting)
    }

    fn fields(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload.get(1..)?);
        let version = reader.until_nul().to_vec();
        let _connection = reader.take(4)?;
        let mut nonce = Zeroizing::new(reader.take(FIRST)?.to_vec());
        let _filler = reader.byte()?;
        let low = reader.u16()?;
        let _charset_and_status = reader.take(3)?;
        let high = reader.u16()?;
        // The announced length of the nonce is 21 since 5.5, or 0; the bytes are there in either case.
        let _length_and_reserved = reader.take(11)?;
        nonce.extend_from_slice(reader.take(SECOND)?);
        let _end = reader.byte();
        let plugin = Plugin::of(reader.until_nul());
        let capabilities = Caps::from_bits_truncate(u32::from(high) << 16 | u32::from(low));
        Some(Self { version, capabilities, plugin, nonce })
    }
}

//! The clear 24 bytes before everything sealed; all of them are covered by the tag.
//!
//! ```text
//!  0               1               2               3
//! +---------------+---------------+---------------+---------------+
//! |         magic "LS"            | major version |     kind      |
//! |             node              |    key id     |     flags     |
//! |                          session id                           |
//! |                          (0: greeting)                        |
//! |                    number of the frame                        |
//! |                   (the nonce; from 1 on)                      |
//! ```

use super::{
    MAJOR,
    bytes::{Reader, Writer},
};

const MAGIC: u16 = 0x4c53;
/// Bytes of the header.
pub(crate) const HEADER: usize = 24;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It opens a session.
    Greeting,
    /// It belongs to one.
    Session,
}

/// A header of this major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) node: u16,
    pub(crate) key: u8,
    /// The sender has no key of its own: nothing is protected.
    pub(crate) insecure: bool,
    pub(crate) session: u64,
    pub(crate) number: u64,
}

/// Why a header is not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Too short, or no frame of this protocol.
    NotOurs,
    /// Another major version.
    Version(u8),
    /// A kind that this version does not know.
    Kind,
}

impl Header {
    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        to.u16(MAGIC);
        to.u8(MAJOR);
        to.u8(match self.kind {
            Kind::Greeting => 1,
            Kind::Session => 2,
        });
        to.u16(self.node);
        to.u8(self.key);
        to.u8(u8::from(self.insecure));
        to.u64(self.session);
        to.u64(self.number);
    }

    pub(crate) fn read(frame: &[u8]) -> Result<Self, Foreign> {
        let mut from = Reader(frame);
        if frame.len() < HEADER || from.u16() != Some(MAGIC) {
            return Err(Foreign::NotOurs);
        }
        let field = || Foreign::NotOurs;
        let major = from.u8().ok_or_else(field)?;
        if major != MAJOR {
            return Err(Foreign::Version(major));
        }
        let kind = match from.u8().ok_or_else(field)? {
            1 => Kind::Greeting,
            2 => Kind::Session,
            _ => return Err(Foreign::Kind),
        };
        Ok(Self {
            kind,
            node: from.u16().ok_or_else(field)?,
            key: from.u8().ok_or_else(field)?,
            // Other flags are for versions to come.
            insecure: from.u8().ok_or_else(field)? & 1 != 0,
            session: from.u64().ok_or_else(field)?,
            number: from.u64().ok_or_else(field)?,
        })
    }
}

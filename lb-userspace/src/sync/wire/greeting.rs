//! The greeting: who I am, a challenge for the peer, and the peer's challenge as an echo once I have heard it.
//!
//! The epoch stands in the clear behind the header, because the key to the rest follows from it. All greetings have the
//! same length, so an answer is never longer than the question.

use crate::sync::crypto::{Cipher, Random, TAG};

use super::{
    MINOR, Malformed,
    bytes::{Reader, Writer},
    header::{HEADER, Header},
};

/// Bytes of every greeting.
pub(crate) const GREETING: usize = 192;
/// Header and epoch.
const CLEAR: usize = HEADER + 16;

mod item {
    pub(crate) const CHALLENGE: u8 = 1;
    pub(crate) const ECHO: u8 = 2;
    pub(crate) const ABOUT: u8 = 3;
    pub(crate) const TIMEOUTS: u8 = 4;
    pub(crate) const PADDING: u8 = 255;
}

/// States in the order of their timeouts: see [`lb_common::tcp::State`].
pub(crate) const STATES: usize = 6;

/// What a greeting says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) challenge: Random,
    /// All zeros: none was heard yet.
    pub(crate) echo: Random,
    pub(crate) minor: u8,
    /// The sender's configuration: services and backends.
    pub(crate) fingerprint: u64,
    /// After which silence the sender ends a conn in each state, in tenths of a second.
    pub(crate) timeouts: [u32; STATES],
}

impl Greeting {
    /// Writes and seals a whole frame.
    pub(crate) fn write(&self, header: &Header, epoch: &Random, cipher: &Cipher, frame: &mut Vec<u8>) {
        frame.clear();
        let mut to = Writer::new(frame, GREETING - TAG);
        header.write(&mut to);
        to.raw(epoch);
        to.item(item::CHALLENGE, |to| to.raw(&self.challenge));
        to.item(item::ECHO, |to| to.raw(&self.echo));
        to.item(item::ABOUT, |to| {
            to.u8(self.minor);
            to.u64(self.fingerprint);
        });
        to.item(item::TIMEOUTS, |to| self.timeouts.iter().for_each(|timeout| to.u32(*timeout)));
        let start = to.begin(item::PADDING);
        while to.room() > 0 {
            to.u8(0);
        }
        to.end(start);
        cipher.seal(header.number, frame, CLEAR);
    }

    /// The epoch of a frame, before anything is opened; `None`: it is not as long as a greeting.
    pub(crate) fn epoch(frame: &[u8]) -> Option<Random> {
        if frame.len() != GREETING {
            return None;
        }
        Reader(frame.get(HEADER..)?).array()
    }

    /// Opens a frame in place. `Ok(None)`: it was not sealed with this key.
    pub(crate) fn open(header: &Header, cipher: &Cipher, frame: &mut [u8]) -> Result<Option<Self>, Malformed> {
        let Some(body) = cipher.open(header.number, frame, CLEAR) else { return Ok(None) };
        let mut from = Reader(body);
        let (mut challenge, mut echo, mut about, mut timeouts) = (None, None, None, [0; STATES]);
        while !from.is_empty() {
            let (kind, mut body) = from.item().ok_or(Malformed)?;
            match kind {
                item::CHALLENGE => challenge = Some(body.array().ok_or(Malformed)?),
                item::ECHO => echo = Some(body.array().ok_or(Malformed)?),
                item::ABOUT => about = Some((body.u8().ok_or(Malformed)?, body.u64().ok_or(Malformed)?)),
                item::TIMEOUTS => {
                    for timeout in &mut timeouts {
                        *timeout = body.u32().ok_or(Malformed)?;
                    }
                }
                // Padding, or of a minor version to come.
                _ => {}
            }
        }
        let (minor, fingerprint) = about.ok_or(Malformed)?;
        Ok(Some(Self {
            challenge: challenge.ok_or(Malformed)?,
            echo: echo.ok_or(Malformed)?,
            minor,
            fingerprint,
            timeouts,
        }))
    }
}

impl Default for Greeting {
    fn default() -> Self {
        Self { challenge: [0; 16], echo: [0; 16], minor: MINOR, fingerprint: 0, timeouts: [0; STATES] }
    }
}

//! Records: conns that are, conns that are gone, and keys that are asked for. Explicit fields, never a struct's bytes.
//!
//! Records of one item have one size, which the item names: a later minor version may append fields, and this one
//! skips them. A record of an unknown transport protocol is skipped as well.
//!
//! ```text
//! conn: proto8 seen8 seen8 bits8 | client32 vip32 backend32 | ports 4 × 16: client vip backend client-at-backend
//!       | ack32 seq32 forward | ack32 seq32 reverse | idle32 idle32 age32 tenths of a second | born64
//! gone: proto8 why8 | ports 2 × 16 | client32 vip32 | age32 idle32 | born64
//! key:  proto8 zero8 | ports 2 × 16 | client32 vip32
//! ```

use lb_common::conn::Proto;

use crate::sync::{
    conn::{Conn, Half, Key},
    time::Tenths,
};

use super::{
    Malformed,
    bytes::{Reader, Writer, address},
};

/// A conn with what the protocol keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnRecord {
    pub(crate) conn: Conn,
    /// When it began, as a logical time: a later conn of the same key has a higher one. 0: not known.
    pub(crate) born: u64,
    /// The sender knows that the receiver had it.
    pub(crate) you_had: bool,
    /// The sender is who sees its packets.
    pub(crate) mine: bool,
}

/// Why a conn is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Both ends closed it, or it was reset, or another took its key.
    Closed,
    /// Nothing was seen of it for too long.
    Aged,
    /// The sender does not have it, although the receiver says that it had.
    Absent,
}

/// A conn that is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoneRecord {
    pub(crate) key: Key,
    pub(crate) why: Why,
    pub(crate) age: Tenths,
    /// How long ago the last of it was seen.
    pub(crate) idle: Tenths,
    /// It and all earlier ones of its key are no more.
    pub(crate) born: u64,
}

/// Something that many lie of in one item.
pub(crate) trait Record: Sized {
    /// Bytes of this version.
    const SIZE: usize;
    /// Writes it.
    fn write(&self, to: &mut Writer<'_>);
    /// Reads one from its bytes, which are enough; `None`: of a kind that this version does not know.
    fn read(from: Reader<'_>) -> Option<Self>;
}

mod bit {
    pub(crate) const YOU_HAD: u8 = 1;
    pub(crate) const MINE: u8 = 2;
}

const TCP: u8 = Proto::Tcp as u8;

impl Record for ConnRecord {
    const SIZE: usize = 60;

    fn write(&self, to: &mut Writer<'_>) {
        let Self { conn, born, you_had, mine } = self;
        let Conn { key, backend, client_port, forward, reverse, age } = conn;
        to.u8(TCP);
        to.u8(forward.seen);
        to.u8(reverse.seen);
        to.u8(if *you_had { bit::YOU_HAD } else { 0 } | if *mine { bit::MINE } else { 0 });
        to.ip(*key.client.ip());
        to.ip(*key.vip.ip());
        to.ip(*backend.ip());
        to.u16(key.client.port());
        to.u16(key.vip.port());
        to.u16(backend.port());
        to.u16(*client_port);
        for half in [forward, reverse] {
            to.u32(half.ack);
            to.u32(half.seq);
        }
        to.u32(forward.idle.0);
        to.u32(reverse.idle.0);
        to.u32(age.0);
        to.u64(*born);
    }

    fn read(mut from: Reader<'_>) -> Option<Self> {
        if from.u8()? != TCP {
            return None;
        }
        let (forward_seen, reverse_seen, bits) = (from.u8()?, from.u8()?, from.u8()?);
        let (client, vip, backend) = (from.ip()?, from.ip()?, from.ip()?);
        let key = Key { client: address(client, from.u16()?), vip: address(vip, from.u16()?) };
        let backend = address(backend, from.u16()?);
        let client_port = from.u16()?;
        let mut half = |seen| Some(Half { seen, ack: from.u32()?, seq: from.u32()?, idle: Tenths(0) });
        let (forward, reverse) = (half(forward_seen)?, half(reverse_seen)?);
        let forward = Half { idle: Tenths(from.u32()?), ..forward };
        let reverse = Half { idle: Tenths(from.u32()?), ..reverse };
        Some(Self {
            conn: Conn { key, backend, client_port, forward, reverse, age: Tenths(from.u32()?) },
            born: from.u64()?,
            you_had: bits & bit::YOU_HAD != 0,
            mine: bits & bit::MINE != 0,
        })
    }
}

fn write_key(key: &Key, second: u8, to: &mut Writer<'_>) {
    to.u8(TCP);
    to.u8(second);
    to.u16(key.client.port());
    to.u16(key.vip.port());
    to.ip(*key.client.ip());
    to.ip(*key.vip.ip());
}

/// The key and the byte behind the protocol.
fn read_key(from: &mut Reader<'_>) -> Option<(Key, u8)> {
    if from.u8()? != TCP {
        return None;
    }
    let second = from.u8()?;
    let (client, vip) = (from.u16()?, from.u16()?);
    Some((Key { client: address(from.ip()?, client), vip: address(from.ip()?, vip) }, second))
}

impl Record for GoneRecord {
    const SIZE: usize = 30;

    fn write(&self, to: &mut Writer<'_>) {
        let Self { key, why, age, idle, born } = self;
        let why = match why {
            Why::Closed => 0,
            Why::Aged => 1,
            Why::Absent => 2,
        };
        write_key(key, why, to);
        to.u32(age.0);
        to.u32(idle.0);
        to.u64(*born);
    }

    fn read(mut from: Reader<'_>) -> Option<Self> {
        let (key, why) = read_key(&mut from)?;
        let why = match why {
            0 => Why::Closed,
            1 => Why::Aged,
            2 => Why::Absent,
            _ => return None,
        };
        Some(Self { key, why, age: Tenths(from.u32()?), idle: Tenths(from.u32()?), born: from.u64()? })
    }
}

impl Record for Key {
    const SIZE: usize = 14;

    fn write(&self, to: &mut Writer<'_>) {
        write_key(self, 0, to);
    }

    fn read(mut from: Reader<'_>) -> Option<Self> {
        read_key(&mut from).map(|(key, _)| key)
    }
}

/// The records of an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a, R> {
    size: usize,
    rest: Reader<'a>,
    of: std::marker::PhantomData<fn() -> R>,
}

impl<'a, R: Record> Records<'a, R> {
    /// The records in the body of an item, whose first byte is their size.
    pub(crate) fn of(mut body: Reader<'a>) -> Result<Self, Malformed> {
        let size = usize::from(body.u8().ok_or(Malformed)?);
        if size < R::SIZE || !body.0.len().is_multiple_of(size) {
            return Err(Malformed);
        }
        Ok(Self { size, rest: body, of: std::marker::PhantomData })
    }
}

impl<R: Record> Iterator for Records<'_, R> {
    /// `None`: a record that this version does not know.
    type Item = Option<R>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest.take(self.size).map(|bytes| R::read(Reader(bytes)))
    }
}

/// Writes an item of records, as long as there are some and they fit; answers how many.
pub(crate) fn write_records<R: Record>(kind: u8, to: &mut Writer<'_>, mut next: impl FnMut() -> Option<R>) -> usize {
    if !to.fits(1 + R::SIZE) {
        return 0;
    }
    let mut count = 0;
    let mut start = None;
    while to.room() >= R::SIZE + if start.is_some() { 0 } else { 4 }
        && let Some(record) = next()
    {
        let _ = *start.get_or_insert_with(|| {
            let start = to.begin(kind);
            to.u8(R::SIZE as u8);
            start
        });
        record.write(to);
        count += 1;
    }
    if let Some(start) = start {
        to.end(start);
    }
    count
}

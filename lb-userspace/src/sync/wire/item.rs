//! The items of a session's frame.

use std::net::Ipv4Addr;

use crate::sync::{conn::Key, notice::Part};

use super::{
    Malformed,
    bytes::{Reader, Writer},
    record::{ConnRecord, GoneRecord, Records, write_records},
};

mod kind {
    pub(crate) const STREAM: u8 = 1;
    pub(crate) const CONNS: u8 = 2;
    pub(crate) const GONE: u8 = 3;
    pub(crate) const ACTIVITY: u8 = 4;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const MISSING: u8 = 6;
    pub(crate) const BEAT: u8 = 7;
    pub(crate) const MARK: u8 = 8;
    pub(crate) const DIGESTS: u8 = 9;
    pub(crate) const REPAIR: u8 = 10;
    pub(crate) const PULL: u8 = 11;
    pub(crate) const BYE: u8 = 12;
    /// Since minor version 1.
    pub(crate) const NOTICE: u8 = 13;
}

/// What the sender has received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Every number of the stream up to this one.
    pub(crate) received: u64,
    /// The last number it has sent itself, this frame's included.
    pub(crate) sent: u64,
    /// What the receiver lacks of it below this number comes in later frames.
    pub(crate) floor: u64,
    /// Its logical time.
    pub(crate) time: u64,
    /// Conns it did not take, ever.
    pub(crate) refused: u32,
    /// The last mark at which both tables were equal.
    pub(crate) equal: u32,
}

/// Numbers of the stream that did not arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing<'a> {
    /// All up to this number arrived, but those named.
    pub(crate) upto: u64,
    ranges: Reader<'a>,
}

impl Missing<'_> {
    /// The ranges as first number and count.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u32)> {
        let (mut rest, upto) = (self.ranges, self.upto);
        std::iter::from_fn(move || {
            let (back, count) = (rest.u32()?, rest.u32()?);
            Some((upto.saturating_sub(u64::from(back)), count))
        })
    }
}

/// The sender is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) role: u8,
    pub(crate) priority: u8,
    pub(crate) address: Ipv4Addr,
    /// Its table is as the packet path's: nothing was lost on the way.
    pub(crate) settled: bool,
    pub(crate) conns: u32,
    pub(crate) bulk_done: u32,
    pub(crate) bulk_total: u32,
    /// The number of the stream with which the bulk was complete; 0: it is not.
    pub(crate) bulk_end: u64,
    pub(crate) fingerprint: u64,
}

/// A point at which both tables can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: u32,
    /// The sender has told everything up to this number of its stream…
    pub(crate) sent: u64,
    /// …and has taken in everything up to this one of the receiver's.
    pub(crate) received: u64,
    pub(crate) conns: u32,
    pub(crate) digest: u64,
    /// Somebody waits for the answer.
    pub(crate) urgent: bool,
}

/// One item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// The place of the frame in the stream of what its sender has to tell, from 1 on: every frame with conns has one.
    Stream(u64),
    Conns(Records<'a, ConnRecord>),
    Gone(Records<'a, GoneRecord>),
    Activity(Records<'a, ConnRecord>),
    Ack(Ack),
    Missing(Missing<'a>),
    Beat(Beat),
    Mark(Mark),
    Digests(Digests<'a>),
    Repair(Buckets<'a>),
    Pull(Records<'a, Key>),
    Notice(Part<'a>),
    Bye,
    Unknown,
}

/// Digests of consecutive buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digests<'a> {
    first: u16,
    rest: Reader<'a>,
}

impl Iterator for Digests<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (bucket, digest) = (self.first, self.rest.u64()?);
        self.first = self.first.wrapping_add(1);
        Some((bucket, digest))
    }
}

/// Numbers of buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets<'a>(Reader<'a>);

impl Iterator for Buckets<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.0.u16()
    }
}

/// The items of an opened frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Items<'a>(Reader<'a>);

impl<'a> Items<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self(Reader(body))
    }

    /// Tells whether every item can be read. Nothing of a frame counts if not.
    pub(crate) fn are_sound(self) -> bool {
        { self }.all(|item| item.is_ok())
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.0.item().ok_or(Malformed).and_then(|(kind, body)| Item::read(kind, body));
        if item.is_err() {
            self.0 = Reader(&[]);
        }
        Some(item)
    }
}

impl<'a> Item<'a> {
    /// Fields behind those known are skipped: a later minor version may append some.
    fn read(kind: u8, mut body: Reader<'a>) -> Result<Self, Malformed> {
        let whole = |body: Reader<'_>, part: usize| body.0.len().is_multiple_of(part);
        let item = match kind {
            kind::STREAM => body.u64().map(Self::Stream),
            kind::CONNS => return Records::of(body).map(Self::Conns),
            kind::GONE => return Records::of(body).map(Self::Gone),
            kind::ACTIVITY => return Records::of(body).map(Self::Activity),
            kind::PULL => return Records::of(body).map(Self::Pull),
            kind::ACK => Ack::read(&mut body).map(Self::Ack),
            kind::MISSING => {
                body.u64().filter(|_| whole(body, 8)).map(|upto| Self::Missing(Missing { upto, ranges: body }))
            }
            kind::BEAT => Beat::read(&mut body).map(Self::Beat),
            kind::MARK => Mark::read(&mut body).map(Self::Mark),
            kind::DIGESTS => {
                body.u16().filter(|_| whole(body, 8)).map(|first| Self::Digests(Digests { first, rest: body }))
            }
            kind::REPAIR => whole(body, 2).then_some(Self::Repair(Buckets(body))),
            kind::NOTICE => Part::read(&mut body).map(Self::Notice),
            kind::BYE => Some(Self::Bye),
            _ => Some(Self::Unknown),
        };
        item.ok_or(Malformed)
    }
}

impl<'a> Part<'a> {
    fn read(from: &mut Reader<'a>) -> Option<Self> {
        let (version, of, at, length) = (from.u32()?, from.u8()?, from.u8()?, from.u16()?);
        let part = Self { version, of, at, bytes: from.take(length.into())? };
        part.is_sound().then_some(part)
    }
}

impl Ack {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            received: from.u64()?,
            sent: from.u64()?,
            floor: from.u64()?,
            time: from.u64()?,
            refused: from.u32()?,
            equal: from.u32()?,
        })
    }
}

impl Beat {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (role, priority, flags) = (from.u8()?, from.u8()?, from.u8()?);
        let _reserved = from.u8()?;
        Some(Self {
            role,
            priority,
            address: from.ip()?,
            settled: flags & 1 != 0,
            conns: from.u32()?,
            bulk_done: from.u32()?,
            bulk_total: from.u32()?,
            bulk_end: from.u64()?,
            fingerprint: from.u64()?,
        })
    }
}

impl Mark {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: from.u32()?,
            sent: from.u64()?,
            received: from.u64()?,
            conns: from.u32()?,
            digest: from.u64()?,
            urgent: from.u8()? & 1 != 0,
        })
    }
}

/// The items as they are written. Those that hold many things answer how many fitted.
pub(crate) mod write {
    use super::*;

    /// Bytes of the body of a [`Beat`].
    pub(crate) const BEAT: usize = 36;
    /// Bytes of the body of a [`Mark`].
    pub(crate) const MARK: usize = 33;

    pub(crate) fn stream(number: u64, to: &mut Writer<'_>) {
        to.item(kind::STREAM, |to| to.u64(number));
    }

    pub(crate) fn conns(to: &mut Writer<'_>, next: impl FnMut() -> Option<ConnRecord>) -> usize {
        write_records(kind::CONNS, to, next)
    }

    pub(crate) fn gone(to: &mut Writer<'_>, next: impl FnMut() -> Option<GoneRecord>) -> usize {
        write_records(kind::GONE, to, next)
    }

    pub(crate) fn activity(to: &mut Writer<'_>, next: impl FnMut() -> Option<ConnRecord>) -> usize {
        write_records(kind::ACTIVITY, to, next)
    }

    pub(crate) fn pull(to: &mut Writer<'_>, next: impl FnMut() -> Option<Key>) -> usize {
        write_records(kind::PULL, to, next)
    }

    pub(crate) fn ack(ack: &Ack, to: &mut Writer<'_>) {
        let Ack { received, sent, floor, time, refused, equal } = *ack;
        to.item(kind::ACK, |to| {
            [received, sent, floor, time].into_iter().for_each(|number| to.u64(number));
            [refused, equal].into_iter().for_each(|number| to.u32(number));
        });
    }

    /// Names missing ranges; if not all fit, only what lies before the first that does not is told of.
    pub(crate) fn missing(upto: u64, ranges: impl Iterator<Item = (u64, u32)>, to: &mut Writer<'_>) {
        let fit = to.room().saturating_sub(16) / 8;
        let mut named = Vec::new();
        let mut upto = upto;
        for (first, count) in ranges {
            if named.len() == fit {
                upto = first - 1;
                break;
            }
            named.push((first, count));
        }
        to.item(kind::MISSING, |to| {
            to.u64(upto);
            for (first, count) in named {
                to.u32(u32::try_from(upto - first).unwrap_or(u32::MAX));
                to.u32(count);
            }
        });
    }

    pub(crate) fn beat(beat: &Beat, to: &mut Writer<'_>) {
        let Beat { role, priority, address, settled, conns, bulk_done, bulk_total, bulk_end, fingerprint } = *beat;
        to.item(kind::BEAT, |to| {
            to.u8(role);
            to.u8(priority);
            to.u8(u8::from(settled));
            to.u8(0);
            to.ip(address);
            [conns, bulk_done, bulk_total].into_iter().for_each(|number| to.u32(number));
            [bulk_end, fingerprint].into_iter().for_each(|number| to.u64(number));
        });
    }

    pub(crate) fn mark(mark: &Mark, to: &mut Writer<'_>) {
        let Mark { id, sent, received, conns, digest, urgent } = *mark;
        to.item(kind::MARK, |to| {
            to.u32(id);
            to.u64(sent);
            to.u64(received);
            to.u32(conns);
            to.u64(digest);
            to.u8(u8::from(urgent));
        });
    }

    pub(crate) fn digests(first: u16, mut next: impl FnMut() -> Option<u64>, to: &mut Writer<'_>) -> usize {
        let mut count = 0;
        to.item(kind::DIGESTS, |to| {
            to.u16(first);
            while to.room() >= 8
                && let Some(digest) = next()
            {
                to.u64(digest);
                count += 1;
            }
        });
        count
    }

    pub(crate) fn repair(mut next: impl FnMut() -> Option<u16>, to: &mut Writer<'_>) -> usize {
        let mut count = 0;
        to.item(kind::REPAIR, |to| {
            while to.room() >= 2
                && let Some(bucket) = next()
            {
                to.u16(bucket);
                count += 1;
            }
        });
        count
    }

    /// Bytes of the body of a notice's part, besides its bytes.
    pub(crate) const PART_HEAD: usize = 8;

    pub(crate) fn notice(part: &Part<'_>, to: &mut Writer<'_>) {
        let Part { version, of, at, bytes } = *part;
        to.item(kind::NOTICE, |to| {
            to.u32(version);
            to.u8(of);
            to.u8(at);
            // At most PART.
            to.u16(bytes.len() as u16);
            to.raw(bytes);
        });
    }

    pub(crate) fn bye(to: &mut Writer<'_>) {
        to.item(kind::BYE, |_| {});
    }
}

//! Numbers and addresses in network order, and items of a type, a length and a body.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Type and length of an item.
pub(crate) const ITEM_HEAD: usize = 3;

/// A frame being written. It never grows beyond its limit: who writes asks for room first.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    limit: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(bytes: &'a mut Vec<u8>, limit: usize) -> Self {
        Self { bytes, limit }
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.len())
    }

    /// Tells whether an item with a body of so many bytes fits.
    pub(crate) fn fits(&self, body: usize) -> bool {
        self.room() >= ITEM_HEAD + body
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn ip(&mut self, ip: Ipv4Addr) {
        self.raw(&ip.octets());
    }

    /// Begins an item; the answer is for [`Writer::end`].
    pub(crate) fn begin(&mut self, kind: u8) -> usize {
        self.u8(kind);
        self.u16(0);
        self.bytes.len()
    }

    /// Ends the item whose body began at `start`.
    pub(crate) fn end(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = self.bytes.get_mut(start - 2..start) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    pub(crate) fn item(&mut self, kind: u8, body: impl FnOnce(&mut Self)) {
        let start = self.begin(kind);
        body(self);
        self.end(start);
    }
}

/// Bytes being read from the front; `None`: there are not enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn ip(&mut self) -> Option<Ipv4Addr> {
        self.array::<4>().map(Ipv4Addr::from)
    }

    /// The next item: its type and its body.
    pub(crate) fn item(&mut self) -> Option<(u8, Reader<'a>)> {
        let kind = self.u8()?;
        let length = self.u16()?;
        Some((kind, Reader(self.take(usize::from(length))?)))
    }
}

/// An address of two parts that lie apart in a record.
pub(crate) const fn address(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

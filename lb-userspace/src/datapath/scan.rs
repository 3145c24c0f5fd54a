//! Reading and changing a large hash map in slices, by the batch commands of bpf(2).
//!
//! Owns the position in a map between two slices, so that the agent can do other work there. A map that changes
//! meanwhile may show an entry twice or not at all: a scan is a hint, the single entry is the truth.

use std::{fmt::Debug, marker::PhantomData};

use lb_common::MapType;

use super::{
    error::{Error, Result},
    tables::Table,
};

/// Entries per system call, unless a bucket of the map is larger.
const SLICE: usize = 4096;

/// A position in a map, with the buffers for one slice.
#[derive(Debug)]
pub struct Scan<K, V> {
    position: Option<u32>,
    done: bool,
    slice: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: Vec<(K, V)>,
    invalid: u64,
    first_invalid: Option<Error>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: MapType + Debug, V: MapType> Default for Scan<K, V> {
    fn default() -> Self {
        Self::with_slice(SLICE)
    }
}

impl<K: MapType + Debug, V: MapType> Scan<K, V> {
    /// A scan from the start of a map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scan with `slice` entries per step.
    #[must_use]
    pub fn with_slice(slice: usize) -> Self {
        Self {
            position: None,
            done: false,
            slice: slice.max(1),
            keys: Vec::new(),
            values: Vec::new(),
            entries: Vec::new(),
            invalid: 0,
            first_invalid: None,
            types: PhantomData,
        }
    }

    /// Reads the next slice; `None`: the end was reached before.
    ///
    /// # Errors
    ///
    /// The system call failed. Entries that do not decode are skipped and counted instead, see [`Scan::invalid`].
    pub fn next(&mut self, table: &Table<K, V>) -> Result<Option<&[(K, V)]>> {
        if self.done {
            return Ok(None);
        }
        let batch = loop {
            self.keys.resize(self.slice * K::SIZE, 0);
            self.values.resize(self.slice * V::SIZE, 0);
            match table.opened.map.lookup_batch(self.position, &mut self.keys, &mut self.values, self.slice) {
                Ok(batch) => break batch,
                // One bucket holds more entries than a slice: the kernel wants to give it as a whole.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && self.slice < table.capacity() as usize => {
                    self.slice *= 2;
                }
                Err(source) => return Err(Error::Io { what: format!("scan map {}", table.opened.name), source }),
            }
        };
        self.position = batch.next;
        self.done = batch.next.is_none();
        self.entries.clear();
        let keys = self.keys.chunks_exact(K::SIZE);
        for (key, value) in keys.zip(self.values.chunks_exact(V::SIZE)).take(batch.count) {
            let entry = table.opened.decode(&"(undecodable)", key).and_then(|decoded: K| {
                let value = table.opened.decode(&decoded, value)?;
                Ok((decoded, value))
            });
            match entry {
                Ok(entry) => self.entries.push(entry),
                Err(error) => {
                    self.invalid += 1;
                    self.first_invalid.get_or_insert(error);
                }
            }
        }
        Ok(Some(&self.entries))
    }

    /// Number of entries so far that did not decode, and the first of them.
    #[must_use]
    pub fn invalid(&self) -> (u64, Option<&Error>) {
        (self.invalid, self.first_invalid.as_ref())
    }
}

impl<K: MapType + Debug, V: MapType> Table<K, V> {
    /// Calls `visit` with slices of the whole map.
    ///
    /// # Errors
    ///
    /// The system call failed, or an entry did not decode (after all others were visited).
    pub fn for_each_slice(&self, mut visit: impl FnMut(&[(K, V)])) -> Result<()> {
        let mut scan = Scan::new();
        while let Some(entries) = scan.next(self)? {
            visit(entries);
        }
        scan.first_invalid.map_or(Ok(()), Err)
    }

    /// Writes entries, new or not; answers how many were written.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the map has no room; the entries before were written.
    pub fn insert_many(&self, entries: &[(K, V)]) -> Result<usize> {
        let mut written = 0;
        for slice in entries.chunks(SLICE) {
            let keys: Vec<u8> = slice.iter().flat_map(|(key, _)| key.bytes().iter().copied()).collect();
            let values: Vec<u8> = slice.iter().flat_map(|(_, value)| value.bytes().iter().copied()).collect();
            let (count, result) = self.opened.map.update_batch(&keys, &values, slice.len());
            written += count;
            result.map_err(self.opened.failed("write a batch from", &entries.get(written).map(|entry| entry.0)))?;
        }
        Ok(written)
    }

    /// Removes entries; answers how many there were. Keys without an entry are passed over.
    ///
    /// # Errors
    ///
    /// The system call failed.
    pub fn remove_many(&self, keys: &[K]) -> Result<usize> {
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.bytes().iter().copied()).collect();
        let (mut at, mut removed) = (0, 0);
        while at < keys.len() {
            let count = (keys.len() - at).min(SLICE);
            let (done, result) = self.opened.map.delete_batch(&bytes[at * K::SIZE..(at + count) * K::SIZE], count);
            removed += done;
            at += done;
            match result {
                Ok(()) => {}
                // The batch stopped at a key without an entry: the packet path, or a sweep, was faster.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => at += 1,
                Err(error) => return Err(self.opened.failed("remove a batch from", &keys.get(at))(error)),
            }
        }
        Ok(removed)
    }
}

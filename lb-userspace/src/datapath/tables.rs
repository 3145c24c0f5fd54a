//! The maps as typed tables: get, insert, remove, read all; values are decoded, never trusted.
//!
//! Owns the list of maps with their types and sizes, and the access to single entries. Reading a large table in slices
//! is `scan`, deciding what to write is `plan`. A table is a file descriptor: sharing it between threads is fine.

use std::{fmt::Debug, io, marker::PhantomData, path::Path};

use lb_common::{
    MapType,
    abi::{self, map},
    backend::{Backend, Load},
    conn::{Conn, FlowKey},
    control::Control,
    counter::{Counter, Counters},
    link::{LINK_SLOTS, Link},
    service::{Cursor, RingSlot, Service, ServiceKey},
    stats::BackendStats,
};

use super::{
    bpf::{self, map_type},
    error::{Error, Result},
};

/// What the config says about capacities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableSizes {
    /// Planned established conns; the map holds two entries for each.
    pub conns: u32,
    /// Half-open conns kept while a handshake runs; the map holds two entries for each.
    pub half_open: u32,
    /// Services.
    pub services: u32,
    /// Backends of all services together, those that are being drained included.
    pub backends: u32,
}

impl Default for TableSizes {
    fn default() -> Self {
        Self {
            conns: abi::MAX_CONNS,
            half_open: abi::MAX_HALF_OPEN,
            services: abi::MAX_SERVICES,
            backends: abi::MAX_BACKENDS,
        }
    }
}

/// The shape of a map of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

impl TableSizes {
    /// The shape of every pinned map, in the order of [`map::ALL`].
    pub(super) fn specs(&self) -> [MapSpec; 12] {
        const U32: u32 = 4;
        let spec = |name, map_type, key_size, value_size: usize, max_entries| MapSpec {
            name,
            map_type,
            key_size,
            value_size: value_size as u32,
            max_entries,
        };
        let flow = FlowKey::SIZE as u32;
        let rings = self.services.saturating_mul(abi::RING_SLOTS);
        [
            spec(map::SERVICES, map_type::HASH, ServiceKey::SIZE as u32, Service::SIZE, self.services),
            spec(map::BACKENDS, map_type::ARRAY, U32, Backend::SIZE, self.backends),
            spec(map::RINGS, map_type::ARRAY, U32, RingSlot::SIZE, rings),
            spec(map::CURSORS, map_type::ARRAY, U32, Cursor::SIZE, self.services),
            spec(map::CONNS, map_type::HASH, flow, Conn::SIZE, self.conns.saturating_mul(2)),
            spec(map::HALF_OPEN, map_type::LRU_HASH, flow, Conn::SIZE, self.half_open.saturating_mul(2)),
            spec(map::STATS, map_type::PERCPU_ARRAY, U32, BackendStats::SIZE, self.backends),
            spec(map::LOADS, map_type::ARRAY, U32, Load::SIZE, self.backends),
            spec(map::COUNTERS, map_type::PERCPU_ARRAY, U32, Counters::SIZE, 1),
            spec(map::CONTROL, map_type::ARRAY, U32, Control::SIZE, 1),
            spec(map::LINKS, map_type::ARRAY, U32, Link::SIZE, LINK_SLOTS),
            spec(map::EVENTS, map_type::RINGBUF, 0, 0, abi::EVENTS_BYTES),
        ]
    }
}

/// Every table that the agent reads and writes entry by entry; the events have their own reader.
#[derive(Debug)]
pub struct Tables {
    /// VIP:port → service.
    pub services: Table<ServiceKey, Service>,
    /// Backend id → backend.
    pub backends: Array<Backend>,
    /// Slot → backend id; each service owns a region.
    pub rings: Array<RingSlot>,
    /// Service id → number of picks so far.
    pub cursors: Array<Cursor>,
    /// Established conns, two entries each.
    pub conns: Table<FlowKey, Conn>,
    /// Half-open conns, two entries each.
    pub half_open: Table<FlowKey, Conn>,
    /// Backend id → number of established conns.
    pub loads: Array<Load>,
    /// The few words that steer the packet path.
    pub control: Array<Control>,
    /// Slot of an interface → its link-layer addresses.
    pub links: Array<Link>,
    stats: PerCpu,
    counters: PerCpu,
}

impl Tables {
    /// Opens the maps pinned in `dir`, the versioned pin directory.
    ///
    /// # Errors
    ///
    /// A pin is missing, or its sizes are not those of this build.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            services: Table::open(dir, map::SERVICES)?,
            backends: Array::open(dir, map::BACKENDS)?,
            rings: Array::open(dir, map::RINGS)?,
            cursors: Array::open(dir, map::CURSORS)?,
            conns: Table::open(dir, map::CONNS)?,
            half_open: Table::open(dir, map::HALF_OPEN)?,
            loads: Array::open(dir, map::LOADS)?,
            control: Array::open(dir, map::CONTROL)?,
            links: Array::open(dir, map::LINKS)?,
            stats: PerCpu(open(dir, map::STATS, 4, BackendStats::SIZE)?),
            counters: PerCpu(open(dir, map::COUNTERS, 4, Counters::SIZE)?),
        })
    }

    /// The traffic of a backend, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// The id is beyond the table.
    pub fn stats(&self, backend: u16) -> Result<BackendStats> {
        let [conns, in_packets, out_packets, in_bytes, out_bytes] = self.stats.sum(u32::from(backend))?;
        Ok(BackendStats { conns, in_packets, out_packets, in_bytes, out_bytes })
    }

    /// Sets the load and the traffic of a backend to zero, on every CPU.
    pub(super) fn zero(&self, backend: u16) -> Result<()> {
        self.loads.set(u32::from(backend), &Load { active: 0 })?;
        self.stats.zero(u32::from(backend))
    }

    /// Every counter with its value, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>> {
        let sums: [u64; Counter::ALL.len()] = self.counters.sum(0)?;
        Ok(Counter::ALL.iter().copied().zip(sums).collect())
    }

    /// One counter, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let sums: [u64; Counter::ALL.len()] = self.counters.sum(0)?;
        Ok(sums[counter as usize])
    }
}

/// An open map and the name for messages.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) name: &'static str,
    pub(super) map: bpf::Map,
}

fn open(dir: &Path, name: &'static str, key: usize, value: usize) -> Result<Opened> {
    let path = dir.join(name);
    let map = bpf::Map::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
    let found = (map.info().key_size as usize, map.info().value_size as usize);
    if found != (key, value) {
        let what = format!("key and value of {} and {} bytes instead of {key} and {value}", found.0, found.1);
        return Err(Error::PinMismatch { path, what });
    }
    Ok(Opened { name, map })
}

impl Opened {
    /// Wraps a failed access to `key`.
    pub(super) fn failed(&self, verb: &str, key: &dyn Debug) -> impl FnOnce(io::Error) -> Error {
        let (name, capacity) = (self.name, self.map.info().max_entries);
        move |source| match source.raw_os_error() {
            Some(libc::E2BIG) => Error::Full { map: name, capacity },
            _ => Error::Io { what: format!("{verb} {key:?} in map {name}"), source },
        }
    }

    pub(super) fn decode<V: MapType>(&self, key: &dyn Debug, bytes: &[u8]) -> Result<V> {
        V::decode(bytes).map_err(|source| Error::Invalid { map: self.name, key: format!("{key:?}"), source })
    }
}

/// A hash map.
#[derive(Debug)]
pub struct Table<K, V> {
    pub(super) opened: Opened,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: MapType + Debug, V: MapType> Table<K, V> {
    fn open(dir: &Path, name: &'static str) -> Result<Self> {
        Ok(Self { opened: open(dir, name, K::SIZE, V::SIZE)?, types: PhantomData })
    }

    /// Number of entries that fit.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.opened.map.info().max_entries
    }

    /// The entry of `key`; `None`: there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the value holds a byte that its type does not know.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut bytes = vec![0; V::SIZE];
        let found = self.opened.map.lookup(key.bytes(), &mut bytes).map_err(self.opened.failed("look up", key))?;
        found.then(|| self.opened.decode(key, &bytes)).transpose()
    }

    /// Writes an entry, new or not.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the map has no room.
    pub fn insert(&self, key: &K, value: &V) -> Result<()> {
        self.opened.map.update(key.bytes(), value.bytes()).map_err(self.opened.failed("write", key))
    }

    /// Removes an entry; `false`: there was none.
    ///
    /// # Errors
    ///
    /// The system call failed.
    pub fn remove(&self, key: &K) -> Result<bool> {
        self.opened.map.delete(key.bytes()).map_err(self.opened.failed("remove", key))
    }
}

/// An array.
#[derive(Debug)]
pub struct Array<V> {
    opened: Opened,
    types: PhantomData<fn() -> V>,
}

impl<V: MapType> Array<V> {
    fn open(dir: &Path, name: &'static str) -> Result<Self> {
        Ok(Self { opened: open(dir, name, size_of::<u32>(), V::SIZE)?, types: PhantomData })
    }

    /// Number of elements.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.opened.map.info().max_entries
    }

    /// The element at `index`.
    ///
    /// # Errors
    ///
    /// The index is beyond the end, or [`Error::Invalid`].
    pub fn get(&self, index: u32) -> Result<V> {
        let mut bytes = vec![0; V::SIZE];
        let failed = self.opened.failed("look up", &index);
        match self.opened.map.lookup(&index.to_ne_bytes(), &mut bytes) {
            Ok(true) => self.opened.decode(&index, &bytes),
            Ok(false) => Err(failed(io::Error::from_raw_os_error(libc::ENOENT))),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the element at `index`.
    ///
    /// # Errors
    ///
    /// The index is beyond the end.
    pub fn set(&self, index: u32, value: &V) -> Result<()> {
        self.opened.map.update(&index.to_ne_bytes(), value.bytes()).map_err(self.opened.failed("write", &index))
    }

    /// Reads `count` elements from `start` on.
    ///
    /// # Errors
    ///
    /// The range is beyond the end, or [`Error::Invalid`].
    pub fn range(&self, start: u32, count: u32) -> Result<Vec<V>> {
        if start.checked_add(count).is_none_or(|end| end > self.capacity()) {
            return Err(self.opened.failed("read", &(start, count))(io::ErrorKind::InvalidInput.into()));
        }
        let count = count as usize;
        let (mut keys, mut values) = (vec![0; count * size_of::<u32>()], vec![0; count * V::SIZE]);
        let mut done = 0;
        // The position of a batch is the index that was read last.
        let mut from = start.checked_sub(1);
        while done < count {
            let (keys, values) = (&mut keys[done * 4..], &mut values[done * V::SIZE..]);
            let batch = self
                .opened
                .map
                .lookup_batch(from, keys, values, count - done)
                .map_err(self.opened.failed("read", &(start, count)))?;
            done += batch.count;
            if batch.next.is_none() || batch.count == 0 {
                break;
            }
            from = batch.next;
        }
        let index = |at: usize| start as usize + at;
        values[..done * V::SIZE]
            .chunks_exact(V::SIZE)
            .enumerate()
            .map(|(at, bytes)| self.opened.decode(&index(at), bytes))
            .collect()
    }

    /// Reads every element.
    ///
    /// # Errors
    ///
    /// As for [`Array::range`].
    pub fn all(&self) -> Result<Vec<V>> {
        self.range(0, self.capacity())
    }

    /// Writes `values` from `start` on.
    ///
    /// # Errors
    ///
    /// The range is beyond the end.
    pub fn set_range(&self, start: u32, values: &[V]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let keys: Vec<u8> = (start..).take(values.len()).flat_map(u32::to_ne_bytes).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.bytes().iter().copied()).collect();
        let (_done, result) = self.opened.map.update_batch(&keys, &bytes, values.len());
        result.map_err(self.opened.failed("write", &(start, values.len())))
    }
}

/// A per-CPU array whose values consist of `u64` counts.
#[derive(Debug)]
struct PerCpu(Opened);

impl PerCpu {
    /// The `N` counts at `index`, each summed over the CPUs.
    fn sum<const N: usize>(&self, index: u32) -> Result<[u64; N]> {
        let mut bytes = vec![0; self.0.map.value_bytes()];
        let failed = self.0.failed("look up", &index);
        match self.0.map.lookup(&index.to_ne_bytes(), &mut bytes) {
            Ok(true) => {}
            Ok(false) => return Err(failed(io::Error::from_raw_os_error(libc::ENOENT))),
            Err(error) => return Err(failed(error)),
        }
        let mut sums = [0_u64; N];
        for (at, word) in bytes.chunks_exact(8).enumerate() {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            sums[at % N] = sums[at % N].wrapping_add(word);
        }
        Ok(sums)
    }

    fn zero(&self, index: u32) -> Result<()> {
        let zeros = vec![0; self.0.map.value_bytes()];
        self.0.map.update(&index.to_ne_bytes(), &zeros).map_err(self.0.failed("write", &index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_has_a_shape_and_a_name_the_kernel_keeps() {
        let specs = TableSizes::default().specs();
        assert_eq!(specs.map(|spec| spec.name), map::ALL);
        assert!(map::ALL.iter().all(|name| name.len() <= 15));
    }

    #[test]
    fn conn_tables_hold_both_entries_of_every_conn() {
        let specs = TableSizes { conns: 7, half_open: 5, services: 3, backends: 9 }.specs();
        let entries = |name| specs.iter().find(|spec| spec.name == name).unwrap().max_entries;
        assert_eq!((entries(map::CONNS), entries(map::HALF_OPEN)), (14, 10));
        assert_eq!((entries(map::RINGS), entries(map::STATS)), (3 * abi::RING_SLOTS, 9));
    }
}

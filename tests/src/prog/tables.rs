//! Typed access to the maps of a loaded object, through bytes: a byte that is no variant of its enum is an error.

use std::{
    collections::{BTreeMap, HashMap},
    mem::MaybeUninit,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, Pod,
    maps::{self, MapData, RingBuf},
};
use lb_common::{
    MapType,
    abi::map,
    backend::{Backend, Load},
    conn::{Conn, FlowKey},
    control::Control,
    counter::Counter,
    event::Event,
    link::Link,
    service::{Cursor, RingSlot, Service, ServiceKey},
    stats::BackendStats,
};

/// The bytes of a `T` as the kernel holds them, not yet known to be a valid one.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T: Copy>(MaybeUninit<T>);

// SAFETY: a `Raw` accepts every bit pattern, and `MapType` has no padding, so that its bytes can be copied out.
unsafe impl<T: MapType + 'static> Pod for Raw<T> {}

impl<T: MapType> Raw<T> {
    fn of(value: T) -> Self {
        Self(MaybeUninit::new(value))
    }

    fn decode(&self) -> Result<T> {
        // SAFETY: the kernel or `of` wrote all bytes, and `T` has no padding.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), T::SIZE) };
        T::decode(bytes).map_err(|invalid| anyhow!("{invalid}"))
    }
}

/// Words of the element of `counters`.
const COUNTERS: usize = Counter::ALL.len();

/// The counters that are not zero.
pub type Counters = BTreeMap<Counter, u64>;

/// The maps of one loaded object.
pub struct Tables {
    maps: HashMap<&'static str, maps::Map>,
    events: RingBuf<MapData>,
}

impl Tables {
    /// Takes the maps out of the object; programs that were loaded keep using them.
    ///
    /// # Errors
    ///
    /// When the object lacks a map of the contract.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut maps = HashMap::new();
        for name in map::ALL {
            maps.insert(name, ebpf.take_map(name).with_context(|| format!("the object has no map `{name}`"))?);
        }
        let events = RingBuf::try_from(maps.remove(map::EVENTS).context("events")?)?;
        Ok(Self { maps, events })
    }

    fn map(&mut self, name: &'static str) -> Result<&mut maps::Map> {
        self.maps.get_mut(name).with_context(|| format!("no map `{name}`"))
    }

    fn hash<K: MapType + 'static, V: MapType + 'static>(
        &mut self,
        name: &'static str,
    ) -> Result<maps::HashMap<&mut MapData, Raw<K>, Raw<V>>> {
        self.map(name)?.try_into().with_context(|| format!("map `{name}`"))
    }

    fn array<V: MapType + 'static>(&mut self, name: &'static str) -> Result<maps::Array<&mut MapData, Raw<V>>> {
        self.map(name)?.try_into().with_context(|| format!("map `{name}`"))
    }

    fn put<K: MapType + 'static, V: MapType + 'static>(&mut self, name: &'static str, key: K, value: V) -> Result<()> {
        self.hash(name)?.insert(Raw::of(key), Raw::of(value), 0).with_context(|| format!("insert into `{name}`"))
    }

    fn all<K: MapType + Ord + 'static, V: MapType + 'static>(&mut self, name: &'static str) -> Result<BTreeMap<K, V>> {
        let map = self.hash::<K, V>(name)?;
        let entries = map.iter().map(|entry| {
            let (key, value) = entry?;
            Ok((key.decode()?, value.decode()?))
        });
        entries.collect::<Result<_>>().with_context(|| format!("read `{name}`"))
    }

    fn clear_hash<K: MapType + Ord + 'static, V: MapType + 'static>(&mut self, name: &'static str) -> Result<()> {
        let keys: Vec<K> = self.all::<K, V>(name)?.into_keys().collect();
        let mut map = self.hash::<K, V>(name)?;
        keys.into_iter().try_for_each(|key| map.remove(&Raw::of(key)).context("remove"))
    }

    /// Writes a service.
    pub fn put_service(&mut self, key: ServiceKey, service: Service) -> Result<()> {
        self.put(map::SERVICES, key, service)
    }

    /// A service.
    pub fn service(&mut self, key: &ServiceKey) -> Result<Service> {
        self.hash(map::SERVICES)?.get(&Raw::of(*key), 0)?.decode()
    }

    /// Writes a backend.
    pub fn put_backend(&mut self, id: u16, backend: Backend) -> Result<()> {
        self.array(map::BACKENDS)?.set(id.into(), Raw::of(backend), 0).context("write a backend")
    }

    /// Writes the backend ids of a ring from slot `start` on.
    pub fn put_ring(&mut self, start: u32, backends: &[u16]) -> Result<()> {
        let mut rings = self.array(map::RINGS)?;
        for (slot, &backend) in (start..).zip(backends) {
            rings.set(slot, Raw::of(RingSlot { backend: backend.into() }), 0).context("write a ring slot")?;
        }
        Ok(())
    }

    /// The number of picks of a service so far.
    pub fn cursor(&mut self, service: u16) -> Result<u64> {
        Ok(self.array::<Cursor>(map::CURSORS)?.get(&service.into(), 0)?.decode()?.next)
    }

    /// Sets the number of picks of a service.
    pub fn set_cursor(&mut self, service: u16, next: u64) -> Result<()> {
        self.array(map::CURSORS)?.set(service.into(), Raw::of(Cursor { next }), 0).context("write a cursor")
    }

    /// The element of `control`.
    pub fn control(&mut self) -> Result<Control> {
        self.array::<Control>(map::CONTROL)?.get(&0, 0)?.decode()
    }

    /// Writes the element of `control`.
    pub fn set_control(&mut self, control: Control) -> Result<()> {
        self.array(map::CONTROL)?.set(0, Raw::of(control), 0).context("write control")
    }

    /// Writes the link-layer addresses of an interface.
    pub fn put_link(&mut self, link: Link) -> Result<()> {
        self.array(map::LINKS)?.set(Link::slot(link.ifindex), Raw::of(link), 0).context("write a link")
    }

    /// The entries of established conns.
    pub fn conns(&mut self) -> Result<BTreeMap<FlowKey, Conn>> {
        self.all(map::CONNS)
    }

    /// The entries of half-open conns.
    pub fn half_open(&mut self) -> Result<BTreeMap<FlowKey, Conn>> {
        self.all(map::HALF_OPEN)
    }

    /// Writes an entry of an established conn.
    pub fn put_conn(&mut self, key: FlowKey, conn: Conn) -> Result<()> {
        self.put(map::CONNS, key, conn)
    }

    /// Writes an entry of a half-open conn.
    pub fn put_half_open(&mut self, key: FlowKey, conn: Conn) -> Result<()> {
        self.put(map::HALF_OPEN, key, conn)
    }

    /// Removes an entry from whichever conn table holds it.
    pub fn remove(&mut self, key: &FlowKey) -> Result<()> {
        let table = if self.conns()?.contains_key(key) { map::CONNS } else { map::HALF_OPEN };
        self.hash::<FlowKey, Conn>(table)?.remove(&Raw::of(*key)).with_context(|| format!("remove {key:?}"))
    }

    /// The traffic of a backend, over all CPUs.
    pub fn stats(&mut self, backend: u16) -> Result<BackendStats> {
        let map: maps::PerCpuArray<_, Raw<BackendStats>> = self.map(map::STATS)?.try_into().context("map `stats`")?;
        let mut sum = BackendStats::default();
        for cpu in map.get(&backend.into(), 0)?.iter() {
            let BackendStats { conns, in_packets, out_packets, in_bytes, out_bytes } = cpu.decode()?;
            sum.conns += conns;
            sum.in_packets += in_packets;
            sum.out_packets += out_packets;
            sum.in_bytes += in_bytes;
            sum.out_bytes += out_bytes;
        }
        Ok(sum)
    }

    /// The number of established conns of a backend.
    pub fn load(&mut self, backend: u16) -> Result<u64> {
        Ok(self.array::<Load>(map::LOADS)?.get(&backend.into(), 0)?.decode()?.active)
    }

    /// Sets the number of established conns of a backend.
    pub fn set_load(&mut self, backend: u16, active: u64) -> Result<()> {
        self.array(map::LOADS)?.set(backend.into(), Raw::of(Load { active }), 0).context("write a load")
    }

    /// The counters that are not zero, over all CPUs.
    pub fn counters(&mut self) -> Result<Counters> {
        let map: maps::PerCpuArray<_, [u64; COUNTERS]> =
            self.map(map::COUNTERS)?.try_into().context("map `counters`")?;
        let cpus = map.get(&0, 0)?;
        let mut counters = Counters::new();
        for &counter in Counter::ALL {
            let sum: u64 = cpus.iter().map(|counts| counts[counter as usize]).sum();
            if sum > 0 {
                counters.insert(counter, sum);
            }
        }
        Ok(counters)
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.push(Event::decode(&record).map_err(|invalid| anyhow!("{invalid}"))?);
        }
        Ok(events)
    }

    /// Empties everything that a run or a test wrote, so that the next test starts as on a fresh load.
    pub fn clear(&mut self) -> Result<()> {
        self.clear_hash::<ServiceKey, Service>(map::SERVICES)?;
        self.clear_hash::<FlowKey, Conn>(map::CONNS)?;
        self.clear_hash::<FlowKey, Conn>(map::HALF_OPEN)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let mut backends = self.array::<Backend>(map::BACKENDS)?;
        for id in 0..backends.len() {
            backends.set(id, Raw(MaybeUninit::zeroed()), 0)?;
        }
        for id in 0..self.array::<Load>(map::LOADS)?.len() {
            self.set_load(id as u16, 0)?;
        }
        let mut rings = self.array::<RingSlot>(map::RINGS)?;
        for slot in 0..rings.len() {
            rings.set(slot, Raw::of(RingSlot { backend: u32::MAX }), 0)?;
        }
        for service in 0..self.array::<Cursor>(map::CURSORS)?.len() {
            self.set_cursor(service as u16, 0)?;
        }
        let mut stats: maps::PerCpuArray<_, Raw<BackendStats>> = self.map(map::STATS)?.try_into()?;
        for id in 0..stats.len() {
            stats.set(id, vec![Raw::of(BackendStats::default()); cpus].try_into()?, 0)?;
        }
        let mut counters: maps::PerCpuArray<_, [u64; COUNTERS]> = self.map(map::COUNTERS)?.try_into()?;
        counters.set(0, vec![[0; COUNTERS]; cpus].try_into()?, 0)?;
        self.set_control(Control::default())?;
        self.events()?;
        Ok(())
    }
}

//! Every map of the packet path, with who writes and who reads it. Capacities are set anew by the agent at load.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    abi,
    backend::{Backend, Load},
    conn::{Conn, FlowKey},
    control::Control,
    counter::Counters,
    event::Event,
    link::{LINK_SLOTS, Link},
    service::{Cursor, RingSlot, Service, ServiceKey},
    stats::BackendStats,
};

/// VIP and port → service. Written by the agent; read for every packet that no conn claims.
#[btf_map(name = "services")]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, { abi::MAX_SERVICES as usize }> = HashMap::new();

/// Backend id → backend. Written by the agent; read when a conn is opened.
#[btf_map(name = "backends")]
pub(crate) static BACKENDS: Array<Backend, { abi::MAX_BACKENDS as usize }> = Array::new();

/// The rings of all services. Written by the agent in the half that is not in use; read when a conn is opened.
#[btf_map(name = "rings")]
pub(crate) static RINGS: Array<RingSlot, { (abi::RING_SLOTS * abi::MAX_SERVICES) as usize }> = Array::new();

/// Service id → cursor. Stepped atomically when a conn is opened.
#[btf_map(name = "cursors")]
pub(crate) static CURSORS: Array<Cursor, { abi::MAX_SERVICES as usize }> = Array::new();

/// 5-tuple → entry of an established conn. Preallocated and never evicted: a full table refuses new conns.
/// Created by the client's last packet of the handshake, removed by the agent's sweep or by a reused key.
#[btf_map(name = "conns")]
pub(crate) static CONNS: HashMap<FlowKey, Conn, { 2 * abi::MAX_CONNS as usize }> = HashMap::new();

/// 5-tuple → entry of a conn whose handshake runs. LRU: a SYN flood evicts half-open conns, nothing else.
#[btf_map(name = "half_open")]
pub(crate) static HALF_OPEN: LruHashMap<FlowKey, Conn, { 2 * abi::MAX_HALF_OPEN as usize }> = LruHashMap::new();

/// Backend id → traffic. Counted per CPU, summed by the agent.
#[btf_map(name = "stats")]
pub(crate) static STATS: PerCpuArray<BackendStats, { abi::MAX_BACKENDS as usize }> = PerCpuArray::new();

/// Backend id → how busy it is. Stepped atomically when a conn becomes or stops being established.
#[btf_map(name = "loads")]
pub(crate) static LOADS: Array<Load, { abi::MAX_BACKENDS as usize }> = Array::new();

/// All counters. Counted per CPU, summed by the agent.
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// The agent's few words to the packet path. Written by the agent and by `lb_clock`; read on every packet.
#[btf_map(name = "control")]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();

/// Slot of an interface → its link-layer addresses. Written by the agent; read by the XDP hook for packets of ours.
#[btf_map(name = "links")]
pub(crate) static LINKS: Array<Link, { LINK_SLOTS as usize }> = Array::new();

/// What happened to conns, for the agent. A record that finds no room is counted as lost.
#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<Event, { abi::EVENTS_BYTES as usize }> = RingBuf::new();

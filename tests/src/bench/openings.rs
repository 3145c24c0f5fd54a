//! Services behind each other, so that the packets that open conns come in chains, too.
//!
//! The backend of service `i` is the address that service `i + 1` listens on: the translated SYN of a new conn is the
//! SYN of the next. Each run does all that a new conn costs: scheduler, two entries, the question for the next hop.

use std::rc::Rc;

use anyhow::{Result, ensure};
use lb_common::{
    addr::{Ipv4, MacPair},
    backend::{Backend, BackendState},
    conn::{Conn, Direction, FlowKey, Origin},
    control::Control,
    counter::Counter,
    service::{OnDown, Refusal, RingSlot, Scheduler, Service, ServiceKey},
    tcp::flag,
};
use lb_userspace::datapath::{TableSizes, Tables};

use super::{
    Hook,
    chain::HOP_GEN,
    frame::Frame,
    loaded::{Loaded, REPEAT},
    row::{Probe, TTL_AFTER, call, check, packet_path, plain},
    sandbox::{NEIGHBOUR_MAC, PORT, PORT_MAC},
};

/// Services, and backends: one for each run of a call.
pub(super) const COUNT: u32 = 256;
const _: () = assert!(REPEAT <= COUNT);
const MYSQL: u16 = 3306;
/// What the backend's SYN said, and the number that acknowledges it.
pub(super) const BACKEND_SEQ: u32 = 7001;
const CLIENT_SEQ: u32 = 5000;

/// The packet that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A SYN: opens a conn.
    Syn,
    /// The client's ACK: completes the handshake, and moves the conn to the table of established ones.
    Complete,
}

impl Opening {
    pub(super) const fn flags(self) -> u8 {
        match self {
            Self::Syn => flag::SYN,
            Self::Complete => flag::ACK,
        }
    }

    pub(super) const fn seq(self) -> u32 {
        match self {
            Self::Syn => CLIENT_SEQ,
            Self::Complete => CLIENT_SEQ + 1,
        }
    }
}

/// The first packets of conns: every run opens or completes another conn.
pub(super) struct Openings {
    pub(super) loaded: Rc<Loaded>,
    pub(super) hook: Hook,
    /// Which packet of the handshake is measured.
    pub(super) opening: Opening,
    /// Grows from call to call: the client.
    pub(super) client: u32,
}

impl Probe for Openings {
    fn sample(&mut self, calls: u32) -> Result<f64> {
        let loaded = &self.loaded;
        let before = loaded.counts(COUNT as u16)?;
        let (mut ns, mut opened) = (0.0, Vec::new());
        for _ in 0..calls {
            self.client = self.client.wrapping_add(1);
            if self.opening == Opening::Complete {
                let half_open: Vec<(FlowKey, Conn)> = half_open(self.client).collect();
                loaded.tables.half_open.insert_many(&half_open)?;
            }
            let frame = Frame {
                flags: self.opening.flags(),
                seq: self.opening.seq(),
                ack: BACKEND_SEQ,
                ..plain(key(self.client, 0))
            };
            let expected = Frame {
                dst_mac: NEIGHBOUR_MAC,
                src_mac: PORT_MAC,
                key: key(self.client, REPEAT),
                ttl: TTL_AFTER,
                ..frame
            };
            ns += call(&loaded.programs, self.hook, packet_path(self.hook), &frame, true, &expected)?;
            opened.extend(keys(self.client));
        }
        let runs = u64::from(calls * REPEAT);
        match self.opening {
            Opening::Syn => {
                check(loaded, &before, runs, 0, &[(Counter::Opened, runs), (Counter::HopLookup, runs)])?;
                let removed = loaded.tables.half_open.remove_many(&opened)?;
                ensure!(removed as u64 == 2 * runs, "{removed} half-open entries of {runs} new conns");
            }
            Opening::Complete => {
                check(loaded, &before, runs, 0, &[(Counter::Established, runs)])?;
                let (events, removed) = (loaded.drain_events(), loaded.tables.conns.remove_many(&opened)?);
                ensure!((events, removed) == (runs as usize, 2 * runs as usize), "{events} events, {removed} entries");
            }
        }
        Ok(ns / f64::from(calls))
    }
}

/// Capacities for a table that takes all services; conns and half-open conns as the agent has them by default.
pub(super) fn sizes() -> TableSizes {
    TableSizes { services: COUNT, backends: COUNT, ..TableSizes::default() }
}

/// Lets the packets of every service and backend through.
pub(super) fn admit(control: &mut Control) {
    for index in 0..=COUNT {
        control.admit(address(index), MYSQL);
    }
}

/// Writes the services, as the agent would.
pub(super) fn configure(tables: &Tables) -> Result<()> {
    for index in 0..COUNT {
        let id = index as u16;
        let backend = Backend {
            addr: address(index + 1),
            port: MYSQL,
            service: id,
            weight: 1,
            state: BackendState::Up,
            on_down: OnDown::Rst,
            max_conn: 0,
        };
        tables.backends.set(index, &backend)?;
        tables.rings.set(index, &RingSlot { backend: index })?;
        let service = Service {
            id,
            scheduler: Scheduler::Rr,
            no_conn: Refusal::Drop,
            no_backend: Refusal::Rst,
            ring_start: index,
            ring_len: 1,
            reserved: [0; 3],
        };
        tables.services.insert(&ServiceKey::tcp(address(index), MYSQL), &service)?;
    }
    Ok(())
}

/// Where service `index` listens: the backend of the one before.
fn address(index: u32) -> Ipv4 {
    let [_, _, c, d] = index.to_be_bytes();
    Ipv4::new([172, 20, c, d])
}

/// The flow of a client to a service.
pub(super) fn key(client: u32, service: u32) -> FlowKey {
    let [_, b, c, d] = client.to_be_bytes();
    FlowKey::tcp(Ipv4::new([10, b, c, d]), 40000, address(service), MYSQL)
}

/// The keys of both entries of all conns that one call opens.
pub(super) fn keys(client: u32) -> impl Iterator<Item = FlowKey> {
    (0..REPEAT).flat_map(move |service| [key(client, service), key(client, service + 1).swapped()])
}

/// Both entries of a client's conns to all services, just before the client acknowledges.
pub(super) fn half_open(client: u32) -> impl Iterator<Item = (FlowKey, Conn)> {
    (0..REPEAT).flat_map(move |service| {
        let (own, translated) = (key(client, service), key(client, service + 1));
        let reverse =
            Conn { seen: flag::SYN | flag::ACK, seq: BACKEND_SEQ, ..entry(own.swapped(), service, Direction::Reverse) };
        let forward = Conn { seen: flag::SYN, seq: CLIENT_SEQ + 1, ..entry(translated, service, Direction::Forward) };
        [(own, forward), (translated.swapped(), reverse)]
    })
}

fn entry(to: FlowKey, service: u32, dir: Direction) -> Conn {
    Conn {
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        backend: service as u16,
        dir,
        seen: 0,
        macs: MacPair { dst: NEIGHBOUR_MAC, src: PORT_MAC },
        ifindex: PORT,
        hop_gen: HOP_GEN,
        last_seen: 0,
        ack: 0,
        seq: 0,
        created: 0,
        origin: Origin::Local,
        once: 0,
        mtu: 1500,
        bytes: 0,
    }
}

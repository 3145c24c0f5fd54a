//! Conns as the packet path's tables hold them, and as they travel: ages for jiffies, backends by address.
//!
//! Pure. Backends have ids here and addresses there: `Ids` finds one by the other.

use std::{collections::HashMap, net::SocketAddrV4};

use lb_common::{
    addr::Ipv4,
    backend::{Backend, BackendState},
    conn::{Conn as Entry, FlowKey},
    event::Event,
    replica::{Op, Outcome, Request},
    service::{Service, ServiceKey},
};

use crate::{
    datapath::Ticks,
    sync::{Conn, Half, Key, Tenths, Write},
};

/// VIP and port, backend → the backend's id.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<(SocketAddrV4, SocketAddrV4), u16>);

impl Ids {
    /// Those of the tables. Backends that were removed keep their ids as long as they have conns.
    pub(super) fn of(services: &[(ServiceKey, Service)], backends: &[Backend]) -> Self {
        let listen: HashMap<u16, SocketAddrV4> =
            services.iter().map(|(key, service)| (service.id, address(key.vip, key.port))).collect();
        let mut ids = HashMap::new();
        for (id, backend) in (0_u16..).zip(backends) {
            if backend.state == BackendState::Unused {
                continue;
            }
            if let Some(vip) = listen.get(&backend.service) {
                let place = ids.entry((*vip, address(backend.addr, backend.port))).or_insert(id);
                // One that was removed and came back may have two: new conns count for the one in use.
                if backend.state != BackendState::Removed {
                    *place = id;
                }
            }
        }
        Self(ids)
    }

    fn get(&self, conn: &Conn) -> Option<u16> {
        self.0.get(&(conn.key.vip, conn.backend)).copied()
    }
}

/// The packet path's clock at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Low word of jiffies.
    pub(super) jiffies: u32,
    /// Their rate.
    pub(super) ticks: Ticks,
}

impl Now {
    pub(super) fn age(self, then: u32) -> Tenths {
        Tenths::from_duration(self.ticks.to_duration(self.ticks.since(self.jiffies, then)))
    }

    fn before(self, age: Tenths) -> u32 {
        self.jiffies.wrapping_sub(self.ticks.from_duration(age.duration()))
    }

    /// A record of the event ring.
    pub(super) fn event(self, event: &Event) -> Conn {
        let idle = self.age(event.jiffies as u32);
        Conn {
            key: key(&event.key),
            backend: address(event.backend_addr, event.backend_port),
            client_port: event.client_port,
            forward: Half { seen: event.forward_seen, ack: event.forward_ack, seq: event.forward_seq, idle },
            reverse: Half { seen: event.reverse_seen, ack: event.reverse_ack, seq: event.reverse_seq, idle },
            age: self.age(event.created),
        }
    }

    fn half(self, entry: &Entry) -> Half {
        Half { seen: entry.seen, ack: entry.ack, seq: entry.seq, idle: self.age(entry.last_seen) }
    }

    /// Both entries of a conn.
    pub(super) fn conn(self, flow: &FlowKey, forward: &Entry, reverse: &Entry) -> Conn {
        Conn {
            key: key(flow),
            backend: address(forward.dst, forward.dport),
            client_port: forward.sport,
            forward: self.half(forward),
            reverse: self.half(reverse),
            age: self.age(forward.created),
        }
    }

    /// What the packet path's program is to do; `None`: the backend has no id here.
    pub(super) fn request(self, write: &Write, ids: &Ids) -> Option<Request> {
        Some(match write {
            Write::Create { conn, idle } => self.known(self.about(conn, Op::Create, ids.get(conn)?), *idle),
            Write::Update(conn) => {
                let slack = Tenths(Conn::SLACK.0 + conn.age.0 / 1000);
                let known = self.ticks.from_duration(slack.duration());
                Request { known, ..self.about(conn, Op::Update, ids.get(conn).unwrap_or_default()) }
            }
            Write::Remove { key, idle } => self.known(self.naming(key, Op::Remove), *idle),
        })
    }

    /// The removal of a conn in whatever state.
    pub(super) fn retirement(self, key: &Key, idle: Tenths) -> Request {
        self.known(self.naming(key, Op::Retire), idle)
    }

    /// The core knows of a silence; of a conn that was not silent for so long it does not know all.
    fn known(self, request: Request, idle: Tenths) -> Request {
        let since = Tenths(idle.0.saturating_sub(Tenths::ROUNDING.0));
        Request { knows: u16::from(idle != Tenths::MAX), known: self.before(since), ..request }
    }

    fn naming(self, key: &Key, op: Op) -> Request {
        Request {
            key: flow(key),
            backend_addr: Ipv4::new([0; 4]),
            backend_port: 0,
            client_port: 0,
            backend: 0,
            op,
            outcome: Outcome::Nothing,
            forward_seen: 0,
            reverse_seen: 0,
            knows: 0,
            forward_ack: 0,
            forward_seq: 0,
            reverse_ack: 0,
            reverse_seq: 0,
            forward_last: self.jiffies,
            reverse_last: self.jiffies,
            created: self.jiffies,
            known: self.jiffies,
        }
    }

    fn about(self, conn: &Conn, op: Op, backend: u16) -> Request {
        Request {
            backend_addr: (*conn.backend.ip()).into(),
            backend_port: conn.backend.port(),
            client_port: conn.client_port,
            backend,
            forward_seen: conn.forward.seen,
            reverse_seen: conn.reverse.seen,
            forward_ack: conn.forward.ack,
            forward_seq: conn.forward.seq,
            reverse_ack: conn.reverse.ack,
            reverse_seq: conn.reverse.seq,
            forward_last: self.before(conn.forward.idle),
            reverse_last: self.before(conn.reverse.idle),
            created: self.before(conn.age),
            ..self.naming(&conn.key, op)
        }
    }
}

/// The core's key of a forward entry.
pub(super) fn key(flow: &FlowKey) -> Key {
    Key { client: address(flow.src, flow.sport), vip: address(flow.dst, flow.dport) }
}

/// The key of a conn's forward entry.
pub(super) fn flow(key: &Key) -> FlowKey {
    FlowKey::tcp((*key.client.ip()).into(), key.client.port(), (*key.vip.ip()).into(), key.vip.port())
}

pub(super) fn address(addr: Ipv4, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(addr.into(), port)
}

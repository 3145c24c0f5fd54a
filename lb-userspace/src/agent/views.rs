//! From the tables to the answers that operators see. Reads, never writes.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use lb_common::{
    abi::map,
    conn::{Conn, Direction, FlowKey, Proto},
    service::ServiceKey,
    tcp,
};

use crate::{
    config::{Config, table_memory},
    control::protocol::{
        BackendTraffic, BackendView, ConnView, InterfaceView, LeftView, Mode, ServiceView, StatsView, TableView,
        Traffic,
    },
    datapath::{
        Datapath, Hook, Ids, InterfaceStatus, Scan, Summary, Table, Tables, Timeouts,
        expiry::{Deadlines, Half},
    },
};

/// A conn without a packet for as long as this counts as idle.
const IDLE_SECONDS: u64 = 60;
/// Fill of a table, in percent, from which on `status` warns.
const NEARLY_FULL: u64 = 80;

/// One interface.
pub(super) fn interface(status: &InterfaceStatus) -> InterfaceView {
    let link = status.links.first();
    InterfaceView {
        name: status.name.clone(),
        ifindex: status.ifindex,
        mode: match status.hook {
            Hook::XdpNative => Mode::Xdp,
            Hook::XdpGeneric => Mode::XdpGeneric,
            Hook::Tc => Mode::Tc,
        },
        why: status.why.clone(),
        link_id: link.map_or(0, |link| link.link_id),
        program_id: link.map_or(0, |link| link.program_id),
        attached_seconds: None,
    }
}

/// All tables whose fill matters.
pub(super) fn tables(tables: &Tables, summary: &Summary, ids: &Ids) -> Vec<TableView> {
    let entries = |count: u64, capacity: u32, name: &str, bytes: u64| TableView {
        name: name.to_owned(),
        entries: count,
        capacity: u64::from(capacity),
        bytes,
    };
    let sizes = crate::config::TableSizes {
        conns: tables.conns.capacity() / 2,
        half_open: tables.half_open.capacity() / 2,
        services: tables.services.capacity(),
        backends: tables.backends.capacity(),
    };
    let memory = table_memory(&sizes);
    let bytes = |name: &str| memory.iter().find(|(known, _)| *known == name).map_or(0, |(_, bytes)| *bytes);
    let backends = ids.backends.iter().map(Vec::len).sum::<usize>() as u64;
    vec![
        entries(2 * summary.conns, tables.conns.capacity(), map::CONNS, bytes(map::CONNS)),
        entries(2 * summary.half_open, tables.half_open.capacity(), map::HALF_OPEN, bytes(map::HALF_OPEN)),
        entries(ids.services.len() as u64, tables.services.capacity(), map::SERVICES, bytes(map::SERVICES)),
        entries(backends, tables.backends.capacity(), map::BACKENDS, bytes(map::BACKENDS)),
    ]
}

/// What is nearly full. Half-open conns make room for each other.
pub(super) fn fill_warnings(tables: &[TableView]) -> Vec<String> {
    tables
        .iter()
        .filter(|table| table.name == map::CONNS && table.entries * 100 >= table.capacity * NEARLY_FULL)
        .map(|table| {
            format!(
                "{} holds {} of {} entries; when it is full, new conns are refused: raise `conns` in [table]",
                table.name, table.entries, table.capacity
            )
        })
        .collect()
}

/// All services, in the order of the config.
pub(super) fn services(
    config: &Config,
    ids: &Ids,
    tables: &Tables,
    summary: &Summary,
    left: &BTreeMap<u16, LeftView>,
    words: &dyn Fn(usize) -> Vec<(&'static str, Option<&'static str>)>,
) -> anyhow::Result<Vec<ServiceView>> {
    let mut views = Vec::with_capacity(config.services.len());
    for (at, (service, ids)) in config.services.iter().zip(&ids.backends).enumerate() {
        let mut backends = Vec::with_capacity(service.backends.len());
        for ((backend, id), (word, disagreement)) in service.backends.iter().zip(ids).zip(words(at)) {
            let record = tables.backends.get(u32::from(*id))?;
            backends.push(BackendView {
                address: backend.address,
                forward: "Masq".to_owned(),
                weight: record.weight,
                state: record.state,
                word: word.to_owned(),
                active: tables.loads.get(u32::from(*id))?.active,
                inactive: summary.backends.get(usize::from(*id)).map_or(0, |tally| u64::from(tally.inactive)),
                left: left.get(id).copied(),
                disagreement: disagreement.map(str::to_owned),
            });
        }
        views.push(ServiceView {
            name: service.name.clone(),
            listen: service.listen,
            protocol: Proto::Tcp,
            scheduler: service.scheduler,
            active: backends.iter().map(|backend| backend.active).sum(),
            inactive: backends.iter().map(|backend| backend.inactive).sum(),
            backends,
        });
    }
    Ok(views)
}

/// The traffic of all services, in the order of the config.
pub(super) fn stats(config: &Config, ids: &Ids, tables: &Tables) -> anyhow::Result<Vec<StatsView>> {
    let mut views = Vec::with_capacity(config.services.len());
    for (service, ids) in config.services.iter().zip(&ids.backends) {
        let mut total = Traffic::default();
        let mut backends = Vec::with_capacity(service.backends.len());
        for (backend, id) in service.backends.iter().zip(ids) {
            let stats = tables.stats(*id)?;
            total.conns += stats.conns;
            total.in_packets += stats.in_packets;
            total.out_packets += stats.out_packets;
            total.in_bytes += stats.in_bytes;
            total.out_bytes += stats.out_bytes;
            let traffic = Traffic {
                conns: stats.conns,
                in_packets: stats.in_packets,
                out_packets: stats.out_packets,
                in_bytes: stats.in_bytes,
                out_bytes: stats.out_bytes,
            };
            backends.push(BackendTraffic { address: backend.address, traffic });
        }
        views.push(StatsView {
            name: service.name.clone(),
            listen: service.listen,
            protocol: Proto::Tcp,
            total,
            backends,
        });
    }
    Ok(views)
}

/// Makes views of conns at one moment.
pub(super) struct ConnViews<'a> {
    config: &'a Config,
    datapath: &'a Datapath,
    deadlines: Deadlines,
    now: u32,
}

impl<'a> ConnViews<'a> {
    pub(super) fn new(config: &'a Config, datapath: &'a Datapath, timeouts: &Timeouts) -> anyhow::Result<Self> {
        let now = datapath.clock()?.jiffies as u32;
        Ok(Self { config, datapath, deadlines: Deadlines::new(now, datapath.ticks(), timeouts), now })
    }

    /// The conn of an entry; `None` for reverse entries, so that each conn is shown once.
    pub(super) fn of(
        &self,
        table: &Table<FlowKey, Conn>,
        key: &FlowKey,
        forward: &Conn,
    ) -> anyhow::Result<Option<ConnView>> {
        if forward.dir != Direction::Forward {
            return Ok(None);
        }
        // The other entry may have gone since the scan; then what is known is shown.
        let reverse = table.get(&forward.other_key())?;
        let (half, other) = (Half::from(forward), reverse.as_ref().map_or(Half::from(forward), Half::from));
        let ticks = self.datapath.ticks();
        let age = |then: u32| ticks.to_duration(ticks.since(self.now, then));
        let idle = reverse.as_ref().map_or(age(half.last_seen), |r| age(half.last_seen).min(age(r.last_seen)));
        let reverse_seen = reverse.as_ref().map_or(0, |reverse| reverse.seen);
        Ok(Some(ConnView {
            protocol: key.proto,
            expires_seconds: whole_seconds(self.deadlines.remaining(half, other)),
            state: tcp::State::of(forward.seen, reverse_seen),
            client: address(key.src.into(), key.sport),
            vip: address(key.dst.into(), key.dport),
            destination: address(forward.dst.into(), forward.dport),
            service: self.service_name(key),
            idle_seconds: idle.as_secs(),
            age_seconds: age(forward.created).as_secs(),
            bytes_in: forward.bytes,
            bytes_out: reverse.as_ref().map_or(0, |reverse| reverse.bytes),
            origin: forward.origin,
            client_port_at_backend: (forward.sport != key.sport).then_some(forward.sport),
        }))
    }

    /// The established conns of some backends, by their ids.
    pub(super) fn left(&self, backends: &[u16]) -> anyhow::Result<BTreeMap<u16, LeftView>> {
        let mut left: BTreeMap<u16, LeftView> = backends.iter().map(|id| (*id, LeftView::default())).collect();
        let table = &self.datapath.tables().conns;
        let mut scan = Scan::new();
        while let Some(slice) = if left.is_empty() { None } else { scan.next(table)? } {
            for (key, conn) in slice {
                let Some(found) = left.get_mut(&conn.backend) else { continue };
                if let Some(view) = self.of(table, key, conn)?
                    && view.state == tcp::State::Established
                {
                    found.conns += 1;
                    found.oldest_seconds = found.oldest_seconds.max(view.age_seconds);
                    found.idle += u64::from(view.idle_seconds >= IDLE_SECONDS);
                }
            }
        }
        Ok(left)
    }

    fn service_name(&self, key: &FlowKey) -> String {
        let listen = ServiceKey::tcp(key.dst, key.dport);
        let same = |service: &&crate::config::Service| {
            ServiceKey::tcp((*service.listen.ip()).into(), service.listen.port()) == listen
        };
        // A service that left the config keeps its conns.
        self.config.services.iter().find(same).map_or_else(|| "(removed)".to_owned(), |service| service.name.clone())
    }
}

fn address(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

/// Rounded up: a conn that shows 0 seconds is about to go.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() != 0)
}

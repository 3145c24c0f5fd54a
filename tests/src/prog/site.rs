//! A configuration as the agent would write it into the maps: services, their rings, their backends, the filter.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use lb_common::{
    addr::Ipv4,
    backend::{Backend, BackendState},
    control::Control,
    link::Link,
    service::{OnDown, Refusal, Scheduler, Service, ServiceKey},
};

use super::{
    network::{EXT_MAC, INT_MAC, Port, SERVER1, SERVER2, VIP},
    tables::Tables,
};
use crate::packet::ToEnd;

#[derive(Clone, Debug)]
struct SiteBackend {
    addr: SocketAddrV4,
    service: u16,
    weight: u16,
    state: BackendState,
    on_down: OnDown,
    max_conn: u32,
}

/// Ring slots of each service.
const REGION: u32 = 8;

/// Services with their backends. Ids count from 0 in the order in which they are named.
#[derive(Clone, Debug, Default)]
pub struct Site {
    services: Vec<SiteService>,
    backends: Vec<SiteBackend>,
}

#[derive(Clone, Debug)]
struct SiteService {
    listen: SocketAddrV4,
    scheduler: Scheduler,
    no_conn: Refusal,
    no_backend: Refusal,
    ring: Vec<u16>,
}

impl Site {
    /// No service at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The classic setup: MySQL on the VIP, two equal servers, rr.
    #[must_use]
    pub fn mysql() -> Self {
        let backends = [format!("{SERVER1}:3306"), format!("{SERVER2}:3306")];
        Self::new().service(&format!("{VIP}:3306"), Scheduler::Rr, &[&backends[0], &backends[1]])
    }

    /// Adds a service. `ring` is what the agent would write: one address per slot; a backend is made for each address
    /// that this service has not named yet.
    #[must_use]
    #[track_caller]
    pub fn service(mut self, listen: &str, scheduler: Scheduler, ring: &[&str]) -> Self {
        let id = self.services.len() as u16;
        let ring = ring.iter().map(|backend| self.backend(backend.to_end(), id)).collect();
        let (no_conn, no_backend) = (Refusal::Drop, Refusal::Rst);
        self.services.push(SiteService { listen: listen.to_end(), scheduler, no_conn, no_backend, ring });
        self
    }

    /// What happens to packets without a conn of the service named last.
    #[must_use]
    pub fn no_conn(mut self, policy: Refusal) -> Self {
        if let Some(service) = self.services.last_mut() {
            service.no_conn = policy;
        }
        self
    }

    /// What happens to a SYN for which the service named last has no backend.
    #[must_use]
    pub fn no_backend(mut self, policy: Refusal) -> Self {
        if let Some(service) = self.services.last_mut() {
            service.no_backend = policy;
        }
        self
    }

    /// The weight of a backend of the first service; 1 otherwise.
    #[must_use]
    #[track_caller]
    pub fn weight(mut self, backend: &str, weight: u16) -> Self {
        let id = self.backend_id(0, backend.to_end());
        self.backends[usize::from(id)].weight = weight;
        self
    }

    /// A backend of the first service is in this state; it is up otherwise.
    #[must_use]
    #[track_caller]
    pub fn state(mut self, backend: &str, state: BackendState, on_down: OnDown) -> Self {
        let id = self.backend_id(0, backend.to_end());
        let backend = &mut self.backends[usize::from(id)];
        (backend.state, backend.on_down) = (state, on_down);
        self
    }

    /// A backend of the first service has no more established conns than this.
    #[must_use]
    #[track_caller]
    pub fn max_conn(mut self, backend: &str, most: u32) -> Self {
        let id = self.backend_id(0, backend.to_end());
        self.backends[usize::from(id)].max_conn = most;
        self
    }

    fn backend(&mut self, addr: SocketAddrV4, service: u16) -> u16 {
        let found = self.backends.iter().position(|known| (known.addr, known.service) == (addr, service));
        found.unwrap_or_else(|| {
            let (weight, state, on_down, max_conn) = (1, BackendState::Up, OnDown::Rst, 0);
            self.backends.push(SiteBackend { addr, service, weight, state, on_down, max_conn });
            self.backends.len() - 1
        }) as u16
    }

    /// The id of the service that listens there.
    #[must_use]
    #[track_caller]
    pub fn service_id(&self, listen: SocketAddrV4) -> u16 {
        let found = self.services.iter().position(|service| service.listen == listen);
        found.unwrap_or_else(|| panic!("no service listens on {listen}")) as u16
    }

    /// The id of a backend of a service.
    #[must_use]
    #[track_caller]
    pub fn backend_id(&self, service: u16, addr: SocketAddrV4) -> u16 {
        let found = self.backends.iter().position(|known| (known.addr, known.service) == (addr, service));
        found.unwrap_or_else(|| panic!("service {service} has no backend {addr}")) as u16
    }

    /// The number of backends.
    #[must_use]
    pub fn backends(&self) -> u16 {
        self.backends.len() as u16
    }

    /// Writes it all into the maps.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an entry.
    pub fn apply(&self, tables: &mut Tables) -> Result<()> {
        let mut control = Control { syn_recv_jiffies: SYN_RECV_JIFFIES, ..Control::default() };
        for (id, backend) in (0..).zip(&self.backends) {
            let backend = Backend {
                addr: Ipv4::from(*backend.addr.ip()),
                port: backend.addr.port(),
                service: backend.service,
                weight: backend.weight,
                state: backend.state,
                on_down: backend.on_down,
                max_conn: backend.max_conn,
            };
            control.admit(backend.addr, backend.port);
            tables.put_backend(id, backend)?;
        }
        for (id, service) in (0_u16..).zip(&self.services) {
            ensure!(service.ring.len() <= REGION as usize, "{} slots in one ring", service.ring.len());
            let ring_start = u32::from(id) * REGION;
            tables.put_ring(ring_start, &service.ring)?;
            let key = ServiceKey::tcp(Ipv4::from(*service.listen.ip()), service.listen.port());
            control.admit(key.vip, key.port);
            let value = Service {
                id,
                scheduler: service.scheduler,
                no_conn: service.no_conn,
                no_backend: service.no_backend,
                ring_start,
                ring_len: service.ring.len() as u32,
                reserved: [0; 3],
            };
            tables.put_service(key, value)?;
        }
        for (port, own) in [(Port::Ext, EXT_MAC), (Port::Int, INT_MAC)] {
            tables.put_link(Link { ifindex: port.ifindex(), own, other: own })?;
        }
        tables.set_control(control)
    }
}

/// Half-open conns die after this many jiffies in every test: long against the run of a table.
pub const SYN_RECV_JIFFIES: u32 = 60_000;

//! From the desired services to the fewest writes that get the tables there.
//!
//! Pure. Owns the ids: a backend's id is bound to its service, address and port, and outlives its last conn; a
//! service's id is bound to its VIP and port. What a running packet may still use (ids, the ring in use) is never
//! rewritten in place: the new ring goes to the other half of the region, then the service value switches.

use std::{collections::BTreeMap, fmt};

use lb_common::{
    abi::{MAX_LEAST_CONN, RING_SLOTS},
    addr::Ipv4,
    backend::{Backend, BackendState},
    conn::Proto,
    service::{OnDown, Refusal, RingSlot, Scheduler, Service, ServiceKey},
};

use super::ring::{Candidate, HALF, ring};

/// A service as the config and the operator want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Its name, for messages.
    pub name: String,
    /// VIP and port.
    pub listen: ServiceKey,
    /// How a new conn picks its backend.
    pub scheduler: Scheduler,
    /// How a packet without a conn is refused.
    pub no_conn: Refusal,
    /// How a new conn is refused when no backend takes one.
    pub no_backend: Refusal,
    /// What happens to the conns of a backend that is down.
    pub on_down: OnDown,
    /// Its backends, in the order of the config.
    pub backends: Vec<DesiredBackend>,
}

/// A backend as the config, the operator and the health check want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// Its address.
    pub addr: Ipv4,
    /// Its port.
    pub port: u16,
    /// Its weight; 0 takes no new conns.
    pub weight: u16,
    /// Takes no new conns, keeps the ones it has.
    pub drain: bool,
    /// Found dead.
    pub down: bool,
    /// Most established conns; 0: no limit.
    pub max_conn: u32,
}

impl DesiredBackend {
    fn state(self) -> BackendState {
        match (self.down, self.drain || self.weight == 0) {
            (true, _) => BackendState::Down,
            (false, true) => BackendState::Draining,
            (false, false) => BackendState::Up,
        }
    }
}

/// What the tables hold now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Every service, with the slots of its ring.
    pub services: BTreeMap<ServiceKey, (Service, Vec<RingSlot>)>,
    /// Every backend record; the index is the id.
    pub backends: Vec<Backend>,
    /// Number of service ids.
    pub service_ids: u16,
}

/// The writes that lead to the desired services, in the order in which they must be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Backends whose load and traffic counters start at zero.
    pub new_backends: Vec<u16>,
    /// Backend records.
    pub backends: Vec<(u16, Backend)>,
    /// Services whose round-robin cursor starts at zero.
    pub new_services: Vec<u16>,
    /// Slots, each list from its first index on.
    pub rings: Vec<(u32, Vec<RingSlot>)>,
    /// Service records: the switch.
    pub services: Vec<(ServiceKey, Service)>,
    /// Services to remove.
    pub removed_services: Vec<ServiceKey>,
    /// Backend records to mark as removed, after nothing leads to them any more.
    pub removed_backends: Vec<(u16, Backend)>,
}

impl Plan {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The ids behind the desired services, for those who show or count by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The id of each service, in the order of the config.
    pub services: Vec<u16>,
    /// The ids of the backends of each service, in the order of the config.
    pub backends: Vec<Vec<u16>>,
}

/// Why the desired services cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Two services listen on the same VIP and port.
    SameListen(ServiceKey),
    /// A service lists a backend twice.
    SameBackend {
        /// The service.
        service: String,
        /// The backend.
        addr: Ipv4,
        /// Its port.
        port: u16,
    },
    /// More backends than the packet path compares for lc and wlc.
    LeastConn {
        /// The service.
        service: String,
        /// Its scheduler.
        scheduler: Scheduler,
    },
    /// More services than the table holds.
    Services(u16),
    /// More backends than the table holds, those with leftover conns included.
    Backends(usize),
    /// One service has more backends than a ring holds.
    RingTooSmall(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameListen(key) => write!(f, "two services listen on {}:{}", key.vip, key.port),
            Self::SameBackend { service, addr, port } => {
                write!(f, "service {service:?} lists the backend {addr}:{port} twice")
            }
            Self::LeastConn { service, scheduler } => {
                write!(
                    f,
                    "service {service:?} has more than {MAX_LEAST_CONN} backends, too many for {scheduler}; use wrr"
                )
            }
            Self::Services(limit) => {
                write!(f, "more than {limit} services; raise table.services, then `lb-agent unload` and start again")
            }
            Self::Backends(limit) => write!(
                f,
                "more than {limit} backends, counting removed ones that still have conns; raise table.backends, then \
                 `lb-agent unload` and start again"
            ),
            Self::RingTooSmall(service) => write!(f, "service {service:?} has more than {HALF} backends"),
        }
    }
}

impl std::error::Error for PlanError {}

/// Compares what is desired with what is there.
///
/// # Errors
///
/// The desired services contradict each other, or do not fit the tables. Nothing is to be written then.
pub fn plan(desired: &[DesiredService], present: &Present) -> Result<(Plan, Ids), PlanError> {
    check(desired)?;
    let mut plan = Plan::default();
    let mut ids = Ids::default();
    let mut backends = present.backends.clone();
    let mut wanted = vec![false; backends.len()];
    let mut service_ids = service_ids_in_use(present);
    for service in desired {
        let current = present.services.get(&service.listen);
        let id = match current {
            Some((current, _)) => current.id,
            None => {
                let id = free_service_id(&mut service_ids).ok_or(PlanError::Services(present.service_ids))?;
                plan.new_services.push(id);
                id
            }
        };
        let mut service_backends = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let record = Backend {
                addr: backend.addr,
                port: backend.port,
                service: id,
                weight: backend.weight,
                state: backend.state(),
                on_down: service.on_down,
                max_conn: backend.max_conn,
            };
            let at = place(&record, &backends, &wanted).ok_or(PlanError::Backends(backends.len()))?;
            // `place` answers with an index of `backends`, which has at most 2^16 elements.
            let backend_id = at as u16;
            if backends[at].state == BackendState::Unused {
                plan.new_backends.push(backend_id);
            }
            if backends[at] != record {
                backends[at] = record;
                plan.backends.push((backend_id, record));
            }
            wanted[at] = true;
            service_backends.push(backend_id);
        }
        let slots = slots(service.scheduler, &service_backends, &backends);
        plan_service(&mut plan, service, id, current, slots);
        ids.services.push(id);
        ids.backends.push(service_backends);
    }
    plan.removed_services =
        present.services.keys().filter(|key| desired.iter().all(|d| d.listen != **key)).copied().collect();
    for (at, backend) in backends.iter().enumerate() {
        if !wanted[at] && !matches!(backend.state, BackendState::Unused | BackendState::Removed) {
            plan.removed_backends.push((at as u16, Backend { state: BackendState::Removed, ..*backend }));
        }
    }
    Ok((plan, ids))
}

/// The removed backends that no conn refers to any more: their records become free, their counters zero.
///
/// `conns` gives the number of entries per backend id, from a sweep over all conn tables that **began** after the
/// backends were removed; an id beyond its end has none.
#[must_use]
pub fn reclaim(backends: &[Backend], conns: &[u32]) -> Vec<u16> {
    let unused = |at: usize| conns.get(at).copied().unwrap_or(0) == 0;
    let removed =
        |(at, backend): (usize, &Backend)| (backend.state == BackendState::Removed && unused(at)).then_some(at as u16);
    backends.iter().enumerate().filter_map(removed).collect()
}

/// The record of a free backend id.
pub const FREE: Backend = Backend {
    addr: Ipv4::new([0; 4]),
    port: 0,
    service: 0,
    weight: 0,
    state: BackendState::Unused,
    on_down: OnDown::Rst,
    max_conn: 0,
};

fn check(desired: &[DesiredService]) -> Result<(), PlanError> {
    for (at, service) in desired.iter().enumerate() {
        if desired[..at].iter().any(|other| other.listen == service.listen) {
            return Err(PlanError::SameListen(service.listen));
        }
        let walked = matches!(service.scheduler, Scheduler::Lc | Scheduler::Wlc);
        if walked && service.backends.len() > MAX_LEAST_CONN as usize {
            return Err(PlanError::LeastConn { service: service.name.clone(), scheduler: service.scheduler });
        }
        if service.backends.len() > HALF {
            return Err(PlanError::RingTooSmall(service.name.clone()));
        }
        for (at, backend) in service.backends.iter().enumerate() {
            if service.backends[..at].iter().any(|other| (other.addr, other.port) == (backend.addr, backend.port)) {
                let service = service.name.clone();
                return Err(PlanError::SameBackend { service, addr: backend.addr, port: backend.port });
            }
        }
    }
    Ok(())
}

/// Who uses a service id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    /// Only conns of removed backends still carry it.
    Leftover,
    Service,
}

fn service_ids_in_use(present: &Present) -> Vec<Use> {
    let mut ids = vec![Use::Free; usize::from(present.service_ids)];
    let leftover =
        present.backends.iter().filter(|b| b.state != BackendState::Unused).map(|b| (b.service, Use::Leftover));
    let services = present.services.values().map(|(service, _)| (service.id, Use::Service));
    for (id, user) in leftover.chain(services) {
        if let Some(at) = ids.get_mut(usize::from(id)) {
            *at = user;
        }
    }
    ids
}

fn free_service_id(ids: &mut [Use]) -> Option<u16> {
    // Rather share the id of leftover conns, which only blurs their statistics, than refuse a service.
    let free = [Use::Free, Use::Leftover].iter().find_map(|user| ids.iter().position(|at| at == user))?;
    ids[free] = Use::Service;
    Some(free as u16)
}

/// Where a backend's record is, or goes.
fn place(record: &Backend, backends: &[Backend], wanted: &[bool]) -> Option<usize> {
    let same = |b: &Backend| {
        b.state != BackendState::Unused && (b.service, b.addr, b.port) == (record.service, record.addr, record.port)
    };
    let free = |at: &usize| backends[*at].state == BackendState::Unused && !wanted[*at];
    backends.iter().position(same).or_else(|| (0..backends.len()).find(free))
}

fn slots(scheduler: Scheduler, ids: &[u16], backends: &[Backend]) -> Vec<RingSlot> {
    let candidates: Vec<Candidate> = ids
        .iter()
        .map(|id| (*id, &backends[usize::from(*id)]))
        .filter(|(_, backend)| backend.state == BackendState::Up)
        .map(|(id, backend)| Candidate { id, addr: backend.addr, port: backend.port, weight: backend.weight })
        .collect();
    ring(scheduler, &candidates).into_iter().map(|id| RingSlot { backend: u32::from(id) }).collect()
}

fn plan_service(
    plan: &mut Plan,
    desired: &DesiredService,
    id: u16,
    current: Option<&(Service, Vec<RingSlot>)>,
    slots: Vec<RingSlot>,
) {
    let region = u32::from(id) * RING_SLOTS;
    let ring_start = match current {
        Some((service, present)) if *present == slots => service.ring_start,
        Some((service, _)) if service.ring_start == region => region + HALF as u32,
        _ => region,
    };
    let record = Service {
        id,
        scheduler: desired.scheduler,
        no_conn: desired.no_conn,
        no_backend: desired.no_backend,
        ring_start,
        // A ring is at most HALF slots long.
        ring_len: slots.len() as u32,
        reserved: [0; 3],
    };
    if current.is_none_or(|(_, present)| *present != slots) && !slots.is_empty() {
        plan.rings.push((ring_start, slots));
    }
    if current.is_none_or(|(service, _)| *service != record) {
        plan.services.push((ServiceKey { proto: Proto::Tcp, ..desired.listen }, record));
    }
}

#[cfg(test)]
mod tests;

//! The tables as a plan sees them, and a plan as writes to the tables.
//!
//! Owns the order of the writes: nothing is ever reachable before it is complete, and nothing is taken away before
//! the last way to it is gone. Deciding what to write is `plan`.

use std::collections::BTreeMap;

use lb_common::{
    backend::{Backend, BackendState},
    control::{Control, FILTER_WORDS},
    service::{Cursor, Service, ServiceKey},
};

use super::{
    error::{Error, Result},
    plan::{self, DesiredService, Ids, Plan, Present},
    scan::Scan,
    tables::Tables,
};

/// Reads what the tables hold now.
pub(super) fn present(tables: &Tables) -> Result<Present> {
    let mut services = BTreeMap::new();
    for (key, service) in tables.all_services()? {
        let ring = tables.rings.range(service.ring_start, service.ring_len)?;
        services.insert(key, (service, ring));
    }
    let ids = tables.cursors.capacity().min(tables.rings.capacity() / lb_common::abi::RING_SLOTS);
    Ok(Present {
        services,
        backends: tables.backends.all()?,
        // Ids are 16 bits wide.
        service_ids: u16::try_from(ids).unwrap_or(u16::MAX),
    })
}

impl Tables {
    /// Every service.
    ///
    /// # Errors
    ///
    /// The system call failed.
    pub fn all_services(&self) -> Result<Vec<(ServiceKey, Service)>> {
        let mut found = Vec::new();
        let mut scan = Scan::new();
        while let Some(slice) = scan.next(&self.services)? {
            found.extend_from_slice(slice);
        }
        Ok(found)
    }
}

/// Brings the tables to the desired services. `steer` changes `control`, which others write too.
pub(super) fn apply(
    tables: &Tables,
    desired: &[DesiredService],
    steer: impl Fn(&dyn Fn(&mut Control)) -> Result<()>,
) -> Result<(Plan, Ids)> {
    let before = present(tables)?;
    let (plan, ids) = plan::plan(desired, &before).map_err(|error| Error::Plan(error.to_string()))?;
    for id in &plan.new_backends {
        tables.zero(*id)?;
    }
    for (id, backend) in &plan.backends {
        tables.backends.set(u32::from(*id), backend)?;
    }
    for id in &plan.new_services {
        tables.cursors.set(u32::from(*id), &Cursor { next: 0 })?;
    }
    for (start, slots) in &plan.rings {
        tables.rings.set_range(*start, slots)?;
    }
    let after = tables.backends.all()?;
    let wanted = filter(desired.iter().map(|service| service.listen), &after);
    steer(&|control| {
        for (word, more) in control.filter.iter_mut().zip(wanted) {
            *word |= more;
        }
    })?;
    // Removals first: their places in the table may be needed.
    for key in &plan.removed_services {
        tables.services.remove(key)?;
    }
    for (key, service) in &plan.services {
        tables.services.insert(key, service)?;
    }
    for (id, backend) in &plan.removed_backends {
        tables.backends.set(u32::from(*id), backend)?;
    }
    if plan.backends.iter().any(|(_, backend)| backend.state == BackendState::Down) {
        // The packet path looks at a conn's backend where it looks up the next hop: now, for each of them.
        steer(&Control::new_hops)?;
    }
    Ok((plan, ids))
}

/// Frees the removed backends without conns. `conns` is as for [`plan::reclaim`]; answers the ids that became free.
pub(super) fn reclaim(
    tables: &Tables,
    conns: &[u32],
    steer: impl Fn(&dyn Fn(&mut Control)) -> Result<()>,
) -> Result<Vec<u16>> {
    let mut backends = tables.backends.all()?;
    let freed = plan::reclaim(&backends, conns);
    for id in &freed {
        backends[usize::from(*id)] = plan::FREE;
        tables.backends.set(u32::from(*id), &plan::FREE)?;
        tables.zero(*id)?;
    }
    let leftover = backends.iter().any(|backend| backend.state == BackendState::Removed);
    // Conns of a removed service still need the bit of its VIP, which no table holds any more: the filter shrinks only
    // when the last such conn is gone.
    if !freed.is_empty() && !leftover {
        let exact = filter(tables.all_services()?.into_iter().map(|(key, _)| key), &backends);
        steer(&|control| control.filter = exact)?;
    }
    Ok(freed)
}

fn filter(services: impl Iterator<Item = ServiceKey>, backends: &[Backend]) -> [u64; FILTER_WORDS] {
    let mut control = Control::default();
    services.for_each(|key| control.admit(key.vip, key.port));
    let known = backends.iter().filter(|backend| backend.state != BackendState::Unused);
    known.for_each(|backend| control.admit(backend.addr, backend.port));
    control.filter
}

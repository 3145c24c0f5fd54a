//! The plan's promises: ids that stay, rings that are never rewritten in place, and no change for the same config.

use super::*;
use lb_common::service::Scheduler::{Rr, Wrr};
use proptest::prelude::*;

const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);

fn backend(last: u8, weight: u16) -> DesiredBackend {
    DesiredBackend { addr: Ipv4::new([192, 168, 80, last]), port: 3306, weight, drain: false, down: false, max_conn: 0 }
}

fn service(port: u16, scheduler: Scheduler, backends: &[DesiredBackend]) -> DesiredService {
    DesiredService {
        name: format!("service{port}"),
        listen: ServiceKey::tcp(VIP, port),
        scheduler,
        no_conn: Refusal::Drop,
        no_backend: Refusal::Rst,
        on_down: OnDown::Rst,
        backends: backends.to_vec(),
    }
}

fn empty(service_ids: u16, backends: usize) -> Present {
    Present { services: BTreeMap::new(), backends: vec![FREE; backends], service_ids }
}

/// Does what the plan says, checking that no ring in use is overwritten.
fn apply(present: &mut Present, plan: &Plan) {
    for (id, record) in plan.backends.iter().chain(&plan.removed_backends) {
        present.backends[usize::from(*id)] = *record;
    }
    for (start, slots) in &plan.rings {
        assert!(slots.len() <= HALF && (*start as usize).is_multiple_of(HALF));
        for (service, ring) in present.services.values() {
            let in_use = service.ring_start as usize..service.ring_start as usize + ring.len();
            let written = *start as usize..*start as usize + slots.len();
            assert!(in_use.end <= written.start || written.end <= in_use.start, "ring in use overwritten");
        }
    }
    for (key, service) in &plan.services {
        let written = plan.rings.iter().find(|(start, _)| *start == service.ring_start);
        let slots = match written {
            Some((_, slots)) => slots.clone(),
            None if service.ring_len == 0 => Vec::new(),
            None => present.services[key].1.clone(),
        };
        assert_eq!(slots.len(), service.ring_len as usize);
        present.services.insert(*key, (*service, slots));
    }
    for key in &plan.removed_services {
        present.services.remove(key);
    }
}

fn reach(present: &mut Present, desired: &[DesiredService]) -> Ids {
    let (first, ids) = plan(desired, present).unwrap();
    apply(present, &first);
    let (second, same) = plan(desired, present).unwrap();
    assert!(second.is_empty(), "the same config again changes {second:?}");
    assert_eq!(ids, same);
    ids
}

#[test]
fn a_backend_keeps_its_id_when_others_come_and_go() {
    let mut present = empty(4, 8);
    let ids = reach(&mut present, &[service(3306, Rr, &[backend(1, 1), backend(2, 1)])]);
    assert_eq!(ids.backends, [[0, 1]]);
    let ids = reach(&mut present, &[service(3306, Rr, &[backend(3, 1), backend(2, 1)])]);
    assert_eq!(ids.backends, [[2, 1]]);
    assert_eq!(present.backends[0].state, BackendState::Removed);
    // It returns while conns still refer to its id.
    let ids = reach(&mut present, &[service(3306, Rr, &[backend(1, 1), backend(2, 1)])]);
    assert_eq!(ids.backends, [[0, 1]]);
    assert_eq!(present.backends[2].state, BackendState::Removed);
}

#[test]
fn a_removed_id_is_free_only_without_conns() {
    let mut present = empty(4, 3);
    reach(&mut present, &[service(3306, Rr, &[backend(1, 1), backend(2, 1)])]);
    reach(&mut present, &[service(3306, Rr, &[backend(2, 1)])]);
    assert!(reclaim(&present.backends, &[5, 9]).is_empty());
    assert_eq!(reclaim(&present.backends, &[0, 9]), [0]);
    assert_eq!(reclaim(&present.backends, &[]), [0]);
    // Until then a third and a fourth backend do not both fit.
    let desired = [service(3306, Rr, &[backend(2, 1), backend(3, 1), backend(4, 1)])];
    assert_eq!(plan(&desired, &present), Err(PlanError::Backends(3)));
    present.backends[0] = FREE;
    let (plan, ids) = plan(&desired, &present).unwrap();
    assert_eq!(ids.backends, [[1, 0, 2]]);
    assert_eq!(plan.new_backends, [0, 2]);
}

#[test]
fn a_new_ring_goes_to_the_half_that_is_not_in_use() {
    let mut present = empty(4, 8);
    reach(&mut present, &[service(1, Rr, &[]), service(2, Rr, &[backend(1, 1)])]);
    let key = ServiceKey::tcp(VIP, 2);
    assert_eq!(present.services[&key].0.ring_start, RING_SLOTS);
    reach(&mut present, &[service(1, Rr, &[]), service(2, Rr, &[backend(1, 1), backend(2, 1)])]);
    assert_eq!(present.services[&key].0.ring_start, RING_SLOTS + HALF as u32);
    reach(&mut present, &[service(1, Rr, &[]), service(2, Rr, &[backend(2, 1)])]);
    assert_eq!(present.services[&key].0.ring_start, RING_SLOTS);
}

#[test]
fn drained_dead_and_weightless_backends_leave_the_ring_and_keep_their_record() {
    let mut present = empty(4, 8);
    let (drain, down) =
        (DesiredBackend { drain: true, ..backend(2, 5) }, DesiredBackend { down: true, ..backend(3, 5) });
    reach(&mut present, &[service(1, Wrr, &[backend(1, 1), drain, down, backend(4, 0)])]);
    let (service, ring) = &present.services[&ServiceKey::tcp(VIP, 1)];
    assert_eq!((service.ring_len, ring.as_slice()), (1, [RingSlot { backend: 0 }].as_slice()));
    let states: Vec<_> = present.backends.iter().take(4).map(|backend| backend.state).collect();
    assert_eq!(states, [BackendState::Up, BackendState::Draining, BackendState::Down, BackendState::Draining]);
}

#[test]
fn contradictions_are_refused() {
    let present = empty(1, 8);
    let twice = [service(1, Rr, &[backend(1, 1), backend(1, 2)])];
    assert!(matches!(plan(&twice, &present), Err(PlanError::SameBackend { .. })));
    let same = [service(1, Rr, &[]), service(1, Wrr, &[])];
    assert_eq!(plan(&same, &present), Err(PlanError::SameListen(ServiceKey::tcp(VIP, 1))));
    let long: Vec<_> = (0..65).map(|last| backend(last, 1)).collect();
    assert!(matches!(plan(&[service(1, Scheduler::Wlc, &long)], &present), Err(PlanError::LeastConn { .. })));
    let many = [service(1, Rr, &[]), service(2, Rr, &[])];
    assert_eq!(plan(&many, &present), Err(PlanError::Services(1)));
}

/// Last byte of the address → weight, drain.
type AnyBackends = BTreeMap<u8, (u16, bool)>;

fn any_config() -> impl Strategy<Value = Vec<DesiredService>> {
    let backends = prop::collection::btree_map(1_u8..8, (0_u16..5, any::<bool>()), 0..5);
    let one = (prop::sample::select(Scheduler::ALL), backends);
    prop::collection::btree_map(1_u16..5, one, 0..4).prop_map(|services| {
        let build = |(port, (scheduler, backends)): (u16, (Scheduler, AnyBackends))| {
            let backends: Vec<_> = backends
                .into_iter()
                .map(|(last, (weight, drain))| DesiredBackend { drain, ..backend(last, weight) })
                .collect();
            service(port, scheduler, &backends)
        };
        services.into_iter().map(build).collect()
    })
}

proptest! {
    #[test]
    fn any_sequence_of_configs_ends_in_the_last_one(configs in prop::collection::vec(any_config(), 1..6)) {
        let mut present = empty(16, 64);
        for config in &configs {
            let before = present.backends.clone();
            let ids = reach(&mut present, config);
            prop_assert_eq!(present.services.len(), config.len());
            for (service, ids) in config.iter().zip(&ids.backends) {
                let (record, ring) = &present.services[&service.listen];
                for (backend, id) in service.backends.iter().zip(ids) {
                    let stored = present.backends[usize::from(*id)];
                    prop_assert_eq!((stored.addr, stored.service), (backend.addr, record.id));
                    let in_ring = ring.iter().any(|slot| slot.backend == u32::from(*id));
                    prop_assert_eq!(in_ring, backend.weight > 0 && !backend.drain);
                }
            }
            for (old, new) in before.iter().zip(&present.backends) {
                let rebound = old.state != BackendState::Unused
                    && (old.service, old.addr, old.port) != (new.service, new.addr, new.port);
                prop_assert!(!rebound, "id moved from {:?} to {:?}", old, new);
            }
        }
    }
}

//! Backends that come back get their share step by step.

use super::*;

fn slow() -> Vec<MemberPlan> {
    vec![MemberPlan { slow_start: s(20), ..member(1) }, member(2)]
}

#[test]
fn after_a_recovery_the_share_grows_step_by_step() {
    let mut rig = Rig::new(plan(slow()));
    rig.down(0);
    rig.wait(s(5));
    rig.up(0);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let [(0, cold), (1, warm)] = rig.takers()[..] else { panic!("{:?}", rig.takers()) };
        assert_eq!(warm, 20);
        seen.push(cold);
        assert_eq!(rig.pool.view(rig.now)[0].warm, u32::from(cold) * 5);
        rig.wait(s(1));
    }
    assert_eq!(seen, (1..=20).collect::<Vec<u16>>());
    assert_eq!(rig.takers(), [(0, 1), (1, 1)], "and then all is as before");
    assert!(rig.events().contains(&"Some(0) has its whole share again".to_owned()));
    assert_eq!(rig.pool.poll_timeout(), None);
}

#[test]
fn a_scheduler_without_weights_gets_its_weighted_twin_for_that_time() {
    let mut members = slow();
    members[1].weight = 9;
    let mut rig = Rig::new(PoolPlan { weighted: false, ..plan(members) });
    assert!(!rig.pool.applied.weighted_twin);
    rig.down(0);
    rig.up(0);
    assert!(rig.pool.applied.weighted_twin);
    assert_eq!(rig.takers(), [(0, 1), (1, 20)], "weights that nobody looks at are not looked at");
    rig.wait(s(10));
    assert_eq!(rig.takers(), [(0, 11), (1, 20)]);
    rig.wait(s(10));
    assert!(!rig.pool.applied.weighted_twin);
    assert_eq!(rig.takers(), [(0, 1), (1, 9)]);
}

#[test]
fn big_weights_survive_a_slow_start() {
    let mut members = slow();
    (members[0].weight, members[1].weight) = (65_535, 40_000);
    let mut rig = Rig::new(plan(members));
    rig.down(0);
    rig.up(0);
    assert_eq!(rig.takers(), [(0, 65_535 / 20), (1, 40_000)]);
    rig.wait(s(30));
    assert_eq!(rig.takers(), [(0, 65_535), (1, 40_000)]);
}

#[test]
fn a_backend_that_was_never_down_starts_warm_and_one_that_dies_again_starts_anew() {
    let mut rig = Rig::new(plan(slow()));
    rig.order(0, Order::Disable);
    rig.order(0, Order::Enable);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
    rig.down(0);
    rig.up(0);
    rig.wait(s(10));
    rig.down(0);
    assert_eq!(rig.takers(), [(1, 1)]);
    rig.up(0);
    assert_eq!(rig.takers(), [(0, 1), (1, 20)]);
    // Disabled and enabled after that, it is as cold as a dead one.
    rig.wait(s(30));
    rig.order(0, Order::Disable);
    rig.order(0, Order::Enable);
    assert_eq!(rig.takers(), [(0, 1), (1, 20)]);
}

#[test]
fn a_first_start_has_no_slow_start() {
    #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
    let now = Instant::now();
    let mut rig = Rig { pool: Pool::new(plan(slow()), &[], now), now };
    assert_eq!(rig.takers(), [], "down until the first pass");
    rig.up(0);
    rig.up(1);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
}

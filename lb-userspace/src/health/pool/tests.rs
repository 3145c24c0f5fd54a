//! The life of backends, scene by scene, in virtual time.

mod slow_start;

use super::*;
use crate::health::checker::Trouble;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn member(last: u8) -> MemberPlan {
    MemberPlan {
        address: SocketAddrV4::new([192, 168, 80, last].into(), 3306),
        weight: 1,
        tier: Tier::Primary,
        checked: true,
        slow_start: Duration::ZERO,
        drain_deadline: None,
    }
}

fn backup(last: u8) -> MemberPlan {
    MemberPlan { tier: Tier::Backup, ..member(last) }
}

fn sorry(last: u8) -> MemberPlan {
    MemberPlan { tier: Tier::Sorry, checked: false, ..member(last) }
}

fn plan(members: Vec<MemberPlan>) -> PoolPlan {
    PoolPlan { weighted: true, on_down: OnDown::Rst, disagree_after: s(3), members }
}

struct Rig {
    pool: Pool,
    now: Instant,
}

impl Rig {
    /// All backends are known to be up.
    fn new(plan: PoolPlan) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let now = Instant::now();
        let known = vec![Some(true); plan.members.len()];
        let mut rig = Self { pool: Pool::new(plan, &known, now), now };
        assert!(matches!(rig.actions().as_slice(), [Action::Apply(_)]), "the shares come first");
        rig
    }

    fn give(&mut self, input: Input) {
        self.pool.handle(input, self.now);
    }

    fn health(&mut self, backend: usize, up: bool, full: bool) {
        let health = Health { up, full, trouble: None, cause: "because".into() };
        self.give(Input::Health { backend, health });
    }

    fn down(&mut self, backend: usize) {
        self.health(backend, false, false);
    }

    fn up(&mut self, backend: usize) {
        self.health(backend, true, false);
    }

    fn full(&mut self, backend: usize) {
        self.health(backend, true, true);
    }

    fn order(&mut self, backend: usize, order: Order) {
        self.give(Input::Order { backend, order });
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.pool.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.pool.handle_timeout(self.now);
            assert!(self.pool.poll_timeout().is_none_or(|next| next > self.now), "a timeout that stays due");
        }
        self.now = end;
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.pool.poll_action()).collect()
    }

    fn resets(&mut self) -> Vec<(usize, ResetCause)> {
        let reset = |action| match action {
            Action::Reset { backend, cause } => Some((backend, cause)),
            _ => None,
        };
        self.actions().into_iter().filter_map(reset).collect()
    }

    fn events(&mut self) -> Vec<String> {
        let told = |action| match action {
            Action::Tell(event) => Some(format!("{:?} {event}", event.backend())),
            _ => None,
        };
        self.actions().into_iter().filter_map(told).collect()
    }

    /// Who takes new conns, with which weight.
    fn takers(&self) -> Vec<(usize, u16)> {
        let shares = &self.pool.applied;
        let takes = |(at, share): (usize, &Share)| {
            assert!(!(share.drain && share.down));
            (!share.drain && !share.down && share.weight > 0).then_some((at, share.weight))
        };
        shares.backends.iter().enumerate().filter_map(takes).collect()
    }

    fn states(&self) -> Vec<&'static str> {
        self.pool.view(self.now).iter().map(|view| view.state.name()).collect()
    }
}

#[test]
fn a_dead_backend_loses_new_conns_first_and_its_old_ones_then() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.down(0);
    let actions = rig.actions();
    let apply = actions.iter().position(|action| matches!(action, Action::Apply(_))).unwrap();
    let reset = actions.iter().position(|action| matches!(action, Action::Reset { .. })).unwrap();
    assert!(apply < reset, "{actions:?}");
    assert_eq!(rig.takers(), [(1, 1)]);
    assert_eq!(rig.states(), ["down", "up"]);
    rig.up(0);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
}

#[test]
fn a_backend_that_comes_back_is_told_again_what_it_may_not_have_heard() {
    for (on_down, told) in [(OnDown::Rst, vec![(0, ResetCause::Returned)]), (OnDown::Keep, Vec::new())] {
        let mut rig = Rig::new(PoolPlan { on_down, ..plan(vec![member(167), member(136)]) });
        rig.up(1);
        assert_eq!(rig.resets(), [], "it was never down");
        rig.down(0);
        rig.resets();
        rig.up(0);
        assert_eq!(rig.resets(), told);
    }
}

#[test]
fn conns_stay_where_the_service_says_keep() {
    let mut rig = Rig::new(PoolPlan { on_down: OnDown::Keep, ..plan(vec![member(1), member(2)]) });
    rig.down(0);
    assert_eq!(rig.resets(), []);
    assert_eq!(rig.takers(), [(1, 1)]);
}

#[test]
fn news_that_change_nothing_do_nothing() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.up(0);
    rig.up(1);
    assert_eq!(rig.actions(), []);
    rig.down(0);
    rig.actions();
    let health = Health { up: false, full: false, trouble: None, cause: "another cause".into() };
    rig.give(Input::Health { backend: 0, health });
    assert_eq!(rig.actions(), []);
    rig.give(Input::Health { backend: 9, health: Health { up: true, full: false, trouble: None, cause: "".into() } });
    rig.order(9, Order::Kill);
    rig.give(Input::Peer { backend: 9, up: None });
    assert_eq!(rig.actions(), []);
}

#[test]
fn a_full_backend_takes_no_new_conns_and_keeps_the_old_ones() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.full(0);
    assert_eq!(rig.takers(), [(1, 1)]);
    assert_eq!(rig.states(), ["full", "up"]);
    assert_eq!(rig.resets(), []);
    rig.up(0);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
}

#[test]
fn load_never_takes_the_last_backend_out() {
    let mut rig = Rig::new(plan(vec![member(1), member(2), backup(3)]));
    rig.full(0);
    rig.full(1);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)], "all full: all serve on, and the backup is no reserve for load");
    rig.down(1);
    assert_eq!(rig.takers(), [(0, 1)]);
    rig.order(0, Order::Drain { deadline: None });
    assert_eq!(rig.takers(), [(2, 1)]);
}

#[test]
fn backups_serve_only_when_no_primary_is_left_and_keep_their_conns_afterwards() {
    let mut rig = Rig::new(plan(vec![member(1), member(2), backup(3), sorry(4)]));
    assert_eq!(rig.states(), ["up", "up", "standby", "standby"]);
    rig.down(0);
    assert_eq!(rig.takers(), [(1, 1)]);
    rig.events();
    rig.down(1);
    assert_eq!(rig.takers(), [(2, 1)]);
    assert!(rig.events().contains(&"None new conns go to the backup backends".to_owned()));
    rig.down(2);
    assert_eq!(rig.takers(), [(3, 1)]);
    rig.actions();
    rig.up(0);
    assert_eq!(rig.takers(), [(0, 1)]);
    assert_eq!(rig.resets(), [(0, ResetCause::Returned)], "what runs on the sorry backend goes on");
    assert_eq!(rig.states(), ["up", "down", "down", "standby"]);
}

#[test]
fn with_nobody_left_it_says_so() {
    let mut rig = Rig::new(plan(vec![member(1)]));
    rig.down(0);
    assert_eq!(rig.takers(), []);
    assert!(rig.events().contains(&"None no backend takes new conns".to_owned()));
}

#[test]
fn a_drain_ends_at_its_deadline_for_those_who_are_still_there() {
    let mut rig = Rig::new(plan(vec![member(1), MemberPlan { drain_deadline: Some(s(60)), ..member(2) }]));
    rig.order(0, Order::Drain { deadline: Some(s(10)) });
    assert_eq!(rig.takers(), [(1, 1)]);
    rig.wait(s(9));
    assert_eq!(rig.resets(), []);
    assert_eq!(rig.pool.view(rig.now)[0].deadline, Some(s(1)));
    rig.wait(s(1));
    assert_eq!(rig.resets(), [(0, ResetCause::Deadline)]);
    assert_eq!(rig.states(), ["draining", "up"]);
    rig.order(0, Order::Enable);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);

    // The config's deadline, and one that the operator takes back.
    rig.order(1, Order::Drain { deadline: None });
    rig.wait(s(59));
    rig.order(1, Order::Enable);
    rig.wait(s(600));
    assert_eq!(rig.resets(), []);
}

#[test]
fn a_draining_backend_that_dies_is_down_and_drains_on_when_it_is_back() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.order(0, Order::Drain { deadline: None });
    rig.down(0);
    assert_eq!(rig.states(), ["down", "up"]);
    assert_eq!(rig.resets(), [(0, ResetCause::Down)]);
    rig.up(0);
    assert_eq!(rig.states(), ["draining", "up"]);
    assert_eq!(rig.takers(), [(1, 1)]);
}

#[test]
fn a_disabled_backend_is_out_whatever_the_checks_say() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.order(0, Order::Disable);
    rig.down(0);
    rig.up(0);
    assert_eq!(rig.takers(), [(1, 1)]);
    assert_eq!(rig.states(), ["disabled", "up"]);
    rig.order(0, Order::Enable);
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
}

#[test]
fn kill_resets_at_once_and_changes_nothing_else() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.order(0, Order::Kill);
    assert_eq!(rig.actions(), [Action::Reset { backend: 0, cause: ResetCause::Operator }]);
}

#[test]
fn weights_of_the_operator_win_and_zero_drains() {
    let mut rig = Rig::new(plan(vec![MemberPlan { weight: 3, ..member(1) }, member(2)]));
    assert_eq!(rig.takers(), [(0, 3), (1, 1)]);
    rig.order(0, Order::Weight(Some(7)));
    assert_eq!(rig.takers(), [(0, 7), (1, 1)]);
    rig.order(0, Order::Weight(Some(0)));
    assert_eq!(rig.takers(), [(1, 1)]);
    assert_eq!(rig.states(), ["draining", "up"]);
    rig.order(0, Order::Weight(None));
    assert_eq!(rig.takers(), [(0, 3), (1, 1)]);
}

#[test]
fn only_the_active_director_resets_and_it_makes_up_for_what_it_could_not_do() {
    let mut rig = Rig::new(plan(vec![member(1), member(2), member(3)]));
    rig.give(Input::Active(false));
    rig.down(0);
    rig.order(1, Order::Kill);
    assert_eq!(rig.resets(), []);
    rig.give(Input::Active(true));
    assert_eq!(rig.resets(), [(0, ResetCause::Down)]);
    rig.give(Input::Active(true));
    assert_eq!(rig.resets(), []);
    // What it told in vain it tells again, although another one carries the traffic by then.
    rig.give(Input::Active(false));
    rig.up(0);
    assert_eq!(rig.resets(), [(0, ResetCause::Returned)]);
}

#[test]
fn the_own_verdict_counts_and_a_lasting_difference_is_called_a_fault_of_the_network() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    for backend in 0..2 {
        rig.give(Input::Peer { backend, up: Some(true) });
    }
    assert_eq!(rig.events(), Vec::<String>::new());
    rig.down(0);
    assert_eq!(rig.takers(), [(1, 1)], "what cannot be reached from here cannot serve from here");
    rig.wait(s(2));
    assert!(rig.events().iter().all(|event| !event.contains("here only")));
    rig.wait(s(1));
    assert!(rig.events().iter().any(|event| event.starts_with("Some(0) down from here only")));
    assert_eq!(rig.pool.view(rig.now)[0].agreement, Agreement::DownHereOnly);
    rig.up(0);
    assert!(rig.events().iter().any(|event| event.contains("both directors see it alike")));

    // The other way round nothing changes here.
    rig.give(Input::Peer { backend: 1, up: Some(false) });
    rig.wait(s(3));
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
    assert_eq!(rig.pool.view(rig.now)[1].agreement, Agreement::DownThereOnly);
    rig.events();
    rig.give(Input::Peer { backend: 1, up: None });
    assert_eq!(rig.pool.view(rig.now)[1].agreement, Agreement::Unknown);
}

#[test]
fn a_server_that_really_dies_is_no_difference_though_one_director_notices_first() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    rig.give(Input::Peer { backend: 0, up: Some(true) });
    rig.down(0);
    rig.wait(s(2));
    rig.give(Input::Peer { backend: 0, up: Some(false) });
    rig.wait(s(60));
    assert!(rig.events().iter().all(|event| !event.contains("only")));
}

#[test]
fn trouble_of_the_check_is_told_and_touches_nothing() {
    let mut rig = Rig::new(plan(vec![member(1), member(2)]));
    let with = |trouble| Health { up: true, full: false, trouble, cause: "because".into() };
    let denied = Trouble::CheckUser("ERROR 1045: Access denied".into());
    rig.give(Input::Health { backend: 0, health: with(Some(denied)) });
    let actions = rig.actions();
    let [Action::Tell(event)] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(event.is_bad() && event.to_string().contains("verdict unchanged: ERROR 1045"), "{event}");
    assert_eq!(rig.takers(), [(0, 1), (1, 1)]);
    rig.give(Input::Health { backend: 0, health: with(None) });
    assert_eq!(rig.events(), ["Some(0) the check is no longer hindered"]);
}

#[test]
fn a_backend_without_checks_is_up_for_ever() {
    let mut rig = Rig::new(plan(vec![MemberPlan { checked: false, ..member(1) }]));
    rig.down(0);
    assert_eq!(rig.actions(), []);
    assert_eq!(rig.takers(), [(0, 1)]);
}

/// Random news for five backends: whatever happens, the rules hold.
#[test]
fn the_rules_hold_whatever_happens() {
    let mut state = 7_u64;
    let mut draw = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for _ in 0..300 {
        let slow_start = s(draw(2) * 10);
        let members = [member(1), member(2), member(3), backup(4), backup(5), sorry(6)];
        let members = members.map(|m| MemberPlan { slow_start, ..m }).to_vec();
        let mut rig = Rig::new(PoolPlan { weighted: draw(2) == 0, ..plan(members) });
        for _ in 0..200 {
            let backend = draw(6) as usize;
            match draw(12) {
                0..=2 => rig.up(backend),
                3 | 4 => rig.down(backend),
                5 | 6 => rig.full(backend),
                7 => rig.order(backend, Order::Drain { deadline: Some(s(1 + draw(9))) }),
                8 => rig.order(backend, Order::Disable),
                9 => rig.order(backend, Order::Enable),
                10 => rig.order(backend, Order::Weight((draw(2) == 0).then(|| draw(4) as u16))),
                _ => rig.wait(s(draw(5))),
            }
            let takers = rig.takers();
            let members = &rig.pool.members;
            assert!(takers.iter().all(|(at, _)| members[*at].is_eligible()));
            let eligible: Vec<_> = (0..6).filter(|at| members[*at].is_eligible()).collect();
            assert_eq!(takers.is_empty(), eligible.is_empty());
            let tiers: Vec<Tier> = takers.iter().map(|(at, _)| members[*at].plan.tier).collect();
            assert!(tiers.iter().all(|tier| Some(tier) == eligible.iter().map(|at| &members[*at].plan.tier).min()));
            let someone_has_room = takers.iter().any(|(at, _)| !members[*at].is_full());
            assert!(takers.iter().all(|(at, _)| !someone_has_room || !members[*at].is_full()));
        }
    }
}

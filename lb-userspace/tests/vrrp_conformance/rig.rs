//! A machine with a clock, and the words in which the tests speak about it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use lb_userspace::vrrp::{
    Version,
    interval::Interval,
    machine::{Action, Config, Heard, Input, Machine, Preempt, Promotion, State},
};

pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 100);
pub(crate) const LOWER: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 99);
/// Greater only as an unsigned number: 10.80.1.100 < 10.80.1.200 < 200.0.0.1.
pub(crate) const HIGHER: Ipv4Addr = Ipv4Addr::new(200, 0, 0, 1);

pub(crate) const NEVER: Preempt = Preempt::Never;
pub(crate) const AT_ONCE: Preempt = Preempt::After(Duration::ZERO);

#[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn centis(centis: u16) -> Interval {
    Interval::new(Version::V3, centis).unwrap()
}

pub(crate) fn advert(priority: u8, source: Ipv4Addr, interval: u16) -> Input {
    Input::Advert(Heard { source, priority, interval: centis(interval) })
}

/// A machine with a clock.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) now: Instant,
}

impl Rig {
    pub(crate) fn new(version: Version, priority: u8, preempt: Preempt, promotion: Promotion) -> Self {
        let interval = Interval::SECOND;
        let config = Config { version, priority, address: OURS, interval, preempt, promotion };
        Self { machine: Machine::new(config), now: origin() }
    }

    /// In a state, with nothing left to do.
    pub(crate) fn in_state(version: Version, priority: u8, preempt: Preempt, state: State) -> Self {
        let mut rig = Self::new(version, priority, preempt, Promotion::Free);
        if state != State::Initialize {
            rig.give(Input::Startup);
        }
        if state == State::Active && rig.machine.state() == State::Backup {
            rig.wait(rig.machine.down_interval());
        }
        assert_eq!(rig.machine.state(), state);
        rig.actions();
        rig
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.machine.handle(input, self.now);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }

    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    pub(crate) fn timer(&self) -> Option<Duration> {
        self.machine.poll_timeout().map(|due| due - self.now)
    }
}

pub(crate) fn advertise(priority: u8) -> Action {
    Action::Advertise { priority }
}

pub(crate) fn enter(state: State) -> Action {
    Action::Enter(state)
}

/// Skew and down times of priority 100, in microseconds: 156/256 s, and 3 s more.
pub(crate) const SKEW: u64 = 609_375;
pub(crate) const DOWN: u64 = 3_000_000 + SKEW;

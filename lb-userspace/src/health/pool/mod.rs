//! The backends of one service: who takes new conns, who loses the ones it has, and what happened.
//!
//! Pure. [`shares`] says who takes how much; [`member`] holds what is known of one backend. Neither the checks nor the
//! conns are here: health comes in, and what is to be done with maps and conns goes out.

mod event;
mod member;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use lb_common::service::OnDown;

pub use event::{Event, ResetCause};
pub use member::{Agreement, MemberPlan, MemberView, Share, State, Tier};
pub use shares::Shares;

use super::checker::Health;
use member::{Admin, Member};

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No new conns; those that are left after `deadline` are reset. `None`: as the config says.
    Drain {
        /// From now.
        deadline: Option<Duration>,
    },
    /// No new conns, and out of everything until [`Order::Enable`].
    Disable,
    /// Back to work, from `drain` or `disable`.
    Enable,
    /// Reset all its conns now.
    Kill,
    /// Another weight than the config's; `None`: the config's.
    Weight(Option<u16>),
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The checks think otherwise now.
    Health {
        /// Of which backend.
        backend: usize,
        /// What they think.
        health: Health,
    },
    /// What the other director's checks think; `None`: it does not say.
    Peer {
        /// Of which backend.
        backend: usize,
        /// It is up, seen from there.
        up: Option<bool>,
    },
    /// The operator has spoken.
    Order {
        /// About which backend.
        backend: usize,
        /// What is wanted.
        order: Order,
    },
    /// This director carries the traffic, or does not any more. Only who carries it resets conns, and makes sure later
    /// that they are.
    Active(bool),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The shares are these now, all of them.
    Apply(Shares),
    /// Reset both ends of every conn of a backend; with [`ResetCause::Returned`], only those ends at the backend that
    /// were told before, and maybe in vain.
    Reset {
        /// Which one.
        backend: usize,
        /// Why.
        cause: ResetCause,
    },
    /// Tell logs and hooks.
    Tell(Event),
}

/// The plan of a service's pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// The scheduler looks at weights.
    pub weighted: bool,
    /// What happens to the conns of a backend that is down.
    pub on_down: OnDown,
    /// How long the two directors may see a backend differently until it is said: they do not check at the same moment.
    pub disagree_after: Duration,
    /// The backends, in the order of the config.
    pub members: Vec<MemberPlan>,
}

/// The backends of one service.
#[derive(Clone, Debug)]
pub struct Pool {
    plan: PoolPlan,
    members: Vec<Member>,
    active: bool,
    tier: Option<Tier>,
    applied: Shares,
    actions: VecDeque<Action>,
}

impl Pool {
    /// A pool that begins now. `known` gives what an earlier agent thought of each backend; a backend that is not
    /// checked is always up. The first thing to do is [`Action::Apply`].
    #[must_use]
    pub fn new(plan: PoolPlan, known: &[Option<bool>], now: Instant) -> Self {
        let known = |at: usize| known.get(at).copied().flatten();
        let members = plan.members.iter().enumerate().map(|(at, m)| Member::new(m.clone(), known(at), now));
        let members: Vec<Member> = members.collect();
        let (applied, tier) = shares::shares(&members, plan.weighted, now);
        let actions = VecDeque::from([Action::Apply(applied.clone())]);
        Self { plan, members, active: true, tier, applied, actions }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Health { backend, health } => self.health(backend, health, now),
            Input::Peer { backend, up } => {
                if let Some(member) = self.members.get_mut(backend) {
                    member.peer = up;
                    member.compare(now);
                }
            }
            Input::Order { backend, order } => self.order(backend, order, now),
            Input::Active(active) => {
                let takes_over = active && !self.active;
                self.active = active;
                if takes_over {
                    // Their conns came with the sync, and nobody could tell their clients.
                    for backend in 0..self.members.len() {
                        if !self.members[backend].is_up() {
                            self.reset_dead(backend, ResetCause::Down);
                        }
                    }
                }
            }
        }
        self.handle_timeout(now);
    }

    /// Does what is due: deadlines, steps of a slow start, disagreements that last.
    pub fn handle_timeout(&mut self, now: Instant) {
        for backend in 0..self.members.len() {
            let member = &mut self.members[backend];
            if member.deadline.is_some_and(|at| at <= now) {
                member.deadline = None;
                self.reset(backend, ResetCause::Deadline);
            }
            let member = &mut self.members[backend];
            if member.ramp.is_some_and(|ramp| ramp.is_over(now)) {
                member.ramp = None;
                self.actions.push_back(Action::Tell(Event::Warm { backend }));
            }
            if let Some(agreement) = self.members[backend].settle(now, self.plan.disagree_after) {
                self.actions.push_back(Action::Tell(Event::Agreement { backend, agreement }));
            }
        }
        self.share(now);
    }

    /// When [`Self::handle_timeout`] must be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.next(self.plan.disagree_after)).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What is known of each backend, in the order of the config.
    #[must_use]
    pub fn view(&self, now: Instant) -> Vec<MemberView> {
        let share = |at: usize| self.applied.backends.get(at).copied();
        self.members.iter().enumerate().map(|(at, member)| member.view(share(at), now)).collect()
    }

    /// The shares that are in force.
    #[must_use]
    pub const fn shares(&self) -> &Shares {
        &self.applied
    }

    /// Each backend, in the order of the config, and whether the own checks say that it is up; `None`: not checked.
    pub fn verdicts(&self) -> impl Iterator<Item = (SocketAddrV4, Option<bool>)> + '_ {
        self.members.iter().map(|member| (member.plan.address, member.health.as_ref().map(|health| health.up)))
    }

    fn health(&mut self, backend: usize, health: Health, now: Instant) {
        let Some(member) = self.members.get_mut(backend) else { return };
        let Some(before) = member.health.replace(health.clone()) else {
            // Not checked, by the plan: whoever says something about it is mistaken.
            member.health = None;
            return;
        };
        let actions = &mut self.actions;
        let mut tell = |event| actions.push_back(Action::Tell(event));
        if before.trouble != health.trouble {
            tell(Event::Trouble { backend, trouble: health.trouble.clone() });
        }
        let mut returned = false;
        match (before.up, health.up) {
            (false, true) => {
                returned = member.recovered;
                let slow = member.begin_ramp(now);
                tell(Event::Up { backend, cause: health.cause.clone(), slow });
            }
            (true, false) => {
                member.ramp = None;
                tell(Event::Down { backend, cause: health.cause.clone() });
            }
            _ => {}
        }
        if health.up && before.full != health.full {
            tell(Event::Full { backend, full: health.full });
        }
        if before.up != health.up {
            member.since = now;
            member.recovered = true;
            member.compare(now);
            if before.up {
                self.reset_dead(backend, ResetCause::Down);
            } else if returned {
                self.reset_dead(backend, ResetCause::Returned);
            }
        }
    }

    fn order(&mut self, backend: usize, order: Order, now: Instant) {
        let Some(member) = self.members.get_mut(backend) else { return };
        match order {
            Order::Drain { deadline } => {
                let deadline = deadline.or(member.plan.drain_deadline);
                member.admin = Admin::Draining;
                member.deadline = deadline.map(|after| now + after);
                member.since = now;
                self.actions.push_back(Action::Tell(Event::Draining { backend, deadline }));
            }
            Order::Disable => {
                if member.admin != Admin::Disabled {
                    member.since = now;
                    self.actions.push_back(Action::Tell(Event::Disabled { backend }));
                }
                member.admin = Admin::Disabled;
                member.deadline = None;
            }
            Order::Enable => {
                if member.admin != Admin::Enabled {
                    // It may be as cold as one that was dead.
                    if member.admin == Admin::Disabled {
                        member.begin_ramp(now);
                    }
                    member.since = now;
                    self.actions.push_back(Action::Tell(Event::Enabled { backend }));
                }
                member.admin = Admin::Enabled;
                member.deadline = None;
            }
            Order::Kill => self.reset(backend, ResetCause::Operator),
            Order::Weight(weight) => member.weight = weight,
        }
    }

    fn reset_dead(&mut self, backend: usize, cause: ResetCause) {
        if self.plan.on_down == OnDown::Rst {
            self.reset(backend, cause);
        }
    }

    fn reset(&mut self, backend: usize, cause: ResetCause) {
        // Whoever told a dead backend's ends has to tell them again, whatever it has become meanwhile: nobody else knows them.
        if self.active || cause == ResetCause::Returned {
            self.actions.push_back(Action::Reset { backend, cause });
        }
    }

    fn share(&mut self, now: Instant) {
        let (shares, tier) = shares::shares(&self.members, self.plan.weighted, now);
        for member in &mut self.members {
            member.stepped = now;
        }
        if self.applied != shares {
            // Resets come after it: a client that reconnects at once must not meet the dead backend again.
            let at = self.actions.iter().position(|action| matches!(action, Action::Reset { .. }));
            self.actions.insert(at.unwrap_or(self.actions.len()), Action::Apply(shares.clone()));
            self.applied = shares;
        }
        if self.tier != tier {
            self.actions.push_back(Action::Tell(Event::Tier { tier }));
            self.tier = tier;
        }
    }
}

//! The gate before preemption: a director whose connections are not synchronised leaves the peer in peace.
//!
//! Bounded: after its time, the director takes part as it is, and an alarm says so. It holds back nobody whose peer is
//! gone: a director with some of the connections is better than none. An Active whose peer was Active, too, waits for the
//! gate with its gratuitous ARP only, see `transition`.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// What the sync says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateState {
    /// Synchronised, or there is nothing to wait for.
    Open,
    /// Not yet.
    Closed {
        /// Why, for people.
        reason: Cow<'static, str>,
        /// The longest time to wait, from the first closing on.
        bound: Duration,
    },
}

/// The gate and its bound.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    state: GateState,
    until: Option<Instant>,
}

impl Gate {
    pub(super) const fn open() -> Self {
        Self { state: GateState::Open, until: None }
    }

    pub(super) fn set(&mut self, state: GateState, now: Instant) {
        self.until = match &state {
            GateState::Open => None,
            GateState::Closed { bound, .. } => self.until.or_else(|| Some(now + *bound)),
        };
        self.state = state;
    }

    /// Why preemption has to wait.
    pub(super) fn holds(&self, now: Instant) -> Option<&str> {
        match &self.state {
            GateState::Closed { reason, .. } if self.until.is_some_and(|until| now < until) => Some(reason),
            _ => None,
        }
    }

    /// It is closed still, but its time is over.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The sync says that conns are missing, for however long.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, GateState::Closed { .. })
    }

    pub(super) const fn state(&self) -> &GateState {
        &self.state
    }

    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }
}

//! The checks of one backend: when the next one runs, and what all of them together say about its health.
//!
//! Pure. Whoever drives it runs a check when told to, and hands over the [`Outcome`] within the time it was given.
//! What becomes of a backend's conns is `pool`'s business.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    cadence::{Cadence, Jitter},
    history::History,
    outcome::{Fault, Outcome},
    plan::Facts,
};

/// What keeps the check from seeing the server, though the server may be well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server refuses this director's host: ERROR 1129. The text names the remedy.
    Blocked(String),
    /// The check user or its statement does not work.
    CheckUser(String),
    /// This director cannot make the check.
    Unmade(String),
}

impl Trouble {
    /// What it is, in a sentence.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Blocked(text) | Self::CheckUser(text) | Self::Unmade(text) => text,
        }
    }
}

/// The health of a backend, seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// It serves.
    pub up: bool,
    /// It takes no more conns for now.
    pub full: bool,
    /// The check is hindered; `up` is what was last known.
    pub trouble: Option<Trouble>,
    /// Why it is not up; what was said with the last change otherwise.
    pub cause: String,
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The check that [`Action::Check`] asked for has ended.
    Finished {
        /// What it found.
        outcome: Outcome,
        /// How long it took.
        latency: Duration,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a check that takes no longer than this.
    Check {
        /// The limit.
        timeout: Duration,
        /// Log in anew even if there is a connection: whether the server takes new ones is the question.
        relogin: bool,
    },
    /// The health has changed.
    Changed(Health),
    /// The server said something new about itself.
    Learned(Facts),
}

/// The checks of one backend.
#[derive(Clone, Debug)]
pub struct Checker {
    cadence: Cadence,
    jitter: Jitter,
    health: Health,
    /// No check has counted yet: one is enough to know.
    unknown: bool,
    passes: u32,
    fails: u32,
    /// When the check that runs has begun.
    running: Option<Instant>,
    next: Instant,
    late: Duration,
    facts: Option<Facts>,
    history: History,
    actions: VecDeque<Action>,
}

impl Checker {
    /// The checks of a backend that begin at once. `known` is what an earlier agent thought of it; without, it is down
    /// until the first pass. Different seeds keep the checks of many backends apart.
    #[must_use]
    pub fn new(cadence: Cadence, known: Option<bool>, seed: u64, now: Instant) -> Self {
        let mut jitter = Jitter::new(seed);
        let next = now + jitter.part(cadence.fastinter.min(cadence.inter), 20);
        let cause = match known {
            Some(_) => "as the last agent left it",
            None => "not checked yet",
        };
        let up = known.unwrap_or(false);
        Self {
            cadence,
            jitter,
            health: Health { up, full: false, trouble: None, cause: cause.into() },
            unknown: known.is_none(),
            passes: 0,
            fails: 0,
            running: None,
            next,
            late: Duration::ZERO,
            facts: None,
            history: History::default(),
            actions: VecDeque::new(),
        }
    }

    /// What is known now.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The last checks.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// How late a check has come at most.
    #[must_use]
    pub const fn lateness(&self) -> Duration {
        self.late
    }

    /// Failures in a row of an up backend, or passes in a row of one that is not, and how many it takes.
    #[must_use]
    pub const fn progress(&self) -> (u32, u32) {
        if self.health.up { (self.fails, self.cadence.fall) } else { (self.passes, self.needed()) }
    }

    const fn needed(&self) -> u32 {
        if self.unknown { 1 } else { self.cadence.rise }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let Input::Finished { outcome, latency } = input;
        let Some(began) = self.running.take() else { return };
        self.history.note(&outcome, latency, now);
        let before = self.health.clone();
        self.judge(outcome);
        if before != self.health {
            self.actions.push_back(Action::Changed(self.health.clone()));
        }
        let interval = self.jitter.shorten(self.interval(), self.cadence.jitter);
        self.next = (began + interval).max(now);
    }

    /// Starts a check if one is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.running.is_some() || now < self.next {
            return;
        }
        self.late = self.late.max(now - self.next);
        self.running = Some(now);
        let hurry = self.health.up && self.fails > 0;
        let Cadence { timeout, fastinter, .. } = self.cadence;
        self.actions.push_back(Action::Check {
            timeout: if hurry { timeout.min(fastinter) } else { timeout },
            relogin: self.health.full,
        });
    }

    /// When [`Self::handle_timeout`] must be called next; `None` while a check runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.is_none().then_some(self.next)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn interval(&self) -> Duration {
        let Cadence { inter, fastinter, downinter, .. } = self.cadence;
        match (self.health.up, self.health.full) {
            (true, true) => fastinter,
            (true, false) if self.fails > 0 => fastinter,
            (true, false) => inter,
            (false, _) if self.passes > 0 => fastinter,
            (false, _) => downinter,
        }
    }

    fn judge(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Pass(facts) => {
                self.health.trouble = None;
                self.alive();
                // The way out of `full` is as long as the way up: near the limit every free slot is news.
                if self.health.full && self.passes >= self.cadence.rise {
                    self.health.full = false;
                    self.health.cause = "has room again".into();
                }
                if let Some(facts) = facts
                    && self.facts.as_ref() != Some(&facts)
                {
                    self.facts = Some(facts.clone());
                    self.actions.push_back(Action::Learned(facts));
                }
            }
            Outcome::Full => {
                let text = Outcome::Full.text();
                self.health.trouble = None;
                self.alive();
                // It answers, so it lives; but nothing of this counts as room.
                if self.health.up {
                    self.passes = 0;
                    if !self.health.full {
                        self.health.full = true;
                        self.health.cause = text;
                    }
                }
            }
            Outcome::Fail(fault) => self.dead(&fault),
            // Says nothing about the server: no verdict, and no way towards one.
            Outcome::Blocked(text) => self.health.trouble = Some(Trouble::Blocked(text)),
            Outcome::CheckUser(text) => self.health.trouble = Some(Trouble::CheckUser(text)),
            Outcome::Unmade(text) => self.health.trouble = Some(Trouble::Unmade(text)),
        }
    }

    fn alive(&mut self) {
        self.fails = 0;
        self.passes = self.passes.saturating_add(1);
        if !self.health.up && self.passes >= self.needed() {
            self.health.up = true;
            self.health.cause = if self.unknown { "the first check passed" } else { "checks pass again" }.into();
        }
        if self.health.up {
            self.unknown = false;
        }
    }

    fn dead(&mut self, fault: &Fault) {
        self.passes = 0;
        self.unknown = false;
        self.health.trouble = None;
        if !self.health.up {
            // Why it is still down is more useful than why it once went.
            self.health.cause = fault.to_string();
            return;
        }
        self.fails += 1;
        if self.fails >= self.cadence.fall {
            self.fails = 0;
            self.health = Health { up: false, full: false, trouble: None, cause: fault.to_string() };
        }
    }
}

//! The state machine of one virtual router: RFC 9568 §6.4, RFC 3768 §6.4, row by row.
//!
//! Pure: inputs and the time go in, actions come out. On its own ([`Promotion::Free`]) it is a plain VRRP router. As a
//! transport of a group ([`Promotion::Held`]) it does the same, except that it reports that it [`wants`](Machine::wants)
//! to be Active and waits for [`Input::Promote`]: whether all of them go is for [`crate::ha`] to say.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{PRIORITY_OWNER, PRIORITY_RESIGN, Version, interval::Interval, packet::Advert};

/// An Active answers a losing advert at once, but not more often than this part of its interval: two routers that both
/// believe they win must not answer each other's answers.
const ANSWERS_PER_INTERVAL: u32 = 8;

/// The parameters of a virtual router (RFC 9568 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Decides what an interval mismatch means and how long the skew is.
    pub version: Version,
    /// 1 to 254; 255 if we own the addresses.
    pub priority: u8,
    /// Our primary address on the interface.
    pub address: Ipv4Addr,
    /// The pause between our adverts.
    pub interval: Interval,
    /// Whether to take over from an Active of lower priority.
    pub preempt: Preempt,
    /// Who decides about taking over.
    pub promotion: Promotion,
}

/// What a Backup does about an Active of lower priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// Leaves it in peace, until it is gone.
    Never,
    /// Takes over when it has seen it for this long; zero: as the RFC says.
    After(Duration),
}

/// Who decides about taking over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// The machine itself, as the RFC says.
    Free,
    /// The group.
    Held,
}

/// The states of RFC 9568 §6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes no part.
    Initialize,
    /// Listens.
    Backup,
    /// Holds the addresses and sends adverts.
    Active,
}

/// What may happen to a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// It shall take part.
    Startup,
    /// It shall stop: an Active says so with priority 0.
    Shutdown,
    /// An advert was received.
    Advert(Heard),
    /// The group takes over.
    Promote,
    /// The group gives up without a word, because a better router is there.
    Yield,
    /// The group gives up and says so, with priority 0, and stays as a Backup.
    Resign,
}

/// What counts of an advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The sender.
    pub source: Ipv4Addr,
    /// 0: the sender gives up.
    pub priority: u8,
    /// The sender's interval.
    pub interval: Interval,
}

impl From<&Advert> for Heard {
    fn from(advert: &Advert) -> Self {
        Self { source: advert.source, priority: advert.priority, interval: advert.interval }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an advert.
    Advertise {
        /// Our priority, or 0.
        priority: u8,
    },
    /// Send gratuitous ARP for every virtual address.
    Announce,
    /// The state has changed.
    Enter(State),
}

/// Why a Backup would take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// Nobody sends adverts.
    Silence,
    /// The Active has given up.
    Resigned,
    /// The Active has a lower priority than we.
    Preempt,
    /// The addresses are ours.
    Owner,
}

/// Who wins against whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// We are the better router.
    Ours,
    /// The sender is.
    Theirs,
}

/// How equal priorities are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieBreak {
    /// The greater address wins (RFC 9568 §6.4.3).
    Address,
    /// The group has decided, so that all its machines agree.
    Decided(Rank),
}

/// One virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    config: Config,
    state: State,
    /// Active_Adver_Interval: the Active's interval as far as we know.
    active_interval: Interval,
    /// Active_Down_Timer of a Backup, Adver_Timer of an Active.
    timer: Option<Instant>,
    want: Option<Want>,
    tie_break: TieBreak,
    may_preempt: bool,
    /// The Active has given up; the Active_Down_Timer runs for the skew time only.
    resigned: bool,
    /// Since when an Active of lower priority is there.
    outranked_since: Option<Instant>,
    /// The last advert that was discarded in order to preempt.
    discarded: Option<Instant>,
    answered: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A virtual router that takes no part yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Initialize,
            active_interval: config.interval,
            timer: None,
            want: None,
            tie_break: TieBreak::Address,
            may_preempt: true,
            resigned: false,
            outranked_since: None,
            discarded: None,
            answered: None,
            actions: VecDeque::with_capacity(8),
        }
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Its parameters.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The interval of the Active, as far as it is known.
    #[must_use]
    pub const fn active_interval(&self) -> Interval {
        self.active_interval
    }

    /// The skew time for the Active's interval.
    #[must_use]
    pub fn skew(&self) -> Duration {
        self.active_interval.skew(self.config.version, self.config.priority)
    }

    /// How long silence lasts until the Active counts as gone.
    #[must_use]
    pub fn down_interval(&self) -> Duration {
        self.active_interval.down(self.config.version, self.config.priority)
    }

    /// A Backup has heard the Active give up, and nobody since.
    #[must_use]
    pub const fn has_resigned(&self) -> bool {
        self.resigned
    }

    /// Why it would take over, if the group let it.
    #[must_use]
    pub fn wants(&self) -> Option<Want> {
        self.want.filter(|want| *want != Want::Preempt || self.may_preempt)
    }

    /// Forbids or allows preemption, on top of the config.
    pub fn allow_preempt(&mut self, allowed: bool) {
        self.may_preempt = allowed;
    }

    /// Says who wins between equal priorities.
    pub fn set_tie_break(&mut self, tie_break: TieBreak) {
        self.tie_break = tie_break;
    }

    /// Decides between us and the sender of an advert (RFC 9568 §6.4.3).
    #[must_use]
    pub fn rank(&self, heard: &Heard) -> Rank {
        let theirs = match (heard.priority.cmp(&self.config.priority), self.tie_break) {
            (std::cmp::Ordering::Equal, TieBreak::Decided(rank)) => return rank,
            (std::cmp::Ordering::Equal, TieBreak::Address) => heard.source > self.config.address,
            (order, _) => order.is_gt(),
        };
        if theirs { Rank::Theirs } else { Rank::Ours }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match (self.state, input) {
            (State::Initialize, Input::Startup) => self.startup(now),
            (State::Initialize, _) | (_, Input::Startup) => {}
            (State::Backup, Input::Shutdown) => self.enter(State::Initialize, None),
            (State::Backup, Input::Advert(heard)) => self.advert_in_backup(heard, now),
            (State::Backup, Input::Promote) => self.become_active(now),
            (State::Backup, Input::Yield | Input::Resign) | (State::Active, Input::Promote) => {}
            (State::Active, Input::Shutdown) => {
                self.actions.push_back(Action::Advertise { priority: PRIORITY_RESIGN });
                self.enter(State::Initialize, None);
            }
            (State::Active, Input::Advert(heard)) => self.advert_in_active(heard, now),
            (State::Active, Input::Yield) => self.become_backup(self.config.interval, now),
            (State::Active, Input::Resign) => {
                self.actions.push_back(Action::Advertise { priority: PRIORITY_RESIGN });
                self.become_backup(self.config.interval, now);
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_none_or(|due| due > now) {
            return;
        }
        match self.state {
            State::Initialize => self.timer = None,
            State::Backup => match self.config.promotion {
                Promotion::Free => self.become_active(now),
                Promotion::Held => {
                    self.timer = None;
                    self.want = Some(self.why(now));
                }
            },
            State::Active => {
                self.actions.push_back(Action::Advertise { priority: self.config.priority });
                self.timer = Some(now + self.config.interval.duration());
            }
        }
    }

    /// When [`Self::handle_timeout`] must be called next.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Does nothing of its own accord before `until`: the timers have not run as they should.
    pub fn postpone(&mut self, until: Instant) {
        self.want = None;
        if self.state != State::Initialize {
            self.timer = Some(self.timer.map_or(until, |due| due.max(until)));
        }
    }

    /// An Active sends its next advert now.
    pub fn hasten(&mut self, now: Instant) {
        if self.state == State::Active {
            self.timer = Some(now);
        }
    }

    // RFC 9568 §6.4.1
    fn startup(&mut self, now: Instant) {
        let owner = self.config.priority == PRIORITY_OWNER;
        if owner && self.config.promotion == Promotion::Free {
            self.become_active(now);
            return;
        }
        self.become_backup(self.config.interval, now);
        if owner {
            self.timer = None;
            self.want = Some(Want::Owner);
        }
    }

    // RFC 9568 §6.4.2, "If an ADVERTISEMENT is received"
    fn advert_in_backup(&mut self, heard: Heard, now: Instant) {
        if heard.priority == PRIORITY_RESIGN {
            self.resigned = true;
            self.want = None;
            self.timer = Some(now + self.skew());
            return;
        }
        if heard.priority >= self.config.priority {
            self.outranked_since = None;
        } else if self.preempts(now) {
            // Discarded: the timer runs on.
            self.discarded = Some(now);
            self.want = self.want.map(|_| Want::Preempt);
            return;
        }
        self.listen(heard.interval, now);
    }

    // RFC 9568 §6.4.3, "If an ADVERTISEMENT is received"
    fn advert_in_active(&mut self, heard: Heard, now: Instant) {
        if heard.priority == PRIORITY_RESIGN {
            self.actions.push_back(Action::Advertise { priority: self.config.priority });
            self.timer = Some(now + self.config.interval.duration());
            return;
        }
        if self.rank(&heard) == Rank::Theirs {
            self.become_backup(heard.interval, now);
            return;
        }
        let pause = self.config.interval.duration() / ANSWERS_PER_INTERVAL;
        if self.answered.is_none_or(|last| now.saturating_duration_since(last) >= pause) {
            self.answered = Some(now);
            self.actions.push_back(Action::Advertise { priority: self.config.priority });
        }
    }

    /// An Active of lower priority is there: tells whether to displace it.
    fn preempts(&mut self, now: Instant) -> bool {
        let delay = match self.config.preempt {
            // RFC 9568 §6.1: an owner always preempts.
            _ if self.config.priority == PRIORITY_OWNER => return true,
            Preempt::Never => return false,
            Preempt::After(delay) => delay,
        };
        let since = *self.outranked_since.get_or_insert(now);
        self.may_preempt && now.saturating_duration_since(since) >= delay
    }

    /// The Active_Down_Timer has run out: why?
    fn why(&self, now: Instant) -> Want {
        let lately = |at: Instant| now.saturating_duration_since(at) < self.down_interval();
        if self.resigned {
            Want::Resigned
        } else if self.discarded.is_some_and(lately) {
            Want::Preempt
        } else {
            Want::Silence
        }
    }

    fn become_active(&mut self, now: Instant) {
        self.actions.push_back(Action::Advertise { priority: self.config.priority });
        self.actions.push_back(Action::Announce);
        self.enter(State::Active, Some(now + self.config.interval.duration()));
    }

    fn become_backup(&mut self, interval: Interval, now: Instant) {
        self.enter(State::Backup, None);
        self.listen(interval, now);
    }

    /// Waits for the next advert of an Active with this interval.
    fn listen(&mut self, interval: Interval, now: Instant) {
        self.active_interval = match self.config.version {
            // All intervals are equal, or the advert would not have got here.
            Version::V2 => self.config.interval,
            Version::V3 => interval,
        };
        self.resigned = false;
        self.want = None;
        self.timer = Some(now + self.down_interval());
    }

    fn enter(&mut self, state: State, timer: Option<Instant>) {
        self.state = state;
        self.timer = timer;
        self.want = None;
        self.resigned = false;
        self.outranked_since = None;
        self.discarded = None;
        self.answered = None;
        self.actions.push_back(Action::Enter(state));
    }
}

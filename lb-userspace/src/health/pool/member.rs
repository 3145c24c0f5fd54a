//! What is known of one backend: plan, health, the operator's will, slow start, and what the peer thinks.

use std::{
    fmt,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use crate::health::checker::Health;

/// What the packet path is to do with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its weight among those that take new conns.
    pub weight: u16,
    /// It takes no new conns.
    pub drain: bool,
    /// It is dead.
    pub down: bool,
}

/// Steps of a slow start.
pub(super) const STEPS: u32 = 20;

/// Who takes new conns first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Always.
    #[default]
    Primary,
    /// Only when no primary is left.
    Backup,
    /// Only when nobody else is left: to say sorry. Never checked.
    Sorry,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::Sorry => "sorry",
        })
    }
}

/// A backend as the config has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// The server.
    pub address: SocketAddrV4,
    /// Its share; 0 drains it.
    pub weight: u16,
    /// When it takes new conns.
    pub tier: Tier,
    /// There are checks of it. Without, it is always up.
    pub checked: bool,
    /// How long it takes after a recovery until it has its whole share; zero: at once.
    pub slow_start: Duration,
    /// After how long a drain resets what is left, unless the operator says otherwise.
    pub drain_deadline: Option<Duration>,
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    Enabled,
    Draining,
    Disabled,
}

/// What the two directors think of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agreement {
    /// The peer does not say.
    Unknown,
    /// The same.
    Same,
    /// Only this director cannot reach it: a fault of the network, not of the server.
    DownHereOnly,
    /// Only the peer cannot reach it.
    DownThereOnly,
}

impl Agreement {
    /// The word for a difference; `None`: there is none.
    #[must_use]
    pub const fn difference(self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::Same => None,
            Self::DownHereOnly => Some("down-here-only"),
            Self::DownThereOnly => Some("down-there-only"),
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "the other director says nothing about it",
            Self::Same => "both directors see it alike",
            Self::DownHereOnly => {
                "down from here only: the other director reaches it, so look at the network of this one"
            }
            Self::DownThereOnly => "down from the other director only, so look at the network there",
        })
    }
}

/// The state of a backend, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes new conns.
    Up,
    /// Could take new conns, but others come first.
    Standby,
    /// Takes none while others have room.
    Full,
    /// Takes none, keeps what it has.
    Draining,
    /// Out, by the operator's will.
    Disabled,
    /// Dead.
    Down,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Standby => "standby",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Down => "down",
        }
    }
}

/// What there is to show of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The server.
    pub address: SocketAddrV4,
    /// Its state.
    pub state: State,
    /// How long it has been up or down, or drained, or disabled.
    pub since: Duration,
    /// When it takes new conns.
    pub tier: Tier,
    /// What the checks think; none: not checked.
    pub health: Option<Health>,
    /// Something was known of its health before the first check.
    pub was_known: bool,
    /// How much of its share it gets after a recovery, in percent.
    pub warm: u32,
    /// When what is left of a drain is reset.
    pub deadline: Option<Duration>,
    /// What the peer's checks think of it now; none: it does not say.
    pub peer: Option<bool>,
    /// Whether both think the same, apart from differences that do not last.
    pub agreement: Agreement,
}

/// A slow start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    begin: Instant,
    length: Duration,
}

impl Ramp {
    /// From 1 to [`STEPS`].
    pub(super) fn step(self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.begin);
        // At most STEPS, before the cast.
        let step = (passed.as_micros() * u128::from(STEPS) / self.length.as_micros().max(1)).min(STEPS.into()) as u32;
        (step + 1).min(STEPS)
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        now >= self.begin + self.length
    }

    fn next(self) -> impl Iterator<Item = Instant> {
        (1..=STEPS).map(move |step| self.begin + self.length * step / STEPS)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) plan: MemberPlan,
    /// None: not checked.
    pub(super) health: Option<Health>,
    pub(super) admin: Admin,
    pub(super) weight: Option<u16>,
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) ramp: Option<Ramp>,
    /// When the shares were last computed.
    pub(super) stepped: Instant,
    /// An earlier agent left word of it.
    was_known: bool,
    /// It has been down since this agent knows it.
    pub(super) recovered: bool,
    pub(super) peer: Option<bool>,
    agreement: Agreement,
    /// Since when the directors see it otherwise than `agreement`.
    differs: Option<Instant>,
}

impl Member {
    pub(super) fn new(plan: MemberPlan, known: Option<bool>, now: Instant) -> Self {
        let health = plan.checked.then(|| Health {
            up: known.unwrap_or(false),
            full: false,
            trouble: None,
            cause: if known.is_some() { "as the last agent left it" } else { "not checked yet" }.into(),
        });
        Self {
            plan,
            health,
            admin: Admin::Enabled,
            weight: None,
            since: now,
            deadline: None,
            ramp: None,
            stepped: now,
            was_known: known.is_some(),
            recovered: known == Some(false),
            peer: None,
            agreement: Agreement::Unknown,
            differs: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.health.as_ref().is_none_or(|health| health.up)
    }

    pub(super) fn is_full(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.full)
    }

    pub(super) fn weight(&self) -> u16 {
        self.weight.unwrap_or(self.plan.weight)
    }

    /// It may take new conns, as far as itself is concerned.
    pub(super) fn is_eligible(&self) -> bool {
        self.admin == Admin::Enabled && self.is_up() && self.weight() > 0
    }

    /// Begins a slow start; false if there is none. A backend that was never seen down is not cold.
    pub(super) fn begin_ramp(&mut self, now: Instant) -> bool {
        let slow = self.recovered && !self.plan.slow_start.is_zero();
        self.ramp = slow.then_some(Ramp { begin: now, length: self.plan.slow_start });
        slow
    }

    fn opinion(&self) -> Agreement {
        match (self.is_up(), self.peer) {
            (_, None) => Agreement::Unknown,
            (true, Some(false)) => Agreement::DownThereOnly,
            (false, Some(true)) => Agreement::DownHereOnly,
            _ => Agreement::Same,
        }
    }

    /// Looks whether the directors see it otherwise than before.
    pub(super) fn compare(&mut self, now: Instant) {
        if self.opinion() == self.agreement {
            self.differs = None;
        } else {
            self.differs.get_or_insert(now);
        }
    }

    /// Takes over a difference that has lasted; a silent peer and an end of a difference count at once.
    pub(super) fn settle(&mut self, now: Instant, after: Duration) -> Option<Agreement> {
        let since = self.differs?;
        let opinion = self.opinion();
        let quiet = matches!(opinion, Agreement::Unknown | Agreement::Same);
        if !quiet && now < since + after {
            return None;
        }
        let before = std::mem::replace(&mut self.agreement, opinion);
        self.differs = None;
        let was_quiet = matches!(before, Agreement::Unknown | Agreement::Same);
        (!(quiet && was_quiet)).then_some(opinion)
    }

    pub(super) fn next(&self, disagree_after: Duration) -> Option<Instant> {
        let ramp = self.ramp.and_then(|ramp| ramp.next().find(|at| *at > self.stepped));
        let differs = self.differs.map(|since| since + disagree_after);
        [self.deadline, ramp, differs].into_iter().flatten().min()
    }

    pub(super) fn view(&self, share: Option<Share>, now: Instant) -> MemberView {
        let takes = share.is_some_and(|share| share.weight > 0 && !share.drain && !share.down);
        let state = match self.admin {
            Admin::Disabled => State::Disabled,
            _ if !self.is_up() => State::Down,
            Admin::Draining => State::Draining,
            Admin::Enabled if self.weight() == 0 => State::Draining,
            Admin::Enabled if self.is_full() => State::Full,
            Admin::Enabled if takes => State::Up,
            Admin::Enabled => State::Standby,
        };
        MemberView {
            address: self.plan.address,
            state,
            since: now.saturating_duration_since(self.since),
            tier: self.plan.tier,
            health: self.health.clone(),
            was_known: self.was_known,
            warm: self.ramp.map_or(100, |ramp| ramp.step(now) * 100 / STEPS),
            deadline: self.deadline.map(|at| at.saturating_duration_since(now)),
            peer: self.peer,
            agreement: self.agreement,
        }
    }
}

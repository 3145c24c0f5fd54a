//! The election: takes inputs and time, keeps the witnesses, and asks the table.
//!
//! How a change of role is carried out is `transition`. Whoever drives it must hand over everything received before
//! calling [`Election::handle_timeout`]: silence counts only if somebody listened.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::vrrp::machine::{self, Heard, Machine};

use super::{
    Alarm, Beat, Cause, Config, ConfigError, GateState, PeerRole, Role,
    alarm::Alarms,
    announce::Announcements,
    gate::Gate,
    heartbeat::Heartbeat,
    leg::Leg,
    witness::{Sight, SyncPath},
};

/// Actions of one step, roughly: more would allocate.
const ACTIONS: usize = 64;

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The director takes part from now on. Links, checks and the gate may be told before.
    Start,
    /// The agent stops: an Active gives up all VIPs at once.
    Stop,
    /// The operator wants the peer to be Active; sync has drained.
    HandOver,
    /// The operator wants this director to be Active instead of the peer.
    TakeOver,
    /// An advert passed the checks of its transport.
    Advert {
        /// The transport.
        transport: usize,
        /// The advert.
        heard: Heard,
    },
    /// A heartbeat of the peer.
    Heartbeat(Beat),
    /// A link has changed, or was looked at.
    Link {
        /// Of which transport.
        transport: usize,
        /// It can carry packets.
        up: bool,
    },
    /// A check has changed, or was looked at.
    Check {
        /// Which one.
        check: usize,
        /// It is good.
        ok: bool,
    },
    /// What the sync says about taking over from a living peer.
    Gate(GateState),
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer ARP for the VIPs.
    OpenArpGate,
    /// Do not answer ARP for the VIPs, whatever the host would do.
    CloseArpGate,
    /// Configure all VIPs.
    AddVips,
    /// Remove all VIPs.
    RemoveVips,
    /// Send an advert.
    SendAdvert {
        /// Where.
        transport: usize,
        /// Our priority, or 0.
        priority: u8,
    },
    /// Announce every VIP.
    GratuitousArp {
        /// This many times each.
        repeat: u8,
    },
    /// The role has changed: tell hooks and logs.
    Notify {
        /// The new role.
        role: Role,
        /// Why.
        cause: Cause,
    },
    /// An alarm is raised or cleared.
    Alarm {
        /// Which one.
        alarm: Alarm,
        /// It is raised.
        raised: bool,
    },
    /// This director has slept, and listens before it speaks.
    Late {
        /// How long it was not heard.
        by: Duration,
    },
}

/// A question for the role that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taking {
    /// Adverts until then were on their way already.
    pub(super) since: Instant,
    /// Silence until then is a yes.
    pub(super) until: Instant,
    /// The peer went on speaking.
    pub(super) refused: bool,
}

/// Where in its life the election is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    New,
    Running,
    Stopped,
}

/// The election of one director.
#[derive(Clone, Debug)]
pub struct Election {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) role: Role,
    pub(super) cause: Cause,
    pub(super) since: Option<Instant>,
    pub(super) legs: Vec<Leg>,
    pub(super) checks: Vec<bool>,
    pub(super) heartbeat: Heartbeat,
    pub(super) gate: Gate,
    pub(super) arp: Announcements,
    pub(super) alarms: Alarms,
    /// The operator gave the role away: no preemption takes it back.
    pub(super) handed_over: bool,
    /// An Active that has slept says nothing until then.
    pub(super) listening: Option<Instant>,
    /// A Backup that has slept takes nothing over until then, unless the peer gives it.
    pub(super) quiet_until: Option<Instant>,
    /// Since when the witnesses disagree.
    pub(super) hold_since: Option<Instant>,
    /// The peer was asked to give way.
    pub(super) taking: Option<Taking>,
    /// What the neighbours are to be told waits for the gate, until then.
    pub(super) untold: Option<Instant>,
    /// Another Active was heard; when that is forgotten.
    pub(super) contested: Option<Instant>,
    pub(super) actions: VecDeque<Action>,
    /// Kept, so that looking allocates nothing.
    pub(super) sights: Vec<Sight>,
}

impl Election {
    /// An election that takes no part until [`Input::Start`].
    ///
    /// # Errors
    ///
    /// The config makes no sense.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            phase: Phase::New,
            role: Role::Backup,
            cause: Cause::Start,
            since: None,
            legs: config.transports.iter().map(|transport| Leg::new(&config, transport)).collect(),
            checks: vec![true; config.checks.len()],
            heartbeat: Heartbeat::new(config.heartbeat),
            gate: Gate::open(),
            arp: Announcements::new(config.arp),
            alarms: Alarms::with_transports(config.transports.len()),
            handed_over: false,
            listening: None,
            quiet_until: None,
            hold_since: None,
            taking: None,
            untold: None,
            contested: None,
            actions: VecDeque::with_capacity(ACTIONS),
            sights: Vec::with_capacity(config.transports.len()),
            config,
        })
    }

    /// The role of all VIPs together.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The parameters.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What the heartbeat is to tell the peer.
    #[must_use]
    pub fn beat(&self) -> Beat {
        let role = match (self.phase, self.role) {
            (Phase::Stopped, _) => PeerRole::Leaving,
            // Who must listen first does not know what it is.
            (_, Role::Active) if self.listening.is_some() => PeerRole::Backup,
            (_, Role::Active) => PeerRole::Active,
            (_, Role::Backup) => PeerRole::Backup,
            (_, Role::Fault) => PeerRole::Fault,
        };
        Beat { role, priority: self.config.priority, address: self.own_address() }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.notice(now);
        match input {
            Input::Start => self.start(now),
            Input::Stop => self.stop(now),
            Input::HandOver => self.hand_over(now),
            Input::TakeOver => self.take_over(now),
            Input::Advert { transport, heard } => self.advert(transport, heard, now),
            Input::Heartbeat(beat) => self.hear_beat(beat, now),
            Input::Link { transport, up } => {
                if let Some(leg) = self.legs.get_mut(transport) {
                    leg.link_up = up;
                }
            }
            Input::Check { check, ok } => {
                if let Some(known) = self.checks.get_mut(check) {
                    *known = ok;
                }
            }
            Input::Gate(state) => {
                let was_closed = self.gate.is_closed();
                self.gate.set(state, now);
                if self.role == Role::Active {
                    match (was_closed, self.gate.is_closed()) {
                        (false, true) => self.arp.be_quiet(),
                        (true, false) => self.arp.go_on(now),
                        _ => {}
                    }
                }
                if self.untold.is_some() && self.listening.is_none() && !self.gate.is_closed() {
                    self.tell_neighbours(now);
                }
            }
        }
        self.decide(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.notice(now);
        if self.listening.is_some_and(|until| until <= now) {
            self.resume(now);
        }
        for index in 0..self.legs.len() {
            self.legs[index].machine.handle_timeout(now);
            self.drain(index);
        }
        if self.heartbeat.handle_timeout(now) {
            self.alarm(Alarm::Heartbeat, true);
        }
        if self.listening.is_none() {
            if self.contested.is_some_and(|until| until <= now) {
                self.uncontested(now);
            }
            if self.untold.is_some_and(|until| until <= now || !self.gate.is_closed()) {
                self.tell_neighbours(now);
            }
            if let Some(repeat) = self.arp.due(now) {
                self.actions.push_back(Action::GratuitousArp { repeat });
            }
        }
        self.finish_taking(now);
        self.decide(now);
    }

    /// When [`Self::handle_timeout`] must be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Running {
            return None;
        }
        let rest = match self.role {
            Role::Active if self.listening.is_some() => [self.listening, None, None],
            Role::Active => [self.arp.next(), self.contested, self.untold],
            Role::Backup => {
                let gate = self.gate.until().filter(|_| !self.alarms.is_raised(Alarm::Unsynced));
                [self.hold_alarm_at(), self.hold_ends(), gate]
            }
            Role::Fault => [None; 3],
        };
        let taking = self.taking.map(|taking| taking.until);
        self.critical().chain(rest.into_iter().flatten()).chain(taking).chain(self.heartbeat.next()).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The times at which something would be said or taken over.
    fn critical(&self) -> impl Iterator<Item = Instant> {
        let machines = self.legs.iter().filter_map(|leg| leg.machine.poll_timeout());
        machines.chain(self.quick_at())
    }

    /// Finds out whether this director has slept. Who was not heard for so long that the peer may have taken over must
    /// listen before it speaks; who did not listen must not believe in silence.
    fn notice(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(due) = self.critical().chain(self.sleeping_heartbeat()).min() else { return };
        let by = now.saturating_duration_since(due);
        if by <= self.patience() {
            return;
        }
        self.actions.push_back(Action::Late { by });
        let pause = |leg: &Leg| leg.machine.active_interval().duration() + leg.machine.skew();
        let until = now + self.legs.iter().map(pause).max().unwrap_or_default();
        match self.role {
            Role::Active => {
                if self.listening.is_none() {
                    self.actions.push_back(Action::CloseArpGate);
                }
                self.listening = Some(until);
            }
            Role::Backup => {
                self.quiet_until = Some(until);
                self.hold_since = None;
            }
            Role::Fault => {}
        }
        self.heartbeat.postpone(now);
        for leg in &mut self.legs {
            leg.machine.postpone(until);
        }
    }

    fn sleeping_heartbeat(&self) -> Option<Instant> {
        self.heartbeat.next().filter(|_| self.role == Role::Backup && self.heartbeat.sight() != SyncPath::Silent)
    }

    /// The longest delay of a tick that cannot do harm.
    ///
    /// A peer takes over three intervals after the last advert at the earliest, and the next one was due one interval
    /// after it: that leaves two. With a heartbeat it may be sooner.
    fn patience(&self) -> Duration {
        let intervals = |interval: fn(&Machine) -> Duration| {
            self.legs.iter().map(|leg| interval(&leg.machine)).min().unwrap_or_default()
        };
        let own = intervals(|machine| machine.config().interval.duration());
        match (self.role, self.config.heartbeat) {
            // Who is listening must do so, and not sleep again.
            (Role::Active, _) if self.listening.is_some() => own / 2,
            (Role::Active, None) => own * 2,
            (Role::Active, Some(timing)) => (own * 2).min((own / 2).max(timing.lost().saturating_sub(timing.interval))),
            (_, None) => intervals(|machine| machine.active_interval().duration()),
            (_, Some(timing)) => intervals(|machine| machine.active_interval().duration()).min(timing.lost()),
        }
    }

    pub(super) fn own_address(&self) -> std::net::Ipv4Addr {
        self.legs.first().map_or(std::net::Ipv4Addr::UNSPECIFIED, |leg| leg.machine.config().address)
    }

    pub(super) fn may_preempt(&self, now: Instant) -> bool {
        !self.handed_over && self.gate.holds(now).is_none()
    }

    /// An Active of lower priority would be displaced without delay.
    pub(super) fn would_preempt(&self, now: Instant) -> bool {
        self.config.preempt == machine::Preempt::After(Duration::ZERO) && self.may_preempt(now)
    }

    /// What is broken, if anything.
    pub(super) fn faults(&self) -> impl Iterator<Item = Cause> {
        let links = self.legs.iter().enumerate().filter(|(_, leg)| !leg.link_up);
        let checks = self.checks.iter().enumerate().filter(|(_, ok)| !**ok);
        links
            .map(|(transport, _)| Cause::LinkDown { transport })
            .chain(checks.map(|(check, _)| Cause::CheckFailed { check }))
    }

    pub(super) fn alarm(&mut self, alarm: Alarm, raised: bool) {
        if self.alarms.set(alarm, raised) {
            self.actions.push_back(Action::Alarm { alarm, raised });
        }
    }

    pub(super) fn clear_path_alarms(&mut self) {
        for transport in 0..self.legs.len() {
            self.alarm(Alarm::AdvertPath { transport }, false);
        }
    }

    /// Passes on what a machine wants to send. Its other actions are the group's business.
    pub(super) fn drain(&mut self, transport: usize) {
        while let Some(action) = self.legs[transport].machine.poll_action() {
            if let machine::Action::Advertise { priority } = action {
                self.actions.push_back(Action::SendAdvert { transport, priority });
            }
        }
    }
}

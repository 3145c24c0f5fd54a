//! A host of the simulation: the pure cores, and what they did to the host.

use std::time::{Duration, Instant};

use lb_userspace::{
    ha::{Action, Beat, Cause, Election, Input, Role},
    vrrp::{
        machine::{self, Heard, Machine, Preempt, Promotion, State},
        packet::{Counters, Receiver, Sender},
    },
};

use super::Setup;

/// What arrives at a host.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    /// A VRRP packet on a segment.
    Packet(usize, Vec<u8>),
    /// A heartbeat.
    Beat(Beat),
}

/// What a host does to the world.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// A VRRP packet leaves on a segment.
    Packet(usize, Vec<u8>),
    /// A VIP is announced on a segment.
    Announce(usize),
    /// The heartbeat has news.
    News,
}

/// Who decides on a host.
#[derive(Clone, Debug)]
pub enum Kind {
    /// This project's election.
    Director(Box<Election>),
    /// A plain VRRP router on each of the two segments.
    Plain(Box<[Machine; 2]>),
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Who decides.
    pub kind: Kind,
    /// Its process runs, or sleeps.
    pub up: bool,
    /// It sleeps until then.
    pub asleep: Option<Instant>,
    /// It sleeps with the whole machine: what arrives is lost.
    pub(super) deaf: bool,
    pub(super) backlog: Vec<Arrival>,
    /// The ARP gate of each segment is open.
    pub gate: [bool; 2],
    /// The VIP of each segment is configured.
    pub vips: [bool; 2],
    /// Its links carry packets.
    pub links: [bool; 2],
    /// How often its role changed.
    pub changes: u32,
    /// What its receivers made of what they got.
    pub counters: Counters,
    /// The alarms that were raised, ever.
    pub alarms: Vec<lb_userspace::ha::Alarm>,
    /// The last cause.
    pub cause: Option<Cause>,
    /// When it last woke from a long sleep as Active, and for how long it must be silent then.
    pub(super) woke: Option<(Instant, Duration)>,
    /// When it last sent an advert as Active.
    pub(super) spoke: Option<Instant>,
    pub(super) generation: u64,
    /// The tick that is due next.
    pub(super) tick: u64,
    preempts: bool,
    receivers: [Receiver; 2],
    senders: [Sender; 2],
}

impl Host {
    pub(super) fn new(setup: &Setup, host: usize) -> Self {
        let sender =
            |segment| Sender { router: setup.router(host, segment), source: setup.address(host, segment), peer: None };
        let receiver = |segment| Receiver {
            router: setup.router(host, segment),
            address: setup.address(host, segment),
            owner: false,
            accept_owner: false,
            peers: Vec::new(),
        };
        Self {
            kind: Self::kind(setup, host),
            up: false,
            asleep: None,
            deaf: false,
            backlog: Vec::new(),
            gate: [false; 2],
            vips: [false; 2],
            links: [true; 2],
            changes: 0,
            counters: Counters::default(),
            alarms: Vec::new(),
            cause: None,
            woke: None,
            spoke: None,
            generation: 0,
            tick: 0,
            preempts: setup.preempt[host] == Preempt::After(Duration::ZERO),
            receivers: [receiver(0), receiver(1)],
            senders: [sender(0), sender(1)],
        }
    }

    fn kind(setup: &Setup, host: usize) -> Kind {
        if setup.foreign && host == 1 {
            let machine = |segment| {
                Machine::new(machine::Config {
                    version: setup.version,
                    priority: setup.priority[host],
                    address: setup.address(host, segment),
                    interval: setup.interval[host],
                    preempt: setup.preempt[host],
                    promotion: Promotion::Free,
                })
            };
            return Kind::Plain(Box::new([machine(0), machine(1)]));
        }
        Kind::Director(Box::new(Election::new(setup.election(host)).expect("a config that makes sense")))
    }

    /// This tick is the last one that was asked for, and the host can act on it.
    pub(super) const fn is_due(&self, tick: u64) -> bool {
        self.tick == tick && self.up && self.asleep.is_none()
    }

    /// Its process starts: it knows nothing any more, but what is configured stays.
    pub(super) fn start(&mut self, setup: &Setup, host: usize, now: Instant) {
        self.kind = Self::kind(setup, host);
        self.up = true;
        self.asleep = None;
        self.backlog.clear();
        self.woke = None;
        match &mut self.kind {
            Kind::Director(election) => {
                for transport in 0..2 {
                    election.handle(Input::Link { transport, up: self.links[transport] }, now);
                }
                election.handle(Input::Start, now);
            }
            Kind::Plain(machines) => {
                // keepalived, too, removes what is left.
                self.vips = [false; 2];
                self.gate = [false; 2];
                machines.iter_mut().for_each(|machine| machine.handle(machine::Input::Startup, now));
            }
        }
    }

    /// It holds the VIP of a segment, and says so when asked.
    #[must_use]
    pub const fn serves(&self, segment: usize) -> bool {
        self.up && self.asleep.is_none() && self.gate[segment] && self.vips[segment]
    }

    /// The role of a director; of a plain router, `Active` if it is so everywhere.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.kind {
            Kind::Director(election) => election.role(),
            Kind::Plain(machines) if machines.iter().all(|m| m.state() == State::Active) => Role::Active,
            Kind::Plain(_) => Role::Backup,
        }
    }

    /// The beat of a director.
    pub(super) fn beat(&self) -> Option<Beat> {
        match &self.kind {
            Kind::Director(election) => Some(election.beat()),
            Kind::Plain(_) => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Director(election) => election.poll_timeout(),
            Kind::Plain(machines) => machines.iter().filter_map(Machine::poll_timeout).min(),
        }
    }

    pub(super) fn arrive(&mut self, arrival: Arrival, now: Instant) {
        match (arrival, &mut self.kind) {
            (Arrival::Packet(segment, bytes), kind) => {
                let advert = self.receivers[segment].decode(&bytes);
                self.counters.count(&advert);
                let Ok(advert) = advert else { return };
                let heard = Heard::from(&advert);
                if self.preempts && advert.priority != 0 {
                    // It knows now whom it displaces.
                    self.woke = None;
                }
                match kind {
                    Kind::Director(election) => election.handle(Input::Advert { transport: segment, heard }, now),
                    Kind::Plain(machines) => machines[segment].handle(machine::Input::Advert(heard), now),
                }
            }
            (Arrival::Beat(beat), Kind::Director(election)) => election.handle(Input::Heartbeat(beat), now),
            (Arrival::Beat(_), Kind::Plain(_)) => {}
        }
    }

    pub(super) fn input(&mut self, input: Input, now: Instant) {
        match &mut self.kind {
            Kind::Director(election) => election.handle(input, now),
            Kind::Plain(machines) => {
                let stop = |machine: &mut Machine| machine.handle(machine::Input::Shutdown, now);
                let start = |machine: &mut Machine| machine.handle(machine::Input::Startup, now);
                match input {
                    Input::Stop => machines.iter_mut().for_each(stop),
                    Input::Link { transport, up: false } => stop(&mut machines[transport]),
                    Input::Link { transport, up: true } => start(&mut machines[transport]),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Director(election) => election.handle_timeout(now),
            Kind::Plain(machines) => machines.iter_mut().for_each(|machine| machine.handle_timeout(now)),
        }
    }

    /// Carries out what the core wants; `Err`: an order that must never be given.
    pub(super) fn perform(&mut self, now: Instant) -> Result<Vec<Effect>, String> {
        let mut effects = Vec::new();
        match &mut self.kind {
            Kind::Director(election) => {
                let actions: Vec<Action> = std::iter::from_fn(|| election.poll_action()).collect();
                for action in actions {
                    self.direct(action, now, &mut effects)?;
                }
            }
            Kind::Plain(machines) => {
                for (segment, machine) in machines.iter_mut().enumerate() {
                    while let Some(action) = machine.poll_action() {
                        match action {
                            machine::Action::Advertise { priority } => {
                                effects.push(Effect::Packet(segment, self.senders[segment].encode(priority)));
                            }
                            machine::Action::Announce => effects.extend((0..5).map(|_| Effect::Announce(segment))),
                            machine::Action::Enter(state) => {
                                self.vips[segment] = state == State::Active;
                                self.gate[segment] = self.vips[segment];
                                self.changes += 1;
                            }
                        }
                    }
                }
            }
        }
        Ok(effects)
    }

    fn direct(&mut self, action: Action, now: Instant, effects: &mut Vec<Effect>) -> Result<(), String> {
        let open = self.gate == [true; 2];
        let here = self.vips == [true; 2];
        match action {
            Action::OpenArpGate => self.gate = [true; 2],
            Action::CloseArpGate => self.gate = [false; 2],
            Action::AddVips if !open => return Err("VIPs before the gate is open".into()),
            Action::AddVips => self.vips = [true; 2],
            Action::RemoveVips if open => return Err("VIPs removed behind an open gate".into()),
            Action::RemoveVips => self.vips = [false; 2],
            Action::SendAdvert { transport, priority } => {
                if priority != 0 && !(open && here) {
                    return Err(format!("an advert of priority {priority} without VIPs"));
                }
                if priority == 0 && open {
                    return Err("priority 0 while ARP is answered".into());
                }
                if priority != 0
                    && let Some((woke, quiet)) = self.woke
                    && now < woke + quiet
                {
                    return Err(format!("it speaks {:?} after a sleep, before it has listened", now - woke));
                }
                if priority != 0 {
                    self.spoke = Some(now);
                    self.woke = None;
                }
                effects.push(Effect::Packet(transport, self.senders[transport].encode(priority)));
            }
            Action::GratuitousArp { .. } if !(open && here) => return Err("VIPs announced that are not here".into()),
            Action::GratuitousArp { repeat } => {
                effects.extend((0..repeat).flat_map(|_| [Effect::Announce(0), Effect::Announce(1)]));
            }
            Action::Notify { role, cause } => {
                if (role == Role::Active) != (open && here) || here != open {
                    return Err(format!("{role:?} with gate {:?} and VIPs {:?}", self.gate, self.vips));
                }
                // Another role by what was heard, not by what was slept through.
                self.woke = None;
                self.changes += 1;
                self.cause = Some(cause);
                effects.push(Effect::News);
            }
            Action::Alarm { alarm, raised } => {
                if raised && !self.alarms.contains(&alarm) {
                    self.alarms.push(alarm);
                }
            }
            Action::Late { .. } => {}
        }
        Ok(())
    }
}

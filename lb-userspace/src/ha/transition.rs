//! How a role changes: always for all VIPs, and in the one right order.
//!
//! Taking over: the conns are in the kernel already, so first the ARP gate, then the VIPs, then the adverts, then
//! gratuitous ARP, at last the hooks. Giving up: first the ARP gate, so that from here on nobody is told that the
//! VIPs are here; then priority 0, so that the peer starts; then the VIPs.

use std::time::{Duration, Instant};

use crate::vrrp::machine;

use super::{Action, Alarm, Cause, Election, Mode, PeerRole, Role, election::Phase, witness::SyncPath};

/// How long the neighbours of two Actives that have met are not told of the winner because it lacks conns. The sync
/// needs some hundred milliseconds, if it gets through at all.
const UNTOLD: Duration = Duration::from_secs(1);

impl Election {
    pub(super) fn start(&mut self, now: Instant) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Running;
        // What an agent has left that was killed.
        self.actions.push_back(Action::CloseArpGate);
        self.actions.push_back(Action::RemoveVips);
        self.become_backup(Cause::Start, now);
    }

    pub(super) fn stop(&mut self, now: Instant) {
        if self.phase == Phase::Running {
            if self.role == Role::Active {
                self.step_down(Cause::Stop, machine::Input::Shutdown, now);
            } else {
                self.enter(Role::Backup, Cause::Stop, now);
            }
        }
        self.phase = Phase::Stopped;
    }

    pub(super) fn hand_over(&mut self, now: Instant) {
        // To nobody: the peer says that it must not.
        let refused = matches!(self.heartbeat.sight(), SyncPath::Alive(PeerRole::Fault | PeerRole::Leaving));
        if self.phase == Phase::Running && self.role == Role::Active && !refused {
            self.step_down(Cause::HandOver, machine::Input::Resign, now);
            self.handed_over = true;
        }
    }

    pub(super) fn promote(&mut self, cause: Cause, now: Instant) {
        self.handed_over = false;
        self.actions.push_back(Action::OpenArpGate);
        self.actions.push_back(Action::AddVips);
        self.tell_all(machine::Input::Promote, now);
        self.call_neighbours(now);
        let gave_up = self.config.mode == Mode::Pair && matches!(cause, Cause::PeerResigned | Cause::PeerFault);
        for leg in &mut self.legs {
            let window = now + leg.machine.active_interval().duration();
            let stale = gave_up && !leg.resigned;
            leg.forget();
            leg.stale_until = stale.then_some(window);
        }
        let cause = if gave_up && self.taking.is_some() { Cause::Taken } else { cause };
        self.enter(Role::Active, cause, now);
    }

    /// Becomes Backup because another one is Active. By the RFC that is done in silence; but then a winner that was heard
    /// before it heard does not learn that the neighbours may have believed somebody else. Priority 0 tells a peer.
    pub(super) fn give_way(&mut self, cause: Cause, now: Instant) {
        let how = match self.config.mode {
            Mode::Pair => machine::Input::Resign,
            Mode::Strict => machine::Input::Yield,
        };
        self.step_down(cause, how, now);
    }

    /// Becomes Backup; `how` says whether the peer is told.
    pub(super) fn step_down(&mut self, cause: Cause, how: machine::Input, now: Instant) {
        self.actions.push_back(Action::CloseArpGate);
        self.tell_all(how, now);
        self.actions.push_back(Action::RemoveVips);
        self.forget();
        self.enter(Role::Backup, cause, now);
    }

    pub(super) fn fail(&mut self, cause: Cause, now: Instant) {
        let active = self.role == Role::Active;
        if active {
            self.actions.push_back(Action::CloseArpGate);
        }
        self.tell_all(machine::Input::Shutdown, now);
        if active {
            self.actions.push_back(Action::RemoveVips);
        }
        self.forget();
        self.enter(Role::Fault, cause, now);
    }

    pub(super) fn recover(&mut self, now: Instant) {
        self.become_backup(Cause::Recovered, now);
    }

    /// Listens, whatever it was before.
    fn become_backup(&mut self, cause: Cause, now: Instant) {
        self.forget();
        self.tell_all(machine::Input::Startup, now);
        let patience = self.legs.iter().map(|leg| leg.machine.down_interval()).max().unwrap_or_default();
        if self.heartbeat.last().is_none() {
            self.heartbeat.expect_by(now + patience);
        }
        self.enter(Role::Backup, cause, now);
    }

    /// An Active that has slept has heard of no other one: it speaks again.
    pub(super) fn resume(&mut self, now: Instant) {
        self.listening = None;
        self.actions.push_back(Action::OpenArpGate);
        for index in 0..self.legs.len() {
            self.legs[index].machine.hasten(now);
            self.legs[index].machine.handle_timeout(now);
            self.drain(index);
        }
        let repeat = self.arp.start(now);
        self.actions.push_back(Action::GratuitousArp { repeat });
    }

    /// Another Active was heard that has to yield. The neighbours may have believed it.
    pub(super) fn contest(&mut self, now: Instant, transport: usize) {
        if self.contested.is_none() {
            self.tell_neighbours_when_synced(now);
        }
        let heard = self.legs.get(transport).and_then(|leg| leg.heard);
        let interval = heard.map(|(_, heard)| heard.interval.duration());
        let own = self.legs.iter().map(|leg| leg.machine.config().interval.duration()).max().unwrap_or_default();
        self.contested = Some(now + interval.unwrap_or(own).max(own) * 3);
        self.alarm(Alarm::TwoActives, true);
    }

    /// The other Active is gone: from here on, what the neighbours are told stays true.
    pub(super) fn uncontested(&mut self, now: Instant) {
        self.contested = None;
        self.alarm(Alarm::TwoActives, false);
        self.tell_neighbours_when_synced(now);
    }

    /// Neighbours that have believed another Active are told of this one, and send here from then on. While the sync says
    /// that conns of the other one are missing here, its packet path serves them better than this one, for a moment.
    fn tell_neighbours_when_synced(&mut self, now: Instant) {
        if self.gate.is_closed() {
            self.untold.get_or_insert(now + UNTOLD);
        } else {
            self.tell_neighbours(now);
        }
    }

    pub(super) fn tell_neighbours(&mut self, now: Instant) {
        self.untold = None;
        self.call_neighbours(now);
    }

    /// Two Actives that do not hear of each other must not take the neighbours from one another again and again: conns
    /// that one of them has opened are not known to the other. So who lacks the peer's word calls, repeats it, and then is quiet.
    fn call_neighbours(&mut self, now: Instant) {
        let repeat = if self.gate.is_closed() { self.arp.start_quietly(now) } else { self.arp.start(now) };
        self.actions.push_back(Action::GratuitousArp { repeat });
    }

    fn tell_all(&mut self, input: machine::Input, now: Instant) {
        for index in 0..self.legs.len() {
            self.legs[index].machine.handle(input, now);
            self.drain(index);
        }
    }

    /// Drops what was only true in the role that ends.
    fn forget(&mut self) {
        for leg in &mut self.legs {
            leg.forget();
        }
        self.arp.stop();
        self.untold = None;
        self.contested = None;
        self.alarm(Alarm::TwoActives, false);
    }

    fn enter(&mut self, role: Role, cause: Cause, now: Instant) {
        self.role = role;
        self.cause = cause;
        self.since = Some(now);
        self.listening = None;
        self.quiet_until = None;
        self.hold_since = None;
        self.taking = None;
        self.clear_path_alarms();
        self.actions.push_back(Action::Notify { role, cause });
    }
}

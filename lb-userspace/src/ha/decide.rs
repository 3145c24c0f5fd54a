//! The conclusions from all that is known: faults first, then what a Backup makes of its witnesses.
//!
//! The table itself is [`witness`]; here is when it is asked, and what the verdicts do over time.

use std::time::Instant;

use super::{
    Alarm, Cause, Election, Mode, Role,
    election::Phase,
    witness::{self, Sight, SyncPath, Verdict},
};

impl Election {
    /// Draws the conclusions from all that is known.
    pub(super) fn decide(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        // Not raised by an Active: its peer may just be off, and it has all conns that there are.
        let counts = self.role != Role::Active || self.alarms.is_raised(Alarm::Unsynced);
        self.alarm(Alarm::Unsynced, counts && self.gate.has_expired(now));
        let fault = self.faults().next();
        match (self.role, fault) {
            (Role::Fault, None) => self.recover(now),
            (Role::Active | Role::Backup, Some(cause)) => self.fail(cause, now),
            _ => {}
        }
        if self.role == Role::Backup {
            self.decide_in_backup(now);
        }
    }

    pub(super) fn decide_in_backup(&mut self, now: Instant) {
        let allowed = self.may_preempt(now);
        for leg in &mut self.legs {
            leg.machine.allow_preempt(allowed);
        }
        if self.quiet_until.is_some_and(|until| until <= now) {
            self.quiet_until = None;
        }
        let sync = if self.config.mode == Mode::Strict { SyncPath::Silent } else { self.heartbeat.sight() };
        self.sights.clear();
        self.sights.extend(self.legs.iter().map(|leg| leg.sight(self.config.mode)));
        match witness::decide(self.config.mode, &self.sights, sync) {
            Verdict::Promote(reason) => self.promote(reason.into(), now),
            _ if self.quick_at().is_some_and(|at| at <= now) => self.promote(Cause::HeartbeatLost, now),
            Verdict::Stay => {
                self.hold_since = None;
                self.clear_path_alarms();
            }
            Verdict::Hold => {
                self.hold_since.get_or_insert(now);
                if self.hold_ends().is_some_and(|at| at <= now) {
                    self.promote(Cause::HoldExpired, now);
                    return;
                }
                let raise = self.hold_alarm_at().is_none_or(|at| at <= now);
                for transport in 0..self.legs.len() {
                    let silent = self.legs[transport].sight(self.config.mode) == Sight::Silent;
                    if raise || !silent {
                        self.alarm(Alarm::AdvertPath { transport }, silent);
                    }
                }
            }
        }
    }

    /// When the heartbeat of an Active peer was lost and the next advert is overdue everywhere, plus the skew time:
    /// sooner than three intervals.
    pub(super) fn quick_at(&self) -> Option<Instant> {
        if self.role != Role::Backup || self.config.mode == Mode::Strict {
            return None;
        }
        let mut at = self.heartbeat.lost_an_active()?;
        for leg in &self.legs {
            at = at.max(leg.missing_at()?);
        }
        let skew = self.legs.iter().map(|leg| leg.machine.skew()).max().unwrap_or_default();
        Some(self.quiet_until.map_or(at + skew, |quiet| quiet.max(at + skew)))
    }

    /// When the alarm is raised: paths that die together do not fall silent at the same instant.
    pub(super) fn hold_alarm_at(&self) -> Option<Instant> {
        let mut silent =
            (0..self.legs.len()).filter(|index| self.legs[*index].sight(self.config.mode) == Sight::Silent);
        if silent.all(|transport| self.alarms.is_raised(Alarm::AdvertPath { transport })) {
            return None;
        }
        let interval = self.legs.iter().map(|leg| leg.machine.active_interval().duration()).max();
        self.hold_since.map(|since| since + interval.unwrap_or_default())
    }

    /// When holding is over, if all that speaks against taking over is the heartbeat.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        let silent = self.legs.iter().all(|leg| leg.sight(self.config.mode) == Sight::Silent);
        self.hold_since.filter(|_| silent).zip(self.config.hold_max).map(|(since, max)| since + max)
    }
}

//! What the election makes of adverts and heartbeats, and who wins against whom.
//!
//! By RFC 9568 §6.4 each transport decides for itself; here one role answers for all of them.

use std::time::Instant;

use crate::vrrp::{
    PRIORITY_RESIGN,
    machine::{self, Heard, Rank, TieBreak},
};

use super::{Alarm, Beat, Cause, Election, Mode, PeerRole, Role, election::Phase, leg::Leg};

impl Election {
    pub(super) fn advert(&mut self, transport: usize, heard: Heard, now: Instant) {
        let mode = self.config.mode;
        let Some(leg) = self.legs.get_mut(transport) else { return };
        if self.phase != Phase::Running {
            return;
        }
        let resigns = heard.priority == PRIORITY_RESIGN;
        let stale = self.role == Role::Active && mode == Mode::Pair && leg.take_stale(now);
        if stale && !resigns {
            return;
        }
        leg.note(heard, now);
        self.settle_ties();
        let rank = self.legs[transport].machine.rank(&heard);
        match (self.role, rank) {
            (Role::Fault, _) => return,
            (Role::Active, _) if self.listening.is_some() => {
                if resigns {
                    return;
                }
                if rank == Rank::Theirs || !self.would_preempt(now) {
                    self.give_way(Cause::Superseded, now);
                } else {
                    self.resume(now);
                    self.contest(now, transport);
                    return;
                }
            }
            (Role::Active, Rank::Theirs) if !resigns => {
                let cause = Cause::Outranked { transport, by: heard.source, priority: heard.priority };
                self.give_way(cause, now);
                self.let_the_peer_be_first(&heard, now);
            }
            (Role::Active, Rank::Ours) if !resigns => self.contest(now, transport),
            // It was Active, too, and has given way.
            // It answers no ARP any more. It says so on every transport, and each segment is told after its last frame there.
            (Role::Active, _) if !stale => self.uncontested(now),
            (Role::Active | Role::Backup, _) => {}
        }
        // A Backup by now, if it has stepped down: the machine learns the interval of the new Active.
        let allowed = self.may_preempt(now);
        self.legs[transport].machine.allow_preempt(allowed);
        self.legs[transport].machine.handle(machine::Input::Advert(heard), now);
        self.drain(transport);
        if self.role == Role::Backup && !resigns {
            self.is_refused(now);
            self.legs[transport].heard = Some((now, heard));
        }
    }

    pub(super) fn hear_beat(&mut self, beat: Beat, now: Instant) {
        if self.heartbeat.timing().is_none() || self.phase != Phase::Running {
            return;
        }
        self.heartbeat.beat(beat, now);
        self.settle_ties();
        self.alarm(Alarm::Heartbeat, false);
        if self.config.mode == Mode::Strict || self.role != Role::Active || beat.role != PeerRole::Active {
            return;
        }
        let theirs = (beat.priority, beat.address) > (self.config.priority, self.own_address());
        if self.listening.is_some() && (theirs || !self.would_preempt(now)) {
            self.give_way(Cause::Superseded, now);
        } else if self.listening.is_none() && theirs {
            self.give_way(Cause::OutrankedBySync, now);
        } else if self.listening.is_none() {
            self.contest(now, 0);
        }
    }

    /// Makes all machines of a pair decide equal priorities alike. By the letter each looks at its own addresses; but
    /// addresses may be ordered differently on two segments, and then both directors would yield, again and again.
    pub(super) fn settle_ties(&mut self) {
        if self.config.mode == Mode::Strict {
            return;
        }
        let by_beat =
            self.heartbeat.last().map(|beat| if beat.address > self.own_address() { Rank::Theirs } else { Rank::Ours });
        // The first transport on which the peer is known: the same for both, as soon as both hear each other.
        let first = self.legs.first().and_then(Leg::rank_of_address).or(by_beat);
        if let Some(rank) = first.or_else(|| self.legs.iter().find_map(Leg::rank_of_address)) {
            for leg in &mut self.legs {
                leg.machine.set_tie_break(TieBreak::Decided(rank));
            }
        }
    }

    /// A foreign peer compares addresses on each segment by itself. Where that makes us yield here and the peer there,
    /// it shall be the first to come back, lest both do so at the same instant, again and again.
    pub(super) fn let_the_peer_be_first(&mut self, heard: &Heard, now: Instant) {
        let crossed = self.legs.iter().any(|leg| leg.rank_of_address() == Some(Rank::Ours));
        if self.config.mode == Mode::Strict && heard.priority == self.config.priority && crossed {
            for leg in &mut self.legs {
                leg.machine.postpone(now + leg.machine.down_interval() + leg.machine.active_interval().duration());
            }
        }
    }
}

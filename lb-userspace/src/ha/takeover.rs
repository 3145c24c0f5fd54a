//! Taking the role on the operator's word, from a peer that serves well and of whatever priority.
//!
//! Asks first and takes then: one advert of the highest priority, to which an Active gives way (RFC 9568 §6.4.3); one of
//! our directors says so with priority 0, another router falls silent. Whoever goes on speaking keeps the role.

use std::time::Instant;

use super::{
    Action, Cause, Election, Role,
    election::{Phase, Taking},
};

/// The highest priority of a router that does not own the addresses.
const HIGHEST: u8 = 254;

impl Election {
    /// Asks the peer to give way.
    pub(super) fn take_over(&mut self, now: Instant) {
        if self.phase != Phase::Running || self.role != Role::Backup || self.quiet_until.is_some() {
            return;
        }
        let interval = self.legs.iter().map(|leg| leg.machine.active_interval().duration()).max().unwrap_or_default();
        self.taking = Some(Taking { since: now + interval / 8, until: now + interval + interval / 4, refused: false });
        let ask = (0..self.legs.len()).map(|transport| Action::SendAdvert { transport, priority: HIGHEST });
        self.actions.extend(ask);
    }

    /// An advert of an Active was heard.
    pub(super) fn is_refused(&mut self, now: Instant) {
        if let Some(taking) = &mut self.taking {
            taking.refused |= now > taking.since;
        }
    }

    /// Takes what nobody claims any more.
    pub(super) fn finish_taking(&mut self, now: Instant) {
        if let Some(taking) = self.taking.take_if(|taking| taking.until <= now)
            && !taking.refused
            && self.role == Role::Backup
        {
            self.promote(Cause::Taken, now);
        }
    }
}

//! What is due, and when.

use std::time::Instant;

use crate::sync::Stalled;

use super::{DEAD, DEAD_BEATS, FLUSH, GREET, PROBE, Replication, UNCONFIRMED, peer::Memory};

/// Takes a time that has come.
fn take(at: &mut Option<Instant>, now: Instant) -> bool {
    let due = at.is_some_and(|at| at <= now);
    if due {
        *at = None;
    }
    due
}

impl Replication {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let now = self.now;
        self.audit();
        if self.scan.ever && !self.scan.running && take(&mut self.scan.at, now) {
            self.begin_scan();
        }
        if self.stopped {
            return;
        }
        self.check_session();
        self.greet();
        if self.session.is_none() {
            return;
        }
        if self.due.beat.is_some_and(|at| at <= now) {
            self.due.beat = Some(now + self.config.heartbeat);
            self.due.beat_now = true;
        }
        self.due.ack_now |= take(&mut self.due.ack, now);
        self.due.missing_now |= take(&mut self.due.missing, now);
        if take(&mut self.due.probe, now) && self.memory.as_ref().is_some_and(|memory| memory.sender.under_way() != 0) {
            // The heartbeat tells what was sent: so the peer notices that it lacks the last frame.
            self.due.beat_now = true;
            self.due.probe = Some(now + PROBE);
        }
        self.outbox.handle_timeout(now);
        if self.waiting.is_some_and(|since| since + FLUSH <= now) {
            self.due.flush_now = true;
        }
        if self.drain.is_some_and(|drain| drain.until <= now) {
            self.drained(Err(Stalled::Late));
        } else if self.drain.is_some() {
            self.due.flush_now = true;
        }
    }

    fn check_session(&mut self) {
        let Some(session) = &self.session else { return };
        let silent = self.now.saturating_duration_since(session.heard);
        if !session.confirmed && silent >= UNCONFIRMED {
            self.lose_session();
        } else if session.confirmed && silent >= self.patience() {
            self.peer_down(false);
        }
    }

    /// The silence after which the peer is gone.
    fn patience(&self) -> std::time::Duration {
        DEAD.max(self.config.heartbeat * DEAD_BEATS)
    }

    fn greet(&mut self) {
        let confirmed = self.session.as_ref().is_some_and(|session| session.confirmed);
        if confirmed || !self.scan.ever {
            return;
        }
        if self.due.greet.is_none_or(|at| at <= self.now) {
            self.due.greet = Some(self.now + GREET);
            self.due.greet_now = true;
        }
    }

    /// When [`Replication::handle_timeout`] is to be called next, whatever happens until then.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let audit = self.scan.audit.map(|_| self.now);
        let scan = self.scan.at.filter(|_| !self.scan.running);
        if self.stopped {
            return audit.into_iter().chain(scan).min();
        }
        let due = &self.due;
        let session = self
            .session
            .as_ref()
            .map(|session| session.heard + if session.confirmed { self.patience() } else { UNCONFIRMED });
        let confirmed = self.session.as_ref().is_some_and(|session| session.confirmed);
        let greet = if confirmed || !self.scan.ever { None } else { Some(due.greet.unwrap_or(self.now)) };
        // Once it is said that all be sent, only the peer can hold it up.
        let flush = self.waiting.filter(|_| confirmed && !due.flush_now).map(|since| since + FLUSH);
        let drain = self.drain.map(|drain| drain.until);
        let walks = |memory: &Memory| memory.bulk.end.is_none() && memory.has_room_for_bulk();
        let walk = self.memory.as_ref().filter(|memory| confirmed && walks(memory)).map(|_| self.now);
        let notice = self.outbox.poll_timeout().filter(|_| confirmed);
        let timers = [audit, scan, session, greet, flush, drain, walk, notice];
        let of_session = [due.beat, due.ack, due.missing, due.probe].map(|at| at.filter(|_| self.session.is_some()));
        timers.into_iter().chain(of_session).flatten().min()
    }
}

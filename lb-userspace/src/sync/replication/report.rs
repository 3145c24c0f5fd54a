//! What others ask of the core: how far it is, and whether a conn may be removed.

use std::time::Duration;

use crate::sync::{
    Difference, Key, PeerStatus, State, Status, Tenths,
    index::{Bits, Id},
};

use super::{DEAD, Replication, Todo};

impl Replication {
    /// Tells whether a conn that was silent for so long may be removed from the packet path's table.
    ///
    /// One whose packets go to the peer may not, as long as the peer lives: the peer says when it is over. If the peer is
    /// gone, it gets its whole time once more. And one that is not known here is looked at first: its end must be known.
    pub fn may_expire(&mut self, key: &Key, idle: Tenths) -> bool {
        let Some(id) = self.index.find(key) else {
            self.actions.push_back(Todo::Look(*key));
            return false;
        };
        let (slot, bits) = (self.index.peek(id), self.index.bits(id));
        if !slot.is_live() || !bits.has(Bits::THEIRS.and(Bits::ORPHAN)) {
            return true;
        }
        let own = self.config.timeouts.of(slot.state());
        let patience = self.memory.as_ref().map_or(own, |memory| memory.timeouts.of(slot.state()).max(own));
        let up = self.session.as_ref().is_some_and(|session| session.confirmed);
        if up && bits.has(Bits::THEIRS) {
            // Not even a peer that has forgotten it would wait for so long; whoever lost the other gave it all its time anew.
            let idle = idle.min(self.tick().since(self.lost));
            return idle > patience.plus(patience).plus(Tenths::from_duration(DEAD));
        }
        self.tick().since(slot.last().max(self.lost)) > patience
    }

    /// How far both directors are.
    #[must_use]
    pub fn state(&self) -> State {
        let (Some(session), Some(memory)) = (&self.session, &self.memory) else {
            return if self.handshake.heard.is_some() { State::Hello } else { State::NoPeer };
        };
        if !session.confirmed {
            return State::Hello;
        }
        let done = memory.bulk.done.saturating_add(memory.said.bulk_done);
        let total = memory.bulk.total.max(memory.bulk.done).saturating_add(memory.said.bulk_total);
        if !memory.bulk_is_done() {
            return State::Bulk { done, total };
        }
        match memory.compare.verdict {
            None => State::Bulk { done, total },
            Some(true) => State::Equal,
            Some(false) => State::Diverged,
        }
    }

    /// A snapshot for people.
    #[must_use]
    pub fn status(&self) -> Status {
        let confirmed = self.session.as_ref().filter(|session| session.confirmed);
        let peer = confirmed.zip(self.memory.as_ref()).map(|(session, memory)| PeerStatus {
            node: memory.node,
            epoch: memory.epoch,
            minor: memory.minor,
            beat: memory.said.beat,
            heard: self.now.saturating_duration_since(session.heard),
            conns: memory.said.conns,
            refused: memory.said.refused,
            config_differs: memory.fingerprint != self.config.fingerprint,
            equal: memory.compare.equal_at.map(|at| self.now.saturating_duration_since(at)),
        });
        Status {
            state: self.state(),
            node: self.config.node,
            epoch: self.config.epoch,
            insecure: self.config.insecure,
            conns: self.index.live(),
            ends: self.dead(),
            queued: self.queue.len(),
            lag: self.waiting.map_or(Duration::ZERO, |since| self.now.saturating_duration_since(since)),
            under_way: self.memory.as_ref().map_or(0, |memory| memory.sender.under_way()),
            settled: self.is_settled(),
            bytes: self.bytes(),
            peer,
            counters: self.counters,
        }
    }

    /// Bytes that the index and the queues hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.bytes()
            + (self.queue.capacity() + self.reports.capacity()) * size_of::<Id>()
            + self.ends.capacity() * size_of::<(Id, u64)>()
    }

    /// Conns that the peer is not known to have as they are here, in no order: whether each has ended here, and what is
    /// missing. Without a session, nothing is known of any.
    pub fn differences(&self) -> impl Iterator<Item = (crate::sync::Conn, bool, Difference)> {
        let now = self.tick();
        let up = self.session.as_ref().is_some_and(|session| session.confirmed);
        (0..self.index.end()).filter_map(move |id| {
            let (slot, bits) = (self.index.peek(id), self.index.bits(id));
            let what = if !up || bits.has(Bits::DIRTY) {
                Difference::Waits
            } else if bits.has(Bits::FLIGHT) {
                Difference::UnderWay
            } else if slot.is_live() && !bits.has(Bits::HAS) {
                Difference::Unknown
            } else {
                return None;
            };
            (slot.is_live() || slot.is_dead()).then(|| (slot.conn(now), slot.is_dead(), what))
        })
    }

    /// Every conn, in no order.
    pub fn conns(&self) -> impl Iterator<Item = crate::sync::Conn> {
        let now = self.tick();
        (0..self.index.end())
            .map(|id| self.index.peek(id))
            .filter(|slot| slot.is_live())
            .map(move |slot| slot.conn(now))
    }
}

//! The book of who knows what: changes that wait to be told, ends that must not be forgotten too early, conns that begin.
//!
//! An end is kept until the peer has acknowledged it *and* every frame that the peer sent before that has come: then
//! nobody can mistake an old word about the conn for a new one. No clock is needed for that.

use crate::sync::{
    Conn,
    index::{Bits, Id},
    stream::Fate,
};

use super::Replication;

impl Replication {
    /// The peer is to hear of the slot, as soon as may be.
    pub(super) fn dirty(&mut self, id: Id) {
        if self.memory.is_none() {
            return;
        }
        let slot = self.index.touch(id);
        slot.bits.set(Bits::DIRTY);
        if !slot.bits.has(Bits::QUEUED) {
            slot.bits.set(Bits::QUEUED);
            self.queue.push_back(id);
            self.waiting.get_or_insert(self.now);
        }
    }

    /// A conn begins in a slot, whatever the slot held before.
    pub(super) fn begin(&mut self, id: Id, conn: &Conn, born: u64) {
        let (now, colour) = (self.tick(), self.scan.colour);
        self.index.change(id, |slot| {
            slot.fill(conn, now);
            slot.born = born;
            slot.bits.set(Bits::LIVE);
            slot.bits.clear(
                Bits::DEAD
                    .and(Bits::AGED)
                    .and(Bits::HAS)
                    .and(Bits::THEIRS)
                    .and(Bits::FLIGHT)
                    .and(Bits::DOUBT)
                    .and(Bits::ORPHAN),
            );
            slot.bits.put(Bits::COLOUR, colour);
        });
    }

    /// A live conn is no more, and the peer is to hear of it, if it may have heard of the key: from us, or from the
    /// process that was here before.
    pub(super) fn end(&mut self, id: Id, aged: bool) {
        let slot = self.index.get(id);
        if slot.bits.has(Bits::HERE) && !slot.bits.has(Bits::SPREAD) {
            self.index.free(id);
            return;
        }
        let slot = self.index.change(id, |slot| {
            slot.bits.clear(Bits::LIVE.and(Bits::HAS).and(Bits::THEIRS).and(Bits::FLIGHT));
            slot.bits.set(Bits::DEAD);
            slot.bits.put(Bits::AGED, aged);
        });
        self.ends.push_back((id, slot.born));
        self.dirty(id);
        self.limit_ends();
    }

    /// The peer said that a conn is no more. The slot is kept as long as an earlier word of the peer may still come.
    pub(super) fn bury(&mut self, id: Id, born: u64, frame: u64) {
        let Some(memory) = &mut self.memory else { return };
        let waits = memory.receiver.received() < frame;
        if !waits {
            self.index.free(id);
            return;
        }
        memory.graves.push_back((id, born, frame));
        self.index.change(id, |slot| {
            slot.born = born;
            slot.bits.clear(Bits::LIVE.and(Bits::HAS).and(Bits::THEIRS).and(Bits::FLIGHT).and(Bits::DIRTY));
            slot.bits.set(Bits::DEAD);
        });
        self.limit_ends();
    }

    /// Slots whose conns are no more.
    pub(super) const fn dead(&self) -> usize {
        self.index.used() - self.index.live()
    }

    /// Bounds what a long absence of the peer can cost: the oldest ends are forgotten. What the peer still has of them
    /// is found out otherwise: it says "you had it", and we do not.
    fn limit_ends(&mut self) {
        while self.dead() > self.config.ends {
            let Some((id, born)) = self.ends.pop_front() else { return };
            if self.is_end(id, born) {
                self.index.free(id);
                self.counters.forgotten += 1;
            }
        }
        if self.ends.len() > 2 * self.dead() + 1024 {
            let mut ends = std::mem::take(&mut self.ends);
            ends.retain(|(id, born)| self.is_end(*id, *born));
            self.ends = ends;
        }
    }

    fn is_end(&self, id: Id, born: u64) -> bool {
        let slot = self.index.peek(id);
        slot.is_dead() && slot.born == born
    }

    /// The peer that spoke of these ends has lost its memory: nothing of what it said before can come any more.
    pub(super) fn free_graves(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        for (id, born, _) in std::mem::take(&mut memory.graves) {
            if self.is_end(id, born) {
                self.index.free(id);
            }
        }
    }

    /// A peer that has lost its memory may have its table still, and in it what has ended here.
    pub(super) fn tell_ends_again(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        ends.retain(|(id, born)| self.is_end(*id, *born));
        for (id, _) in &ends {
            self.index.touch(*id).bits.set(Bits::TOLD);
            self.dirty(*id);
        }
        self.ends = ends;
    }

    /// Notes what became of the frames that told of slots. `top` is what the peer had sent by then.
    pub(super) fn settle(&mut self, top: u64) {
        let mut fates = std::mem::take(&mut self.fates);
        for (id, number, fate) in fates.drain(..) {
            let slot = self.index.touch(id);
            // Told again since, or another conn: the later frame counts.
            if !slot.bits.has(Bits::FLIGHT) || slot.sent != number as u16 {
                continue;
            }
            slot.bits.clear(Bits::FLIGHT);
            if fate == Fate::Lost {
                self.dirty(id);
            } else if slot.is_live() {
                slot.bits.set(Bits::HAS);
            } else if slot.is_dead()
                && !slot.bits.has(Bits::DIRTY)
                && let Some(memory) = &mut self.memory
            {
                let born = slot.born;
                memory.limbo.push_back((id, born, top));
            }
        }
        self.fates = fates;
    }

    /// Lets go of the ends that nobody can mistake any more.
    pub(super) fn release(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        let received = memory.receiver.received();
        let index = &mut self.index;
        for list in [&mut memory.graves, &mut memory.limbo] {
            while let Some(&(id, born, frame)) = list.front()
                && frame <= received
            {
                list.pop_front();
                let slot = index.get(id);
                if slot.is_dead() && slot.born == born && !slot.bits.has(Bits::DIRTY.and(Bits::FLIGHT)) {
                    index.free(id);
                }
            }
        }
    }
}

//! Frames to the peer, built when they are asked for: first what cannot wait, then changes, then activity, then the bulk.
//!
//! What is sent is the conn as it is now. A change that comes while an earlier one waits travels with it.

use crate::sync::{
    Tenths,
    crypto::TAG,
    index::{Bits, Id, Index, Slot},
    stream::WINDOW,
    time::Tick,
    wire::{self, Ack, ConnRecord, GoneRecord, HEADER, Header, Kind, Mark, Record as _, Why, Writer, write},
};

use super::{Drain, Replication, peer::Memory};

/// Slots that a walk passes by in one go.
const BULK_SLOTS: u32 = 16_384;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Changes,
    Control,
    Activity,
    Bulk,
}

impl Replication {
    /// Writes the next frame into the buffer; `false`: there is none to send now.
    pub(super) fn next_frame(&mut self) -> bool {
        if std::mem::take(&mut self.due.greet_now) {
            return self.write_greeting();
        }
        let Some(session) = &self.session else { return false };
        let confirmed = session.confirmed;
        if std::mem::take(&mut self.due.bye_now) {
            return self.session_frame_with(|_, to| write::bye(to)) && self.said_bye();
        }
        if !confirmed {
            return std::mem::take(&mut self.due.beat_now) && self.frame(Load::Control);
        }
        let Some(load) = self.next_load() else { return false };
        self.frame(load)
    }

    fn said_bye(&mut self) -> bool {
        self.lose_session();
        self.due = super::Due::default();
        true
    }

    fn next_load(&mut self) -> Option<Load> {
        let memory = self.memory.as_ref()?;
        let open = memory.sender.under_way() < WINDOW;
        let full = self.queue.len() >= self.config.datagram / ConnRecord::SIZE;
        if open && !self.queue.is_empty() && (full || self.due.flush_now) {
            return Some(Load::Changes);
        }
        self.due.flush_now &= !self.queue.is_empty();
        let control = self.due.ack_now
            || self.due.beat_now
            || self.due.missing_now
            || memory.digests.is_some()
            || !memory.repair.is_empty()
            || !memory.absent.is_empty()
            || !self.pulls.is_empty()
            || self.outbox.is_due();
        if control {
            return Some(Load::Control);
        }
        if !self.reports.is_empty() {
            return Some(Load::Activity);
        }
        if memory.bulk.end.is_none() && memory.has_room_for_bulk() {
            return self.walk().then_some(Load::Bulk);
        }
        None
    }

    /// Passes by slots that need no bulk; `true`: the walk stands at one that does.
    fn walk(&mut self) -> bool {
        let Some(memory) = &mut self.memory else { return false };
        for _ in 0..BULK_SLOTS {
            if memory.bulk.next >= self.index.end() {
                // Live changes may have been numbered since: they count for it, too.
                memory.bulk.end = Some(memory.sender.last());
                self.due.beat_now = true;
                return false;
            }
            if needs_bulk(self.index.get(memory.bulk.next)) {
                return true;
            }
            memory.bulk.next += 1;
        }
        false
    }

    fn frame(&mut self, load: Load) -> bool {
        let sent = self.session_frame_with(|core, to| core.fill(load, to));
        self.due.ack_now = false;
        self.due.ack = None;
        if let Some(memory) = &mut self.memory {
            memory.unacknowledged = 0;
        }
        sent
    }

    /// Writes, seals and numbers a frame of the session.
    fn session_frame_with(&mut self, fill: impl FnOnce(&mut Self, &mut Writer<'_>)) -> bool {
        let Some(psk) = self.config.keys.first() else { return false };
        let Some(session) = &mut self.session else { return false };
        session.number += 1;
        let number = session.number;
        let header = Header {
            kind: Kind::Session,
            node: self.config.node,
            key: psk.id(),
            insecure: self.config.insecure,
            session: session.keys.id,
            number,
        };
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        let mut to = Writer::new(&mut frame, self.config.datagram - TAG);
        header.write(&mut to);
        fill(self, &mut to);
        if let Some(session) = &self.session {
            session.keys.send.seal(number, &mut frame, HEADER);
        }
        self.frame = frame;
        true
    }

    fn fill(&mut self, load: Load, to: &mut Writer<'_>) {
        let Some(memory) = &self.memory else { return };
        let numbered = matches!(load, Load::Changes | Load::Bulk);
        let ack = Ack {
            received: memory.receiver.received(),
            sent: memory.sender.last() + u64::from(numbered),
            floor: memory.sender.floor(),
            time: self.time,
            refused: self.counters.all_rejected() as u32,
            equal: memory.compare.equal,
        };
        write::ack(&ack, to);
        match load {
            Load::Changes => self.fill_changes(to),
            Load::Bulk => self.fill_bulk(to),
            Load::Activity => self.fill_activity(to),
            Load::Control => self.fill_control(to),
        }
    }

    fn fill_changes(&mut self, to: &mut Writer<'_>) {
        let now = self.tick();
        let Self { index, queue, counters, memory, .. } = self;
        let Some(memory) = memory else { return };
        let number = memory.sender.last() + 1;
        write::stream(number, to);
        let mut ids = memory.sender.list();
        loop {
            // One item as long as the queue holds the same kind of words.
            let conns = write::conns(to, || {
                let id = next_changed(index, queue, Slot::is_live)?;
                Some(tell(index, id, number, now, &mut ids))
            });
            let gone = write::gone(to, || {
                let id = next_changed(index, queue, Slot::is_dead)?;
                Some(tell_end(index, id, number, now, &mut ids))
            });
            counters.deltas += conns as u64;
            counters.gone += gone as u64;
            if conns + gone == 0 {
                break;
            }
        }
        memory.sender.sent(ids, false);
        if self.queue.is_empty() {
            self.waiting = None;
            self.due.flush_now = false;
            self.mark(to);
        }
        self.due.probe.get_or_insert(self.now + super::PROBE);
    }

    fn fill_bulk(&mut self, to: &mut Writer<'_>) {
        let now = self.tick();
        let Self { index, counters, memory, .. } = self;
        let Some(memory) = memory else { return };
        let number = memory.sender.last() + 1;
        write::stream(number, to);
        let mut ids = memory.sender.list();
        let bulk = &mut memory.bulk;
        let count = write::conns(to, || {
            while bulk.next < index.end() {
                let id = bulk.next;
                bulk.next += 1;
                if needs_bulk(index.get(id)) {
                    return Some(tell(index, id, number, now, &mut ids));
                }
            }
            None
        });
        bulk.done += count as u32;
        counters.bulk += count as u64;
        memory.sender.sent(ids, true);
        self.due.probe.get_or_insert(self.now + super::PROBE);
    }

    fn fill_activity(&mut self, to: &mut Writer<'_>) {
        let now = self.tick();
        let Self { index, reports, counters, .. } = self;
        let count = write::activity(to, || {
            while let Some(id) = reports.pop_front() {
                let slot = index.touch(id);
                slot.bits.clear(Bits::REPORT);
                // Whoever does not have it yet is told all of it anyway.
                if slot.is_live() && slot.bits.has(Bits::HAS) && !slot.bits.has(Bits::DIRTY) {
                    return Some(record(slot, now));
                }
            }
            None
        });
        counters.activity += count as u64;
    }

    fn fill_control(&mut self, to: &mut Writer<'_>) {
        let now = self.now;
        let Some(memory) = &mut self.memory else { return };
        if std::mem::take(&mut self.due.missing_now) && memory.receiver.has_gap() {
            let (upto, ranges) = memory.receiver.missing();
            write::missing(upto, ranges, to);
            self.due.missing = Some(now + super::ASK_AGAIN);
        }
        if std::mem::take(&mut self.due.beat_now) {
            self.fill_beat(to);
        }
        let Some(memory) = &mut self.memory else { return };
        if !memory.absent.is_empty() {
            let count = write::gone(to, || {
                let (key, born, age) = memory.absent.pop()?;
                Some(GoneRecord { key, why: Why::Absent, age, idle: Tenths(0), born })
            });
            self.counters.gone += count as u64;
        }
        if !self.pulls.is_empty() {
            write::pull(to, || self.pulls.pop());
        }
        if !memory.repair.is_empty() && to.fits(64) {
            write::repair(|| memory.repair.pop(), to);
        }
        self.fill_notice(to);
        self.fill_digests(to);
    }

    fn fill_notice(&mut self, to: &mut Writer<'_>) {
        while let Some(part) = self.outbox.part()
            && to.fits(write::PART_HEAD + part.bytes.len())
        {
            write::notice(&part, to);
            self.outbox.sent(self.now);
        }
    }

    fn fill_beat(&mut self, to: &mut Writer<'_>) {
        if !to.fits(write::BEAT) {
            self.due.beat_now = true;
            return;
        }
        let settled = self.is_settled();
        let conns = u32::try_from(self.index.live()).unwrap_or(u32::MAX);
        let Some(memory) = &self.memory else { return };
        let beat = wire::Beat {
            role: self.beat.role.byte(),
            priority: self.beat.priority,
            address: self.beat.address,
            settled,
            conns,
            bulk_done: memory.bulk.done,
            bulk_total: memory.bulk.total.max(memory.bulk.done),
            bulk_end: memory.bulk.end.map_or(0, |end| end + 1),
            fingerprint: self.config.fingerprint,
        };
        write::beat(&beat, to);
        self.mark(to);
    }

    /// Adds a mark, if this is a moment at which the tables can be compared.
    fn mark(&mut self, to: &mut Writer<'_>) {
        if !to.fits(write::MARK) || !self.can_compare() {
            return;
        }
        let conns = self.index.live() as u32;
        let digest = self.index.digest();
        let Some(memory) = &mut self.memory else { return };
        memory.compare.mark += 1;
        let id = memory.compare.mark;
        let mark = Mark {
            id,
            sent: memory.sender.last(),
            received: memory.receiver.received(),
            conns,
            digest,
            urgent: self.drain.is_some(),
        };
        if let Some(Drain { mark: mark @ None, .. }) = &mut self.drain {
            *mark = Some(id);
        }
        write::mark(&mark, to);
    }

    /// This director has told everything it knows, and knows everything it was told.
    pub(super) fn can_compare(&self) -> bool {
        let knows = |memory: &Memory| memory.bulk.end.is_some() && !memory.receiver.has_gap();
        self.queue.is_empty() && self.is_settled() && self.memory.as_ref().is_some_and(knows)
    }

    /// What the core knows is what the packet path has: nothing was lost that was not looked up since.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.scan.ever && !self.scan.stale
    }

    /// The queue's slots wait for a peer that has lost its memory: it gets everything anyway.
    pub(super) fn queue_is_stale(&mut self) {
        for id in self.queue.drain(..) {
            self.index.touch(id).bits.clear(Bits::QUEUED);
        }
        self.waiting = None;
    }

    pub(super) fn reports_are_stale(&mut self) {
        for id in self.reports.drain(..) {
            self.index.touch(id).bits.clear(Bits::REPORT);
        }
    }
}

const fn needs_bulk(slot: &Slot) -> bool {
    slot.is_live() && !slot.bits.has(Bits::TOLD.and(Bits::DIRTY))
}

/// The next slot of the queue, if it is one of those; slots that have nothing to tell leave the queue.
fn next_changed(
    index: &mut Index,
    queue: &mut std::collections::VecDeque<Id>,
    is_one: impl Fn(&Slot) -> bool,
) -> Option<Id> {
    while let Some(&id) = queue.front() {
        let slot = index.touch(id);
        if slot.bits.has(Bits::DIRTY) && (slot.is_live() || slot.is_dead()) {
            if !is_one(slot) {
                return None;
            }
            queue.pop_front();
            slot.bits.clear(Bits::QUEUED);
            return Some(id);
        }
        slot.bits.clear(Bits::QUEUED);
        queue.pop_front();
    }
    None
}

fn record(slot: &Slot, now: Tick) -> ConnRecord {
    ConnRecord {
        conn: slot.conn(now),
        born: slot.born,
        you_had: slot.bits.has(Bits::HAS),
        mine: !slot.bits.has(Bits::THEIRS),
    }
}

/// What the frame of this number tells of a conn.
fn tell(index: &mut Index, id: Id, number: u64, now: Tick, ids: &mut Vec<Id>) -> ConnRecord {
    let slot = index.touch(id);
    let record = record(slot, now);
    note_told(slot, number);
    ids.push(id);
    record
}

fn tell_end(index: &mut Index, id: Id, number: u64, now: Tick, ids: &mut Vec<Id>) -> GoneRecord {
    let slot = index.touch(id);
    let why = if slot.bits.has(Bits::AGED) { Why::Aged } else { Why::Closed };
    let record =
        GoneRecord { key: slot.key, why, age: now.since(slot.created), idle: now.since(slot.last()), born: slot.born };
    note_told(slot, number);
    ids.push(id);
    record
}

fn note_told(slot: &mut Slot, number: u64) {
    slot.bits.set(Bits::TOLD.and(Bits::FLIGHT).and(Bits::SPREAD));
    slot.bits.clear(Bits::DIRTY);
    slot.sent = number as u16;
}

//! What the peer says about conns, and what both sides make of it.
//!
//! Words about one conn are added up: flags are only ever set, numbers and times only go forward, the end is final. So
//! order, loss and repetition do not matter. Of two conns of one key the one that began later counts, unless the other
//! one has seen its backend more recently: after a split that is the one the client has.

use std::cmp::Ordering;

use crate::sync::{
    Conn, Event, Key, Rejected, Tenths, Write,
    conn::{is_over, later, same_age},
    index::{Bits, Id},
    time::Tick,
    wire::{ConnRecord, GoneRecord, Why},
};

use super::{Replication, Todo, local::is_conn};

/// Who contests must have seen its backend by so much more recently: so both cannot.
const CLEARLY: Tenths = Tenths(2);
/// A conn that is about to end of itself is not defended.
const SLACK: Tenths = Tenths(10);

impl Replication {
    /// A conn of the peer, in the frame with this number.
    pub(super) fn take_conn(&mut self, record: &ConnRecord) {
        let ConnRecord { conn, born, .. } = record;
        self.time = self.time.max(*born);
        if let Err(cause) = self.check(conn) {
            self.counters.reject(cause);
            return;
        }
        let Some(id) = self.index.find(&conn.key) else {
            self.take_unknown(record);
            return;
        };
        let now = self.tick();
        let slot = self.index.get(id);
        if slot.is_dead() {
            // A client has one conn of a key at a time: what began before the one that has ended is over, too.
            let unknown = *born == 0 || slot.born == 0;
            let other = if unknown { is_younger(conn.age, now.since(slot.created)) } else { *born > slot.born };
            if other || (!is_over(conn.state()) && is_later(conn.idle(), now.since(slot.last()))) {
                self.adopt(id, record);
            }
            return;
        }
        let same = is_conn(slot, conn.backend, conn.client_port)
            // A conn that was insisted on has another beginning, and is the same.
            && ((*born == slot.born && *born != 0) || may_be_same(conn, &slot.conn(now)));
        if same {
            self.merge(id, record);
        } else {
            self.choose(id, record);
        }
    }

    /// Tells why a conn of the peer cannot be had here.
    fn check(&self, conn: &Conn) -> Result<(), Rejected> {
        if !conn.is_plausible() {
            return Err(Rejected::Implausible);
        }
        let backends = self.services.backends(conn.key.vip).ok_or(Rejected::UnknownService)?;
        if backends.contains(&conn.backend) { Ok(()) } else { Err(Rejected::UnknownBackend) }
    }

    fn take_unknown(&mut self, record: &ConnRecord) {
        let key = record.conn.key;
        if record.you_had {
            // It was here and is no more, and its end is forgotten by now.
            if let Some(memory) = &mut self.memory {
                memory.absent.push((key, record.born, record.conn.age));
                self.due.ack_now = true;
            }
            return;
        }
        if self.index.live() >= self.config.capacity {
            self.counters.reject(Rejected::Full);
            return;
        }
        let id = self.index.insert(key);
        self.adopt(id, record);
    }

    /// The peer's conn begins here, in a slot that may hold another one.
    fn adopt(&mut self, id: Id, record: &ConnRecord) {
        let slot = self.index.get(id);
        let known = slot.is_live().then(|| (slot.last(), slot.is_over()));
        let age = record.conn.age;
        let idle = match known {
            None => Tenths::MAX,
            // An entry that is not over is another conn, which the packet path has not told of yet.
            Some((_, true)) => age,
            // What was seen of the other one before this one began says nothing against it.
            Some((last, false)) => self.tick().since(last).min(age),
        };
        self.begin(id, &record.conn, record.born);
        let slot = self.index.touch(id);
        slot.bits.set(Bits::TOLD.and(Bits::HAS).and(Bits::SPREAD));
        slot.bits.put(Bits::THEIRS, record.mine);
        slot.bits.clear(Bits::DIRTY);
        self.counters.created += 1;
        self.write(Write::Create { conn: record.conn, idle });
    }

    /// More about a conn that both have.
    fn merge(&mut self, id: Id, record: &ConnRecord) {
        let ConnRecord { conn, born, mine, .. } = record;
        let now = self.tick();
        let slot = self.index.get(id);
        let flags = (slot.forward_seen | conn.forward.seen, slot.reverse_seen | conn.reverse.seen);
        let later_born = slot.born.max(*born);
        let news = flags != (slot.forward_seen, slot.reverse_seen);
        if news || later_born != slot.born {
            self.index.change(id, |slot| {
                (slot.forward_seen, slot.reverse_seen) = flags;
                slot.born = later_born;
            });
        }
        // The peer does not know all of it.
        let owing = flags != (conn.forward.seen, conn.reverse.seen) || later_born != *born;
        let moved = self.move_on(id, conn, *mine);
        let slot = self.index.touch(id);
        slot.bits.set(Bits::TOLD.and(Bits::HAS).and(Bits::SPREAD));
        if *mine {
            slot.created = now.before(conn.age);
        }
        if owing {
            self.dirty(id);
        }
        if news || moved {
            let conn = self.index.peek(id).conn(now);
            self.write(Write::Update(conn));
        }
    }

    /// Takes over numbers and times; answers whether the peer saw something more recently.
    fn move_on(&mut self, id: Id, conn: &Conn, mine: bool) -> bool {
        let now = self.tick();
        let slot = self.index.touch(id);
        let before = slot.last();
        for (side, half) in [(&mut slot.forward, conn.forward), (&mut slot.reverse, conn.reverse)] {
            side.ack = later(side.ack, half.ack);
            side.seq = later(side.seq, half.seq);
            side.last = side.last.max(now.before(half.idle));
        }
        let moved = slot.last() > before;
        if !mine {
            slot.bits.clear(Bits::THEIRS);
        } else if moved {
            slot.bits.set(Bits::THEIRS);
        }
        moved
    }

    /// Both have a conn of this key, and they are not the same one.
    fn choose(&mut self, id: Id, record: &ConnRecord) {
        let ConnRecord { conn, born, .. } = record;
        let now = self.tick();
        let slot = self.index.get(id);
        let own = now.since(slot.reverse.last);
        let peer = self.memory.as_ref().map_or(0, |memory| memory.node);
        let own_age = now.since(slot.created);
        let order = match *born == 0 || slot.born == 0 {
            true if same_age(conn.age, own_age) => Ordering::Equal,
            // The younger one began later.
            true => own_age.cmp(&conn.age),
            false => born.cmp(&slot.born),
        };
        // If the beginnings say nothing, both must come to the same result all the same.
        let theirs = match order {
            Ordering::Equal => (conn.reverse.idle, peer) < (own, self.config.node),
            order => order == Ordering::Greater,
        };
        let contest = !slot.is_over() && own.plus(CLEARLY) < conn.reverse.idle;
        if theirs && !contest {
            self.adopt(id, record);
            return;
        }
        let anew = theirs || *born >= slot.born;
        self.counters.contested += u64::from(theirs);
        self.insist(id, anew);
    }

    /// The peer is to have the conn that is here; `anew` if it would not believe its beginning.
    pub(super) fn insist(&mut self, id: Id, anew: bool) {
        if anew {
            let born = self.next_time();
            self.index.change(id, |slot| slot.born = born);
        }
        self.index.touch(id).bits.clear(Bits::HAS.and(Bits::THEIRS).and(Bits::DOUBT));
        self.dirty(id);
    }

    /// The peer says that a conn is no more, in the frame with this number.
    pub(super) fn take_gone(&mut self, record: &GoneRecord, frame: u64) {
        let GoneRecord { key, why, age, idle, born } = record;
        self.time = self.time.max(*born);
        let Some(id) = self.index.find(key) else {
            self.remember_end(*key, *born, frame);
            if *why != Why::Absent {
                // It may be in the table all the same, from before this process, and not have been looked at yet.
                self.write(Write::Remove { key: *key, idle: *idle });
            }
            return;
        };
        let now = self.tick();
        let slot = self.index.get(id);
        if slot.is_dead() {
            return;
        }
        let unknown = slot.born == 0 || *born == 0;
        let own_age = now.since(slot.created);
        // What has ended began after ours did: then ours is over for even longer.
        let later = unknown && is_younger(*age, own_age);
        let meant = if unknown { later || same_age(*age, own_age) } else { *born >= slot.born };
        let (own, over) = (now.since(slot.last()), slot.is_over());
        match why {
            // Beginnings can be compared only of directors that have heard of each other. But what was seen after the
            // end is another conn.
            Why::Closed | Why::Aged
                if (*why == Why::Closed || later)
                    && !over
                    && (unknown || meant)
                    && (!meant || is_later(own, *idle)) =>
            {
                self.insist(id, true);
            }
            Why::Closed | Why::Aged if meant && (*why == Why::Closed || later) => {
                self.counters.removed += 1;
                // What was seen before the end says nothing against it. And if it is over here, too, then an entry that
                // is not is another conn, which the packet path has not told of yet.
                let idle = if over { *idle } else { own.min(*idle) };
                self.write(Write::Remove { key: *key, idle });
                self.bury(id, *born, frame);
            }
            Why::Aged if meant => self.doubt(id, Tick::NEVER),
            // It ended there while there was no session. If it was used here since then, it goes on.
            Why::Absent if meant && slot.bits.has(Bits::HAS) => self.doubt(id, self.parted),
            _ => {}
        }
    }

    /// An end came before the beginning: if the beginning is only late, it must not count.
    fn remember_end(&mut self, key: Key, born: u64, frame: u64) {
        let Some(memory) = &self.memory else { return };
        if memory.receiver.received() < frame {
            let id = self.index.insert(key);
            self.bury(id, born, frame);
        }
    }

    /// The peer takes a conn for dead that may be alive here: whoever has seen it after `since` is right.
    fn doubt(&mut self, id: Id, since: Tick) {
        let now = self.tick();
        let slot = self.index.get(id);
        let idle = now.since(slot.last());
        let patience = self.config.timeouts.of(slot.state());
        let alive = !slot.is_over() && slot.last() > since && idle.plus(SLACK) < patience;
        if alive {
            self.counters.contested += 1;
            self.insist(id, true);
            return;
        }
        let retire = Todo::Retire(slot.key, idle);
        self.index.touch(id).bits.set(Bits::DOUBT);
        self.actions.push_back(retire);
    }

    /// The peer has seen the conn.
    pub(super) fn take_activity(&mut self, record: &ConnRecord) {
        let ConnRecord { conn, born, mine, .. } = record;
        let now = self.tick();
        let Some(id) = self.index.find(&conn.key) else { return };
        let slot = self.index.get(id);
        if !slot.is_live() || slot.born != *born || !is_conn(slot, conn.backend, conn.client_port) {
            return;
        }
        if self.move_on(id, conn, *mine) {
            if *mine {
                self.index.touch(id).created = now.before(conn.age);
            }
            let conn = self.index.peek(id).conn(now);
            self.write(Write::Update(conn));
        }
    }

    /// The packet path could not take a conn of the peer.
    pub(super) fn not_written(&mut self, key: &Key) {
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
        {
            self.counters.reject(Rejected::Table);
            self.index.free(id);
        }
    }

    /// The peer has other services or backends than we have.
    pub(super) fn note_fingerprint(&mut self, fingerprint: u64) {
        let own = self.config.fingerprint;
        let Some(memory) = &mut self.memory else { return };
        let differed = memory.fingerprint != own;
        memory.fingerprint = fingerprint;
        if differed != (fingerprint != own) {
            self.event(Event::ConfigDiffers(fingerprint != own));
        }
    }
}

/// Something of age `a` began clearly later than something of age `b`.
const fn is_younger(a: Tenths, b: Tenths) -> bool {
    a.0 < b.0 && !same_age(a, b)
}

/// Something that was silent for `a` was seen after something that was silent for `b`.
const fn is_later(a: Tenths, b: Tenths) -> bool {
    a.plus(Tenths::ROUNDING).0 < b.0
}

/// Two conns of one key and backend whose beginnings say nothing are one.
fn may_be_same(a: &Conn, b: &Conn) -> bool {
    let alike = match (is_over(a.state()), is_over(b.state())) {
        // The end came after everything that the other side has seen; or the other side's conn came after the end.
        (true, false) => a.idle() <= b.idle().plus(Tenths::ROUNDING),
        (false, true) => b.idle() <= a.idle().plus(Tenths::ROUNDING),
        _ => true,
    };
    alike && same_age(a.age, b.age)
}

//! What the packet path says: changes as they happen, and what a look through its table shows.
//!
//! Changes may be lost and the look may be old. So each only adds what it knows, and a single look at the conn decides
//! where they contradict each other.

use std::net::SocketAddrV4;

use lb_common::tcp::State;

use crate::sync::{
    Conn, Key, Seen, Tenths,
    conn::{is_over, later, same_age},
    index::{Bits, Id, Slot},
    time::Tick,
};

use super::{REPORTS, Replication, Todo};

const ROUNDING: Tenths = Tenths::ROUNDING;

impl Replication {
    /// A handshake is complete.
    pub(super) fn established(&mut self, conn: &Conn) {
        let now = self.tick();
        let Some(id) = self.index.find(&conn.key) else {
            let id = self.index.insert(conn.key);
            self.index.touch(id).bits.set(Bits::HERE);
            self.begin_anew(id, conn);
            return;
        };
        let slot = self.index.get(id);
        // The table may have shown the conn before its event came: then something was seen of it since.
        let is_known =
            slot.is_live() && is_conn(slot, conn.backend, conn.client_port) && now.before(conn.age) <= slot.last();
        if is_known {
            self.learn(id, conn);
        } else {
            self.begin_anew(id, conn);
        }
    }

    /// A side closed, or reset.
    pub(super) fn closing(&mut self, conn: &Conn) {
        let now = self.tick();
        let Some(id) = self.index.find(&conn.key) else {
            // Its beginning was lost.
            self.begin_new(conn);
            return;
        };
        let slot = self.index.get(id);
        if !slot.is_live() {
            return;
        }
        if is_same(slot, conn, now) {
            self.learn(id, conn);
        } else if now.before(conn.forward.idle.min(conn.reverse.idle)) > slot.last().after(ROUNDING) {
            self.begin_anew(id, conn);
        }
    }

    /// The conn is no more.
    pub(super) fn gone(&mut self, key: &Key, aged: bool) {
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
        {
            self.end(id, aged);
        }
    }

    /// The conn was removed because its time was over.
    pub(super) fn expired(&mut self, key: &Key, state: State) {
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
        {
            // Who has closed is done. Who has only been silent may have spoken elsewhere.
            let aged = !self.index.peek(id).is_over() && !is_over(state);
            self.end(id, aged);
        }
    }

    /// The packet path could not tell everything: the whole table tells.
    pub(super) fn changes_lost(&mut self) {
        self.scan.stale = true;
        if self.scan.running {
            // It has passed by what was lost, perhaps.
            self.scan.again = true;
        } else {
            self.begin_scan();
        }
    }

    pub(super) fn begin_scan(&mut self) {
        self.scan.running = true;
        self.scan.again = false;
        self.scan.at = None;
        self.scan.audit = None;
        self.scan.colour = !self.scan.colour;
        self.actions.push_back(Todo::Scan);
    }

    /// An entry of the table.
    pub(super) fn seen(&mut self, seen: &Seen) {
        let now = self.tick();
        let look = Todo::Look(seen.key);
        let Some(id) = self.index.find(&seen.key) else {
            if seen.forward {
                self.actions.push_back(look);
            }
            return;
        };
        let slot = self.index.get(id);
        let same = is_conn(slot, seen.backend, seen.client_port) && same_age(seen.age, now.since(slot.created));
        if !slot.is_live() || !same {
            if seen.forward {
                self.actions.push_back(look);
            }
            return;
        }
        let half = seen.half;
        let (side, flags) =
            if seen.forward { (slot.forward, slot.forward_seen) } else { (slot.reverse, slot.reverse_seen) };
        let last = now.before(half.idle);
        let moved = last > side.last.after(ROUNDING);
        if half.seen & !flags != 0 {
            self.index.change(id, |slot| {
                let own = if seen.forward { &mut slot.forward_seen } else { &mut slot.reverse_seen };
                *own |= half.seen;
            });
            self.dirty(id);
        }
        let colour = self.scan.colour;
        let slot = self.index.touch(id);
        slot.bits.put(Bits::COLOUR, colour);
        let side = if seen.forward { &mut slot.forward } else { &mut slot.reverse };
        side.ack = later(side.ack, half.ack);
        side.seq = later(side.seq, half.seq);
        side.last = side.last.max(last);
        slot.created = now.before(seen.age);
        if moved {
            // Who sees the packets answers for the conn.
            slot.bits.clear(Bits::THEIRS.and(Bits::ORPHAN));
            self.report(id);
        }
    }

    /// The peer is to hear that the conn is in use, unless there is too much else to do.
    fn report(&mut self, id: Id) {
        if self.session.as_ref().is_none_or(|session| !session.confirmed) {
            return;
        }
        let full = self.reports.len() >= REPORTS;
        let slot = self.index.touch(id);
        if slot.bits.has(Bits::REPORT) {
            return;
        }
        if full {
            self.counters.activity_left_out += 1;
            return;
        }
        slot.bits.set(Bits::REPORT);
        self.reports.push_back(id);
    }

    /// The whole table was shown. What was seen may call for looks, which come first.
    pub(super) fn scanned(&mut self) {
        self.actions.push_back(Todo::EndScan);
    }

    /// The looks of the scan are done, too.
    pub(super) fn end_scan(&mut self) {
        self.scan.running = false;
        self.scan.ever = true;
        self.scan.audit = Some(0);
        self.scan.at = Some(self.now + self.config.refresh);
        if self.scan.again {
            self.begin_scan();
        } else {
            self.scan.stale = false;
        }
    }

    /// Looks for conns that the last scan did not show, a few slots at a time; each gets a look of its own.
    pub(super) fn audit(&mut self) {
        const SLOTS: u32 = 8192;
        let Some(from) = self.scan.audit else { return };
        let end = self.index.end();
        let to = end.min(from.saturating_add(SLOTS));
        for id in from..to {
            let slot = self.index.peek(id);
            if slot.is_live() && slot.bits.has(Bits::COLOUR) != self.scan.colour {
                let look = Todo::Look(slot.key);
                self.actions.push_back(look);
            }
        }
        self.scan.audit = (to < end).then_some(to);
    }

    /// The table has the conn, like this.
    pub(super) fn found(&mut self, conn: &Conn) {
        let Some(id) = self.index.find(&conn.key) else {
            self.begin_new(conn);
            return;
        };
        let now = self.tick();
        let slot = self.index.get(id);
        if slot.is_live() && is_same(slot, conn, now) {
            let before = slot.last();
            self.learn(id, conn);
            let colour = self.scan.colour;
            let slot = self.index.touch(id);
            slot.bits.put(Bits::COLOUR, colour);
            slot.created = now.before(conn.age);
            if slot.last() > before.after(ROUNDING) {
                slot.bits.clear(Bits::THEIRS);
                if slot.bits.has(Bits::DOUBT) {
                    self.insist(id, true);
                }
            }
        } else {
            self.begin_anew(id, conn);
        }
    }

    /// The table does not have the conn.
    pub(super) fn not_found(&mut self, key: &Key) {
        self.gone(key, false);
    }

    fn begin_new(&mut self, conn: &Conn) {
        let id = self.index.insert(conn.key);
        self.begin_anew(id, conn);
    }

    fn begin_anew(&mut self, id: Id, conn: &Conn) {
        // What was there before the agent has a beginning that nobody knows. And logical times say something only to
        // directors that have heard of each other's: before that, conns have ages and nothing else.
        let heard = self.memory.as_ref().is_some_and(|memory| memory.bulk.told);
        let born = if self.scan.ever && heard { self.next_time() } else { 0 };
        self.begin(id, conn, born);
        // Before the first look is over: a conn that this process may not have seen the last packets of.
        self.index.touch(id).bits.put(Bits::ORPHAN, !self.scan.ever);
        self.dirty(id);
    }

    /// Adds what is known of a conn; answers whether its flags were news.
    pub(super) fn learn(&mut self, id: Id, conn: &Conn) -> bool {
        let now = self.tick();
        let slot = self.index.get(id);
        let news = (conn.forward.seen & !slot.forward_seen) | (conn.reverse.seen & !slot.reverse_seen) != 0;
        if news {
            self.index.change(id, |slot| {
                slot.forward_seen |= conn.forward.seen;
                slot.reverse_seen |= conn.reverse.seen;
            });
            self.dirty(id);
        }
        let slot = self.index.touch(id);
        for (side, half) in [(&mut slot.forward, conn.forward), (&mut slot.reverse, conn.reverse)] {
            side.ack = later(side.ack, half.ack);
            side.seq = later(side.seq, half.seq);
            side.last = side.last.max(now.before(half.idle));
        }
        news
    }
}

/// The table's conn is the slot's, and not one that has taken its key while the ring was full.
fn is_same(slot: &Slot, conn: &Conn, now: Tick) -> bool {
    is_conn(slot, conn.backend, conn.client_port) && same_age(conn.age, now.since(slot.created))
}

/// The slot's conn goes to this backend, with this port of the client.
pub(super) fn is_conn(slot: &Slot, backend: SocketAddrV4, client_port: u16) -> bool {
    slot.backend == backend && slot.client_port == client_port
}

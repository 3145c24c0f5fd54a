//! What the packet path says: changes as they happen, and what a look through its table shows.
//!
//! Changes may be lost and the look may be old. So each only adds what it knows, and a single look at the conn decides
//! where they contradict each other.

use std::net::SocketAddrV4;

use lb_common::tcp::State;

use crate::sync::{
    Conn, Key, Tenths,
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
        self.note_end(key);
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
        {
            self.end(id, aged);
        }
    }

    /// The conn was removed because its time was over.
    pub(super) fn expired(&mut self, key: &Key, state: State) {
        self.note_end(key);
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
        {
            // Who has closed is done. Who has only been silent may have spoken elsewhere.
            let aged = !self.index.peek(id).is_over() && !is_over(state);
            self.end(id, aged);
        }
    }

    /// What the first look has seen of a conn is believed; but it tells that later.
    fn note_end(&mut self, key: &Key) {
        if !self.scan.ever {
            self.scan.ended.insert(*key);
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

    /// A conn of the table, as it was a while ago.
    pub(super) fn seen(&mut self, conn: &Conn) {
        let now = self.tick();
        let Some(id) = self.index.find(&conn.key) else {
            // The first look finds everything, later ones what the ring has lost: that must be there still.
            if self.scan.ever || self.scan.ended.contains(&conn.key) {
                self.look(conn.key);
            } else {
                self.begin_new(conn);
            }
            return;
        };
        let slot = self.index.get(id);
        let news = (conn.forward.seen & !slot.forward_seen) | (conn.reverse.seen & !slot.reverse_seen) != 0;
        if !slot.is_live() || news || !is_same(slot, conn, now) {
            self.look(conn.key);
            return;
        }
        let sides = [(slot.forward, conn.forward), (slot.reverse, conn.reverse)];
        let moved = sides.iter().any(|(side, half)| now.before(half.idle) > side.last.after(ROUNDING));
        self.learn(id, conn);
        self.note_seen(id, conn);
        if moved {
            // Who sees the packets answers for the conn.
            self.index.touch(id).bits.clear(Bits::THEIRS.and(Bits::ORPHAN));
            self.report(id);
        }
    }

    /// The table is to be asked for a conn, after what was decided before is done.
    pub(super) fn look(&mut self, key: Key) {
        self.actions.push_back(Todo::Look(key));
    }

    /// The scan has come by the slot's conn.
    fn note_seen(&mut self, id: Id, conn: &Conn) {
        let (now, colour) = (self.tick(), self.scan.colour);
        let slot = self.index.touch(id);
        slot.bits.put(Bits::COLOUR, colour);
        slot.created = now.before(conn.age);
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
        self.scan.ended = std::collections::HashSet::new();
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
                let key = slot.key;
                self.look(key);
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
            self.note_seen(id, conn);
            let slot = self.index.touch(id);
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

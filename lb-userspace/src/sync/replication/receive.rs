//! Datagrams that arrive: what is refused before anything is opened, and what each item of a frame sets going.

use crate::sync::{
    Beat, Event, Refused, Role,
    index::Bits,
    stream::{Arrival, Fate},
    wire::{self, Ack, Foreign, HEADER, Header, Item, Items, Kind, Missing, Why},
};

use super::{ACK, ACK_BYTES, REORDER, Replication, Todo};

/// The longest datagram that is looked at.
const LONGEST: usize = 9216;

/// Whether what a frame tells of conns counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The frame has no number in the stream.
    None,
    /// It counts, under this number.
    Counts(u64),
    /// It was told before, or cannot be kept apart.
    Not,
}

impl Replication {
    /// A datagram arrives.
    pub(super) fn datagram(&mut self, bytes: &mut [u8]) {
        if bytes.len() < HEADER || bytes.len() > LONGEST {
            self.counters.refuse(Refused::Length);
            return;
        }
        let header = match Header::read(bytes) {
            Ok(header) => header,
            Err(foreign) => {
                self.counters.refuse(match foreign {
                    Foreign::NotOurs => Refused::NotOurs,
                    Foreign::Version(_) => Refused::Version,
                    Foreign::Kind => Refused::Kind,
                });
                return;
            }
        };
        if header.node == self.config.node {
            self.counters.refuse(Refused::OwnNode);
        } else if header.insecure != self.config.insecure {
            self.counters.refuse(Refused::Unprotected);
        } else {
            match header.kind {
                Kind::Greeting => self.greeting(&header, bytes),
                Kind::Session => self.session_frame(&header, bytes),
            }
        }
    }

    fn session_frame(&mut self, header: &Header, bytes: &mut [u8]) {
        let length = bytes.len();
        let Some(session) = self.session.as_mut().filter(|session| session.keys.id == header.session) else {
            self.counters.refuse(Refused::UnknownSession);
            return;
        };
        if !session.replay.is_new(header.number) {
            self.counters.refuse(Refused::Replayed);
            return;
        }
        let Some(body) = session.keys.receive.open(header.number, bytes, HEADER) else {
            self.counters.refuse(Refused::Forged);
            return;
        };
        session.replay.note(header.number);
        session.heard = self.now;
        let confirmed = session.confirmed;
        let items = Items::new(body);
        if !items.are_sound() {
            self.counters.refuse(Refused::Malformed);
            return;
        }
        self.counters.received.add(length);
        if !confirmed {
            self.confirm();
        }
        let mut word = Word::None;
        for item in items.flatten() {
            self.item(item, &mut word);
        }
        self.after_frame(word, length);
    }

    fn item(&mut self, item: Item<'_>, word: &mut Word) {
        match item {
            Item::Ack(ack) => self.acknowledged(&ack),
            Item::Stream(number) => {
                let Some(memory) = &mut self.memory else { return };
                *word = match memory.receiver.arrive(number) {
                    Arrival::New => Word::Counts(number),
                    Arrival::Again => Word::Not,
                    Arrival::Ahead => {
                        self.counters.refuse(Refused::Ahead);
                        Word::Not
                    }
                };
            }
            Item::Conns(records) => {
                if let Word::Counts(_) = word {
                    for record in records {
                        match record {
                            Some(record) => self.take_conn(&record),
                            None => self.counters.reject(crate::sync::Rejected::UnknownKind),
                        }
                    }
                }
            }
            Item::Gone(records) => {
                let top = self.memory.as_ref().map_or(0, |memory| memory.receiver.top());
                for record in records {
                    match (record, *word) {
                        (Some(record), Word::Counts(number)) => self.take_gone(&record, number),
                        // Said once, outside of the stream.
                        (Some(record), Word::None) if record.why == Why::Absent => self.take_gone(&record, top),
                        (None, Word::Counts(_)) => self.counters.reject(crate::sync::Rejected::UnknownKind),
                        _ => {}
                    }
                }
            }
            Item::Activity(records) => records.flatten().for_each(|record| self.take_activity(&record)),
            Item::Missing(missing) => self.missing(&missing),
            Item::Beat(beat) => self.heartbeat(&beat),
            Item::Mark(mark) => self.compare(&mark),
            Item::Digests(digests) => self.compare_buckets(digests),
            Item::Repair(buckets) => buckets.for_each(|bucket| self.send_bucket(bucket)),
            Item::Pull(keys) => keys.flatten().for_each(|key| self.pulled(&key)),
            Item::Notice(part) => {
                if self.inbox.take(&part) {
                    self.actions.push_back(Todo::Notice);
                }
            }
            Item::Bye => self.peer_down(true),
            Item::Unknown => {}
        }
    }

    fn acknowledged(&mut self, ack: &Ack) {
        self.time = self.time.max(ack.time);
        let Some(memory) = &mut self.memory else { return };
        memory.receiver.know(ack.sent);
        memory.receiver.raise(ack.floor);
        let fates = &mut self.fates;
        memory.sender.acknowledged(ack.received, |id, number| fates.push((id, number, Fate::Arrived)));
        let refused = memory.said.refused != ack.refused;
        memory.said.refused = ack.refused;
        memory.said.equal = memory.said.equal.max(ack.equal);
        let equal = memory.said.equal;
        self.settle(ack.sent);
        if refused {
            // Which conns those were is not known: so it is not known of any that the peer has it.
            self.index.forget_knowledge();
        }
        if self.drain.and_then(|drain| drain.mark).is_some_and(|mark| mark <= equal) {
            self.drained(Ok(()));
        }
    }

    fn missing(&mut self, missing: &Missing<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let is_missing =
            |number: u64| missing.ranges().any(|(first, count)| (first..first + u64::from(count)).contains(&number));
        let fates = &mut self.fates;
        memory.sender.missed(missing.upto, is_missing, |id, number, fate| fates.push((id, number, fate)));
        let top = memory.receiver.top();
        self.counters.resent += missing.ranges().map(|(_, count)| u64::from(count)).sum::<u64>();
        self.settle(top);
        // The floor goes out, if nothing else does.
        self.due.flush_now = true;
        self.due.ack_now = true;
    }

    fn heartbeat(&mut self, beat: &wire::Beat) {
        let Some(memory) = &mut self.memory else { return };
        let said = &mut memory.said;
        said.beat = Beat { role: Role::of(beat.role), priority: beat.priority, address: beat.address };
        said.settled = beat.settled;
        said.conns = beat.conns;
        (said.bulk_done, said.bulk_total, said.bulk_end) = (beat.bulk_done, beat.bulk_total, beat.bulk_end);
        let told = said.beat;
        self.actions.push_back(Todo::Beat(told));
        self.note_fingerprint(beat.fingerprint);
    }

    /// The peer asks for a conn that a packet of its missed.
    fn pulled(&mut self, key: &crate::sync::Key) {
        if let Some(id) = self.index.find(key)
            && self.index.get(id).is_live()
            && self.pull_limit.take(self.now)
        {
            self.index.touch(id).bits.clear(Bits::HAS);
            self.dirty(id);
            self.due.flush_now = true;
        }
    }

    fn after_frame(&mut self, word: Word, length: usize) {
        self.release();
        let Some(memory) = &mut self.memory else { return };
        if memory.receiver.has_gap() {
            self.due.missing.get_or_insert(self.now + REORDER);
        } else {
            self.due.missing = None;
        }
        if word != Word::None {
            memory.unacknowledged += length;
            if memory.unacknowledged >= ACK_BYTES {
                self.due.ack_now = true;
            } else {
                self.due.ack.get_or_insert(self.now + ACK);
            }
        }
        self.note_bulk();
    }

    /// Says once that both have sent each other everything.
    fn note_bulk(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        if !memory.bulk.told && memory.bulk_is_done() {
            memory.bulk.told = true;
            self.event(Event::BulkDone);
        }
    }
}

//! The two ends of the stream of frames that tell of conns: numbers, acknowledgement, what is missing.
//!
//! The sender keeps no frames but which slots each told of: what was lost is told anew as it is then. The receiver
//! learns by the floor that what it lacks below comes in later frames, so a late original counts no more. A stream
//! outlives sessions: it belongs to the memories of both directors, not to their keys.

use std::collections::VecDeque;

use super::index::Id;

/// Frames that may be under way.
pub(super) const WINDOW: u64 = 1000;
/// Numbers that a receiver keeps apart: more than may be under way.
const KEPT: u64 = 1024;
const WORDS: usize = (KEPT / 64) as usize;

/// A frame that is not acknowledged.
#[derive(Debug, Default)]
struct Sent {
    ids: Vec<Id>,
    bulk: bool,
}

/// What became of a frame that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The peer has taken it in.
    Arrived,
    /// It was lost.
    Lost,
}

/// The sending end.
#[derive(Debug, Default)]
pub(super) struct Sender {
    last: u64,
    floor: u64,
    /// Frames from `last - len + 1` on.
    history: VecDeque<Sent>,
    /// Kept, so that a frame allocates nothing.
    spare: Vec<Vec<Id>>,
    /// Slots that frames of a bulk told of.
    bulk: usize,
}

impl Sender {
    /// The last number sent.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// What the receiver lacks below comes in later frames.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// Frames under way.
    pub(super) fn under_way(&self) -> u64 {
        self.history.len() as u64
    }

    /// Conns of a bulk under way.
    pub(super) const fn bulk_under_way(&self) -> usize {
        self.bulk
    }

    /// An empty list for the slots of the next frame.
    pub(super) fn list(&mut self) -> Vec<Id> {
        self.spare.pop().unwrap_or_default()
    }

    /// Notes the frame with the next number.
    pub(super) fn sent(&mut self, ids: Vec<Id>, bulk: bool) {
        self.last += 1;
        self.bulk += if bulk { ids.len() } else { 0 };
        self.history.push_back(Sent { ids, bulk });
    }

    /// The receiver has everything up to `received`: `each` hears of every slot that frames told of, with the frame's
    /// number.
    pub(super) fn acknowledged(&mut self, received: u64, mut each: impl FnMut(Id, u64)) {
        let received = received.min(self.last);
        while self.first() <= received && !self.history.is_empty() {
            let number = self.first();
            let Some(sent) = self.history.pop_front() else { break };
            self.done(sent, |id| each(id, number));
        }
    }

    /// The receiver has everything up to `upto` but what `is_missing` says: `each` hears of every slot what became of
    /// its frame. From now on the receiver need not wait for what it lacks up to there.
    pub(super) fn missed(&mut self, upto: u64, is_missing: impl Fn(u64) -> bool, mut each: impl FnMut(Id, u64, Fate)) {
        let upto = upto.min(self.last);
        while self.first() <= upto && !self.history.is_empty() {
            let number = self.first();
            let Some(sent) = self.history.pop_front() else { break };
            let fate = if is_missing(number) { Fate::Lost } else { Fate::Arrived };
            self.done(sent, |id| each(id, number, fate));
        }
        self.floor = self.floor.max(upto + 1);
    }

    fn done(&mut self, mut sent: Sent, each: impl FnMut(Id)) {
        self.bulk -= if sent.bulk { sent.ids.len() } else { 0 };
        sent.ids.drain(..).for_each(each);
        if sent.ids.capacity() != 0 {
            self.spare.push(sent.ids);
        }
    }

    fn first(&self) -> u64 {
        self.last + 1 - self.history.len() as u64
    }
}

/// What a frame is to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It counts.
    New,
    /// It was taken in before, or told anew.
    Again,
    /// It is so far ahead that it cannot be kept apart from others.
    Ahead,
}

/// The receiving end.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    /// Everything up to this number is taken in.
    received: u64,
    /// The highest number known to be sent.
    top: u64,
    seen: [u64; WORDS],
}

impl Receiver {
    /// Everything up to this number is taken in.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Something up to here is missing, as far as is known.
    pub(super) const fn has_gap(&self) -> bool {
        self.received < self.top
    }

    /// The highest number known to be sent.
    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// The peer says that it has sent up to `sent`.
    pub(super) fn know(&mut self, sent: u64) {
        self.top = self.top.max(sent);
    }

    /// A frame arrives.
    pub(super) fn arrive(&mut self, number: u64) -> Arrival {
        self.know(number);
        if number <= self.received {
            return Arrival::Again;
        }
        if number - self.received > KEPT {
            return Arrival::Ahead;
        }
        if self.has(number) {
            return Arrival::Again;
        }
        self.seen[word(number)] |= bit(number);
        self.advance();
        Arrival::New
    }

    /// What is lacking below `floor` comes in later frames.
    pub(super) fn raise(&mut self, floor: u64) {
        // A floor above everything that was sent would only be a mistake of the peer.
        let floor = floor.min(self.top + 1);
        while self.received + 1 < floor {
            let next = self.received + 1;
            self.seen[word(next)] &= !bit(next);
            self.received = next;
        }
        self.advance();
    }

    /// What is missing, as first number and count, and up to which number that is the whole truth.
    pub(super) fn missing(&self) -> (u64, impl Iterator<Item = (u64, u32)>) {
        let upto = self.top.min(self.received + KEPT);
        let mut next = self.received + 1;
        let ranges = std::iter::from_fn(move || {
            while next <= upto && self.has(next) {
                next += 1;
            }
            let first = next;
            while next <= upto && !self.has(next) {
                next += 1;
            }
            (next > first).then(|| (first, (next - first) as u32))
        });
        (upto, ranges)
    }

    fn has(&self, number: u64) -> bool {
        self.seen[word(number)] & bit(number) != 0
    }

    fn advance(&mut self) {
        while self.has(self.received + 1) {
            self.received += 1;
            self.seen[word(self.received)] &= !bit(self.received);
        }
    }
}

const fn word(number: u64) -> usize {
    (number % KEPT / 64) as usize
}

const fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_counts_once_in_any_order() {
        let mut receiver = Receiver::default();
        for (number, arrival, received) in [
            (1, Arrival::New, 1),
            (3, Arrival::New, 1),
            (3, Arrival::Again, 1),
            (5, Arrival::New, 1),
            (2, Arrival::New, 3),
            (2, Arrival::Again, 3),
            (3 + KEPT + 1, Arrival::Ahead, 3),
            (4, Arrival::New, 5),
        ] {
            assert_eq!((receiver.arrive(number), receiver.received()), (arrival, received), "{number}");
        }
    }

    #[test]
    fn what_is_missing_is_named_up_to_where_the_truth_is_known() {
        let mut receiver = Receiver::default();
        [1, 4, 5, 8].into_iter().for_each(|number| assert_eq!(receiver.arrive(number), Arrival::New));
        receiver.know(9);
        let (upto, ranges) = receiver.missing();
        assert_eq!((upto, ranges.collect::<Vec<_>>()), (9, vec![(2, 2), (6, 2), (9, 1)]));
        receiver.raise(7);
        assert_eq!(receiver.received(), 6);
        assert_eq!(receiver.arrive(3), Arrival::Again, "a late original");
        receiver.raise(100);
        assert_eq!((receiver.received(), receiver.has_gap()), (9, false));
    }

    #[test]
    fn the_sender_hears_what_became_of_every_slot() {
        let mut sender = Sender::default();
        for id in [10, 20, 30, 40, 50] {
            let mut list = sender.list();
            list.extend([id, id + 1]);
            sender.sent(list, id == 50);
        }
        let mut acked = Vec::new();
        sender.acknowledged(1, |id, number| acked.push((id, number)));
        assert_eq!(acked, [(10, 1), (11, 1)]);
        let mut fates = Vec::new();
        sender.missed(4, |number| number == 3, |id, number, fate| fates.push((id, number, fate)));
        let expected = [(20, 2, Fate::Arrived), (21, 2, Fate::Arrived), (30, 3, Fate::Lost), (31, 3, Fate::Lost)];
        assert_eq!(fates[..4], expected);
        assert_eq!(fates.len(), 6);
        assert_eq!((sender.floor(), sender.under_way(), sender.bulk_under_way()), (5, 1, 2));
        // The same again tells nothing new.
        sender.missed(4, |_| true, |id, number, _| panic!("slot {id} of frame {number}"));
        sender.acknowledged(99, |id, number| assert_eq!((id / 10, number), (5, 5)));
        assert_eq!((sender.under_way(), sender.bulk_under_way()), (0, 0));
    }

    #[test]
    fn a_frame_allocates_nothing_once_the_lists_are_there() {
        let mut sender = Sender::default();
        let mut list = sender.list();
        list.push(1);
        let place = list.as_ptr();
        sender.sent(list, false);
        sender.acknowledged(1, |_, _| {});
        let list = sender.list();
        assert_eq!(list.as_ptr(), place);
    }
}

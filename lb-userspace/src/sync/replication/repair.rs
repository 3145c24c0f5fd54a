//! Are both tables equal? A mark says so for the whole table at a moment at which nothing is under way; if not, the
//! digests of all buckets tell where they differ, and both send those buckets anew.

use crate::sync::{
    Event,
    index::{BUCKETS, Id},
    wire::{Mark, Writer, write},
};

use super::Replication;

/// Buckets sent anew for one look at all digests.
const AT_ONCE: usize = 256;
/// The first pause between two looks; it doubles up to [`ROUNDS`] times.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
const ROUNDS: u32 = 6;

impl Replication {
    /// The peer has told everything up to the mark, and so have we if it is of any use.
    pub(super) fn compare(&mut self, mark: &Mark) {
        if mark.urgent {
            self.due.flush_now = true;
            self.due.ack_now = true;
        }
        let comparable = self.can_compare();
        let (conns, digest, now) = (self.index.live() as u32, self.index.digest(), self.now);
        let Some(memory) = &mut self.memory else { return };
        let same_moment = memory.receiver.received() == mark.sent && mark.received == memory.sender.last();
        if !comparable || !same_moment || !memory.peer_bulk_is_done() {
            return;
        }
        let compare = &mut memory.compare;
        let before = compare.verdict;
        if (mark.conns, mark.digest) == (conns, digest) {
            compare.equal = mark.id;
            compare.equal_at = Some(now);
            compare.verdict = Some(true);
            (compare.unequal, compare.rounds, compare.again) = (0, 0, None);
            self.due.ack_now |= mark.urgent;
            if before != Some(true) {
                self.event(Event::Equal);
            }
            return;
        }
        compare.unequal += 1;
        // One difference may be a change that the ring holds still.
        if compare.unequal < 2 {
            return;
        }
        compare.verdict = Some(false);
        if compare.again.is_none_or(|again| again <= now) && memory.digests.is_none() {
            memory.digests = Some(0);
            compare.again = Some(now + PAUSE * 2_u32.pow(compare.rounds));
            compare.rounds = (compare.rounds + 1).min(ROUNDS);
        }
        if before != Some(false) {
            self.event(Event::Diverged);
        }
    }

    /// Adds digests, if some are to be sent and there is room for more than a few.
    pub(super) fn fill_digests(&mut self, to: &mut Writer<'_>) {
        let Some(first) = self.memory.as_ref().and_then(|memory| memory.digests) else { return };
        if !to.fits(256) {
            return;
        }
        let mut next = first;
        write::digests(
            first,
            || {
                let bucket = next;
                (usize::from(bucket) < BUCKETS).then(|| {
                    next += 1;
                    self.index.bucket_digest(bucket)
                })
            },
            to,
        );
        if let Some(memory) = &mut self.memory {
            memory.digests = (usize::from(next) < BUCKETS).then_some(next);
        }
    }

    /// The peer's digests: what differs is sent, and asked for.
    pub(super) fn compare_buckets(&mut self, digests: impl Iterator<Item = (u16, u64)>) {
        for (bucket, digest) in digests {
            let Some(memory) = &mut self.memory else { return };
            if usize::from(bucket) >= BUCKETS || memory.repair.len() >= AT_ONCE {
                return;
            }
            if self.index.bucket_digest(bucket) != digest {
                memory.repair.push(bucket);
                self.send_bucket(bucket);
            }
        }
    }

    /// All conns of a bucket are to be sent anew.
    pub(super) fn send_bucket(&mut self, bucket: u16) {
        let ids: Vec<Id> = self.index.bucket(bucket).collect();
        for id in ids {
            if self.index.get(id).is_live() {
                self.dirty(id);
            }
        }
        self.counters.repaired += 1;
    }
}

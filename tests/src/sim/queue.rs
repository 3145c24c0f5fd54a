//! What happens next in a simulated world: ordered by time, and of one time by age.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// Events that wait for their time.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    count: u64,
}

#[derive(Debug)]
struct Due<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }

    pub(super) fn push(&mut self, at: Instant, event: E) {
        self.count += 1;
        self.heap.push(Reverse(Due { at, number: self.count, event }));
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// Takes the next event, if it is due by `end`.
    pub(super) fn pop_until(&mut self, end: Instant) -> Option<(Instant, E)> {
        if self.next_at()? > end {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

//! A notice: bytes that one director wants the other one to have, as they are now. Nobody here knows what they say.
//!
//! A notice travels in parts, each in an item of its own, and all parts are sent again and again: nothing is
//! acknowledged, a part that is lost comes with the next round. A later notice replaces an earlier one as a whole.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of every part but the last: fits into the shortest frame, whatever else is in it.
pub(super) const PART: usize = 384;
/// Parts of the longest notice.
pub(super) const PARTS: usize = 64;
/// The pause between two rounds.
const AGAIN: Duration = Duration::from_millis(500);

/// Some bytes, at most [`Notice::LONGEST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice(Arc<[u8]>);

impl Notice {
    /// Bytes of the longest one.
    pub const LONGEST: usize = PARTS * PART;

    /// `None`: they are too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::LONGEST).then(|| Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn parts(&self) -> usize {
        self.0.len().div_ceil(PART).max(1)
    }
}

/// One part, as it lies in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Later notices have a higher number, as long as the sender's epoch lasts.
    pub(super) version: u32,
    /// How many parts there are: one at least, and [`PARTS`] at most.
    pub(super) of: u8,
    /// Which one it is, from 0 on.
    pub(super) at: u8,
    /// [`PART`] of them, or fewer in the last part.
    pub(super) bytes: &'a [u8],
}

impl Part<'_> {
    /// It can be a part of a notice.
    pub(super) fn is_sound(&self) -> bool {
        let (at, of) = (usize::from(self.at), usize::from(self.of));
        let last = at + 1 == of;
        at < of && of <= PARTS && (self.bytes.len() == PART || last && self.bytes.len() < PART)
    }
}

/// What the peer is to have.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    version: u32,
    notice: Option<Notice>,
    /// The next part of the round that is being sent.
    next: Option<u8>,
    /// When the next round begins.
    again: Option<Instant>,
}

impl Outbox {
    /// Takes another notice; the same one again changes nothing.
    pub(super) fn put(&mut self, notice: Notice) {
        if self.notice.as_ref() != Some(&notice) {
            self.version += 1;
            self.notice = Some(notice);
            self.begin();
        }
    }

    /// Begins a round now.
    pub(super) fn begin(&mut self) {
        self.next = self.notice.as_ref().map(|_| 0);
        self.again = None;
    }

    /// There is a part to send.
    pub(super) const fn is_due(&self) -> bool {
        self.next.is_some()
    }

    /// When [`Self::handle_timeout`] must be called next.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.again
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.begin();
        }
    }

    /// The part to send next.
    pub(super) fn part(&self) -> Option<Part<'_>> {
        let (notice, at) = (self.notice.as_ref()?, self.next?);
        let from = usize::from(at) * PART;
        let bytes = notice.0.get(from..notice.0.len().min(from + PART))?;
        // At most PARTS.
        Some(Part { version: self.version, of: notice.parts() as u8, at, bytes })
    }

    /// It is in a frame.
    pub(super) fn sent(&mut self, now: Instant) {
        let parts = self.notice.as_ref().map_or(0, Notice::parts);
        self.next = self.next.map(|at| at + 1).filter(|at| usize::from(*at) < parts);
        if self.next.is_none() {
            self.again = Some(now + AGAIN);
        }
    }
}

/// What the peer has sent.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    version: u32,
    of: u8,
    /// One bit for each part that is there.
    have: u64,
    bytes: Vec<u8>,
    whole: Option<Notice>,
}

impl Inbox {
    /// Takes a part that is sound; `true`: there is another notice now.
    pub(super) fn take(&mut self, part: &Part<'_>) -> bool {
        let begins = self.of == 0 || part.version > self.version;
        if begins {
            (self.version, self.of, self.have) = (part.version, part.of, 0);
            self.bytes.clear();
            self.bytes.resize(usize::from(part.of) * PART, 0);
        }
        let bit = 1_u64.checked_shl(part.at.into()).unwrap_or(0);
        if part.version != self.version || part.of != self.of || self.have & bit != 0 {
            return false;
        }
        let from = usize::from(part.at) * PART;
        let Some(place) = self.bytes.get_mut(from..from + part.bytes.len()) else { return false };
        place.copy_from_slice(part.bytes);
        self.have |= bit;
        if part.at + 1 == self.of {
            self.bytes.truncate(from + part.bytes.len());
        }
        let whole = self.have.count_ones() == u32::from(self.of);
        if whole {
            self.whole = Notice::new(&self.bytes);
        }
        whole
    }

    /// The last notice that came whole; `None`: none did, or the peer is gone.
    pub(super) fn notice(&self) -> Option<Notice> {
        self.whole.clone()
    }

    /// The peer is gone; `true`: there was a notice of it.
    pub(super) fn forget(&mut self) -> bool {
        std::mem::take(self).whole.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(length: usize, seed: u8) -> Notice {
        Notice::new(&(0..length).map(|at| at as u8 ^ seed).collect::<Vec<_>>()).unwrap()
    }

    /// One round, of which only the parts arrive that `arrives` names.
    fn round(outbox: &mut Outbox, inbox: &mut Inbox, now: Instant, arrives: impl Fn(u8) -> bool) -> usize {
        let mut news = 0;
        while let Some(part) = outbox.part() {
            assert!(part.is_sound(), "{part:?}");
            if arrives(part.at) {
                news += usize::from(inbox.take(&part));
            }
            outbox.sent(now);
        }
        news
    }

    #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_notice_of_any_length_arrives_once_however_often_it_is_sent() {
        let now = start();
        for length in [0, 1, PART - 1, PART, PART + 1, 5 * PART, Notice::LONGEST - 1, Notice::LONGEST] {
            let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
            let said = notice(length, 3);
            outbox.put(said.clone());
            assert_eq!(round(&mut outbox, &mut inbox, now, |_| true), 1, "{length}");
            assert_eq!(inbox.notice(), Some(said.clone()));
            outbox.put(said);
            assert!(!outbox.is_due(), "the same again is no news");
            outbox.handle_timeout(now + AGAIN);
            assert!(outbox.is_due());
            assert_eq!(round(&mut outbox, &mut inbox, now, |_| true), 0);
        }
        assert_eq!(Notice::new(&[0; Notice::LONGEST + 1]), None);
    }

    #[test]
    fn what_is_lost_comes_with_the_next_round_and_the_old_notice_holds_until_then() {
        let now = start();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        outbox.put(notice(10, 1));
        round(&mut outbox, &mut inbox, now, |_| true);
        let long = notice(3 * PART + 5, 2);
        outbox.put(long.clone());
        assert_eq!(round(&mut outbox, &mut inbox, now, |at| at % 2 == 0), 0);
        assert_eq!(inbox.notice(), Some(notice(10, 1)));
        outbox.begin();
        assert_eq!(round(&mut outbox, &mut inbox, now, |at| at != 3), 0);
        outbox.begin();
        assert_eq!(round(&mut outbox, &mut inbox, now, |at| at == 3), 1);
        assert_eq!(inbox.notice(), Some(long));
    }

    #[test]
    fn what_was_overtaken_does_not_come_back() {
        let now = start();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        outbox.put(notice(10, 1));
        let old = outbox.part().map(|part| (part.version, part.bytes.to_vec())).unwrap();
        outbox.put(notice(12, 2));
        assert_eq!(round(&mut outbox, &mut inbox, now, |_| true), 1);
        assert!(!inbox.take(&Part { version: old.0, of: 1, at: 0, bytes: &old.1 }));
        assert_eq!(inbox.notice(), Some(notice(12, 2)));
        assert!(inbox.forget() && inbox.notice().is_none() && !inbox.forget());
        // Whoever starts anew counts anew.
        assert!(inbox.take(&Part { version: 1, of: 1, at: 0, bytes: b"x" }));
    }

    #[test]
    fn parts_that_nobody_can_have_sent_are_not_sound() {
        let whole = [0; PART];
        let part = |of, at, bytes| Part { version: 1, of, at, bytes };
        for sound in [part(1, 0, &whole[..0]), part(64, 63, &whole), part(2, 0, &whole), part(2, 1, &whole[1..])] {
            assert!(sound.is_sound(), "{sound:?}");
        }
        for bad in [part(0, 0, &whole[..]), part(1, 1, &whole), part(65, 0, &whole), part(2, 0, &whole[1..])] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
        assert!(!part(1, 0, &[0; PART + 1]).is_sound());
        // Sound ones that contradict each other do no harm.
        let mut inbox = Inbox::default();
        assert!(!inbox.take(&part(2, 0, &whole)));
        assert!(!inbox.take(&part(3, 1, &whole)));
        assert!(!inbox.take(&part(1, 0, &whole)));
        assert!(inbox.take(&part(2, 1, &whole[..7])));
        assert_eq!(inbox.notice().map(|notice| notice.bytes().len()), Some(PART + 7));
    }
}

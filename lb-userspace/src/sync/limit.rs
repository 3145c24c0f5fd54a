//! A token bucket: what costs something and can be asked for by anybody is done so often and no oftener.

use std::time::{Duration, Instant};

/// So many at once, and one more every so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    burst: u32,
    every: Duration,
    tokens: u32,
    since: Option<Instant>,
}

impl Limit {
    /// A full bucket.
    pub(super) const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, tokens: burst, since: None }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let gained = now.saturating_duration_since(since).as_nanos() / self.every.as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained != 0 {
            self.tokens = self.tokens.saturating_add(gained).min(self.burst);
            self.since = Some(if self.tokens == self.burst { now } else { since + self.every * gained });
        }
        let some = self.tokens != 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_what_it_holds_and_then_its_rate() {
        #[expect(clippy::disallowed_methods, reason = "an origin: an Instant has no other")]
        let start = Instant::now();
        let ms = Duration::from_millis(1);
        let mut limit = Limit::new(3, ms * 10);
        let taken = |limit: &mut Limit, at| (0..10).filter(|_| limit.take(at)).count();
        assert_eq!(taken(&mut limit, start), 3);
        assert_eq!(taken(&mut limit, start + ms * 9), 0);
        assert_eq!(taken(&mut limit, start + ms * 25), 2);
        assert_eq!(taken(&mut limit, start + ms * 29), 0);
        assert_eq!(taken(&mut limit, start + ms * 30), 1, "the half token is not lost");
        assert_eq!(taken(&mut limit, start + ms * 9999), 3);
    }
}

//! The last checks of a backend, equal ones in a row folded into one line, so that a short list reaches far back.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::outcome::Outcome;

/// Lines that are kept.
pub const LINES: usize = 16;

/// Equal checks in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `pass`, `fail`, …
    pub word: &'static str,
    /// What there is to say.
    pub text: String,
    /// When the first of them ended.
    pub first: Instant,
    /// When the last of them ended.
    pub last: Instant,
    /// How many.
    pub count: u64,
    /// How long the last one took.
    pub latency: Duration,
    /// How long the slowest one took.
    pub slowest: Duration,
}

/// The list, newest last.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Line>);

impl History {
    /// Takes down a check that ended at `now`.
    pub fn note(&mut self, outcome: &Outcome, latency: Duration, now: Instant) {
        let (word, text) = (outcome.word(), outcome.text());
        if let Some(line) = self.0.back_mut()
            && line.word == word
            && line.text == text
        {
            line.last = now;
            line.count += 1;
            line.latency = latency;
            line.slowest = line.slowest.max(latency);
            return;
        }
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(Line { word, text, first: now, last: now, count: 1, latency, slowest: latency });
    }

    /// From the oldest to the newest.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::outcome::Fault;

    #[test]
    fn equal_checks_fold_and_old_lines_go() {
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut history = History::default();
        for (at, latency) in [(0, 1), (1000, 9), (2000, 3)] {
            history.note(&Outcome::Pass(None), ms(latency), start + ms(at));
        }
        let line = history.lines().next().unwrap();
        assert_eq!((line.count, line.latency, line.slowest), (3, ms(3), ms(9)));
        assert_eq!((line.first, line.last), (start, start + ms(2000)));
        for step in 0..40 {
            let outcome = if step % 2 == 0 { Outcome::Fail(Fault::Refused) } else { Outcome::Full };
            history.note(&outcome, ms(1), start + ms(3000 + step));
        }
        let words: Vec<_> = history.lines().map(|line| line.word).collect();
        assert_eq!(words, [["fail", "full"]; LINES / 2].concat());
    }
}

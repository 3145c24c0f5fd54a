//! The result as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::round::Outcome;
use super::{Contender, Event, Options, Timing};
use crate::bench::Machine;

/// One kind of event at one pair, all repetitions.
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose pair.
    pub contender: Contender,
    /// Its timers.
    pub timing: Timing,
    /// The event.
    pub event: Event,
    /// Each repetition.
    pub outcomes: Vec<Outcome>,
}

impl Row {
    pub(super) fn note(rows: &mut Vec<Self>, contender: Contender, timing: Timing, event: Event, outcome: Outcome) {
        match rows.iter_mut().find(|row| (row.contender, row.timing, row.event) == (contender, timing, event)) {
            Some(row) => row.outcomes.push(outcome),
            None => rows.push(Self { contender, timing, event, outcomes: vec![outcome] }),
        }
    }

    /// Sessions of all repetitions together, and those of them that survived.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        self.outcomes.iter().fold((0, 0), |(all, alive), one| (all + one.sessions, alive + one.survived))
    }

    /// Median and longest gap of the knocks.
    #[must_use]
    pub fn gap(&self) -> Spread {
        Spread::of(self.outcomes.iter().map(|outcome| outcome.gap)).unwrap_or_default()
    }

    /// The same of the beat; None when it died every time.
    #[must_use]
    pub fn session_gap(&self) -> Option<Spread> {
        Spread::of(self.outcomes.iter().filter_map(|outcome| outcome.session_gap))
    }

    /// The same of the time until both VIPs had moved.
    #[must_use]
    pub fn moved(&self) -> Spread {
        Spread::of(self.outcomes.iter().map(|outcome| outcome.moved)).unwrap_or_default()
    }
}

/// Median and maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The median; of an even number the upper one.
    pub p50: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        Some(Self { p50: *times.get(times.len() / 2)?, max: *times.last()? })
    }

    fn json(self) -> Value {
        json!({ "p50": millis(self.p50), "max": millis(self.max) })
    }
}

/// All figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every row.
    pub rows: Vec<Row>,
    machine: Machine,
    repetitions: usize,
    sessions: usize,
}

impl Report {
    pub(super) fn new(rows: Vec<Row>, options: &Options) -> Result<Self> {
        let machine = Machine::read(0)?;
        Ok(Self { rows, machine, repetitions: options.repetitions, sessions: options.sessions })
    }

    /// A table for people; times in milliseconds, median and maximum.
    #[must_use]
    pub fn text(&self) -> String {
        let Machine { cpu, guest, kernel, load, .. } = &self.machine;
        let mut text = format!(
            "{cpu}{}; Linux {kernel}; load {load}\n{} sessions, a knock and a beat every millisecond\n\n\
             {:<11}{:<10}{:<10}{:>5}{:>14}{:>20}{:>20}{:>20}\n",
            if *guest { ", virtual" } else { "" },
            self.sessions,
            "director",
            "timers",
            "event",
            "times",
            "survived",
            "gap p50/max",
            "session p50/max",
            "VIPs p50/max",
        );
        let pair = |spread: Spread| format!("{:.1} / {:.1}", millis(spread.p50), millis(spread.max));
        for row in &self.rows {
            let (sessions, survived) = row.sessions();
            let _ = writeln!(
                text,
                "{:<11}{:<10}{:<10}{:>5}{:>14}{:>20}{:>20}{:>20}",
                row.contender.to_string(),
                row.timing.to_string(),
                row.event.to_string(),
                row.outcomes.len(),
                format!("{survived}/{sessions}"),
                pair(row.gap()),
                row.session_gap().map_or_else(|| "dead".to_owned(), pair),
                pair(row.moved()),
            );
        }
        text
    }

    /// Every figure.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (sessions, survived) = row.sessions();
            let ended = row.outcomes.iter().filter(|outcome| outcome.session_gap.is_none()).count();
            json!({
                "director": row.contender.to_string(),
                "timers": row.timing.to_string(),
                "event": row.event.to_string(),
                "repetitions": row.outcomes.len(),
                "sessions": sessions,
                "survived": survived,
                "gap_ms": row.gap().json(),
                "session_gap_ms": row.session_gap().map(Spread::json),
                "beats_dead": ended,
                "vips_moved_ms": row.moved().json(),
            })
        });
        let Machine { cpu, guest, kernel, load, .. } = &self.machine;
        let keys: BTreeMap<&str, &str> = BTreeMap::from([
            ("sessions", "idle TCP connections, over all repetitions"),
            ("gap_ms", "longest time without an answer to a new connection; one is tried every millisecond"),
            ("session_gap_ms", "longest time between two answers on a connection that speaks every millisecond"),
            ("vips_moved_ms", "from the event to both VIPs on the other director"),
        ]);
        json!({
            "rows": rows.collect::<Vec<_>>(),
            "sessions_per_event": self.sessions,
            "repetitions": self.repetitions,
            "machine": { "cpu": cpu, "guest": guest, "kernel": kernel, "load": load },
            "keys": keys,
        })
    }
}

/// Three decimals: more would only look exact.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_all_repetitions_and_a_dead_beat_has_no_gap() {
        let ms = Duration::from_millis;
        let mut rows = Vec::new();
        for (gap, beat) in [(3, Some(4)), (9, None), (5, Some(8))] {
            let (gap, session_gap) = (ms(gap), beat.map(ms));
            let outcome = Outcome { sessions: 10, survived: 9, gap, session_gap, moved: ms(1) };
            Row::note(&mut rows, Contender::Lb, Timing::Fast, Event::Crash, outcome);
        }
        assert_eq!((rows.len(), rows[0].sessions()), (1, (30, 27)));
        assert_eq!(rows[0].gap(), Spread { p50: ms(5), max: ms(9) });
        assert_eq!(rows[0].session_gap(), Some(Spread { p50: ms(8), max: ms(8) }));
        assert_eq!(Spread::of([].into_iter()), None);
    }
}

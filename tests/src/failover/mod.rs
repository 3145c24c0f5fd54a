//! What a failover costs the clients: our pair beside keepalived, nftables and conntrackd in the same lab.
//!
//! Every pair has a lab of its own and all are up at once; repetition by repetition each is put through the same
//! events, so that whatever else the machine does hits them alike. How it is measured is in [`round`].

mod pair;
mod report;
mod round;

use std::fmt;

use anyhow::{Context as _, Result, ensure};

use crate::lab::VrrpOptions;

pub use pair::Contender;
pub use report::{Report, Row};

use pair::Pair;

/// What happens to the Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its daemon gets SIGTERM: an upgrade, a reboot in order.
    HandOver,
    /// Its daemon, and nothing else, is killed with SIGKILL.
    Crash,
    /// All its links go down at once.
    LinksCut,
    /// It has come back with nothing of what it knew, and the other one gets SIGTERM.
    Failback,
}

impl Event {
    /// What can happen to a director that is Active and knows everything.
    const FIRST: [Self; 3] = [Self::HandOver, Self::Crash, Self::LinksCut];
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HandOver => "hand-over",
            Self::Crash => "crash",
            Self::LinksCut => "links-cut",
            Self::Failback => "failback",
        })
    }
}

/// How fast VRRP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Version 2, an advert a second.
    Classic,
    /// Version 3, ten adverts a second.
    Fast,
}

impl Timing {
    fn vrrp(self) -> VrrpOptions {
        match self {
            Self::Classic => VrrpOptions::classic(),
            Self::Fast => VrrpOptions::fast(),
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classic => "v2 1 s",
            Self::Fast => "v3 10 cs",
        })
    }
}

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Repetitions of each event.
    pub repetitions: usize,
    /// TCP sessions that are open when an event comes.
    pub sessions: usize,
    /// Who is measured.
    pub contenders: Vec<Contender>,
    /// With which timers.
    pub timings: Vec<Timing>,
}

/// Measures everything. `progress` hears of each event what became of it.
///
/// # Errors
/// Without root or the programs; when a pair does not come back to order.
pub fn measure(options: Options, progress: &dyn Fn(&str)) -> Result<Report> {
    ensure!(options.repetitions > 0 && options.sessions > 0, "nothing to measure");
    let mut pairs = Vec::new();
    for timing in &options.timings {
        for contender in &options.contenders {
            let pair = Pair::up(*contender, *timing).with_context(|| format!("{contender}, {timing}"))?;
            pairs.push(pair);
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for repetition in 1..=options.repetitions {
        for event in Event::FIRST {
            for pair in &pairs {
                let what = format!("{}, {}, {event} {repetition}", pair.contender, pair.timing);
                for (event, outcome) in pair.round(event, options.sessions).with_context(|| what.clone())? {
                    progress(&format!(
                        "{:<10} {:<8} {event:<9} {repetition:>2}  {outcome}",
                        pair.contender, pair.timing
                    ));
                    Row::note(&mut rows, pair.contender, pair.timing, event, outcome);
                }
            }
        }
    }
    Report::new(rows, &options)
}

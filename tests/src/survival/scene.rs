//! A pair with connection sync, real servers behind it, and what can happen to its Active.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fleet::{Census, Fleet};
use crate::checks::Pair;
use crate::lab::{AgentOptions, Disturbance, LabOptions, SyncOptions, VrrpOptions, now, wait_for};

/// How long sessions work on after a takeover until they are counted: what they wait for shows within it.
const AFTER: Duration = Duration::from_secs(1);
/// For tables to become equal under load.
const EQUAL: Duration = Duration::from_secs(60);

/// What happens to the Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its agent gets SIGTERM.
    HandOver,
    /// Its agent is killed.
    Crash,
    /// All its links go down at once.
    LinksCut,
}

impl Event {
    /// One after the other.
    #[must_use]
    pub fn number(number: usize) -> Self {
        [Self::HandOver, Self::Crash, Self::LinksCut][number % 3]
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HandOver => "hand-over",
            Self::Crash => "kill -9",
            Self::LinksCut => "links cut",
        })
    }
}

/// A running pair.
#[derive(Debug)]
pub struct Scene {
    /// The pair.
    pub pair: Pair,
}

impl Scene {
    /// Builds a lab with real servers and starts both directors; d1 is Active. `edit` changes what both are configured
    /// with.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn up(
        vrrp: VrrpOptions,
        edit: impl FnOnce(AgentOptions, SyncOptions) -> (AgentOptions, SyncOptions),
    ) -> Result<Self> {
        let lab = LabOptions { directors: 2, ..LabOptions::default() }.up()?;
        let (agent, sync) = edit(lab.agent_options(), lab.sync_options()?);
        let agent = agent.sync(sync);
        let scene = Self { pair: Pair::of(lab, vrrp, agent)?.begun()? };
        scene.becomes_safe()?;
        Ok(scene)
    }

    /// Waits until either director may be taken down.
    ///
    /// # Errors
    /// When that does not come true; the message says why it may not.
    pub fn becomes_safe(&self) -> Result<()> {
        self.pair.lab.wait_until_safe(EQUAL)
    }

    /// The Active.
    ///
    /// # Errors
    /// When there is none.
    pub fn active(&self) -> Result<usize> {
        wait_for("one Active", EQUAL, || self.pair.watch.active()).with_context(|| self.pair.told())
    }

    /// Lets the event happen to the Active, counts the sessions once the other one has taken over, wipes the one that
    /// went, starts it again, and waits until it knows everything.
    ///
    /// # Errors
    /// When no director takes over, or the one that went does not come back.
    pub fn fail_over(&self, event: Event, fleet: &Fleet) -> Result<Census> {
        let from = self.active()?;
        self.becomes_safe().with_context(|| format!("before {event} of d{}", from + 1))?;
        let (roll, began) = (fleet.roll(), now());
        let cut = self.happen(event, from)?;
        self.pair.takes(1 - from).with_context(|| format!("{event} of d{}", from + 1))?;
        thread::sleep(AFTER);
        let census = fleet.census(&roll, began)?;
        self.pair.wipe(from).with_context(|| format!("wipe d{}", from + 1))?;
        cut.map_or(Ok(()), Disturbance::end)?;
        self.pair.start(from).with_context(|| format!("start d{} again", from + 1))?;
        Ok(census)
    }

    fn happen(&self, event: Event, to: usize) -> Result<Option<Disturbance>> {
        match event {
            Event::HandOver => self.pair.stop(to).map(|()| None),
            Event::Crash => self.pair.kill(to).map(|()| None),
            Event::LinksCut => {
                let host = self.pair.director(to).host();
                self.pair.lab.cut(host, &["ext0", "int0", "sync0"]).map(Some)
            }
        }
    }

    /// Lets `happen` happen, and counts the sessions.
    ///
    /// # Errors
    /// Those of `happen`.
    pub fn watch(&self, fleet: &mut Fleet, happen: impl FnOnce(&Self, &mut Fleet) -> Result<()>) -> Result<Census> {
        let (before, began): (Vec<u32>, Instant) = (fleet.roll(), now());
        let newest = before.iter().max().copied().unwrap_or_default();
        happen(self, fleet)?;
        // Those that were closed on purpose do not count, those that were opened do, even if they are lost already.
        let opened = fleet.numbers().into_iter().filter(|number| *number > newest);
        let roll: Vec<u32> = before.iter().copied().chain(opened).collect();
        fleet.census(&roll, began)
    }
}

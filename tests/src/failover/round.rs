//! One event and the way back, with what the clients saw of both.
//!
//! Three witnesses: *sessions*, idle TCP connections that speak once when all is over; a *beat*, one connection that
//! speaks every millisecond; *knocks*, a new connection every millisecond. The gap of the knocks is the time without an
//! answer on the wire. That of the beat is what an application feels, and TCP's retransmission timer (at least 200 ms,
//! doubled each time) makes it the longer one of the two.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Event;
use super::pair::Pair;
use crate::lab::{Beat, Disturbance, EchoSession, Knocks, addr, now, survivors, wait_for};

/// The service answers all knocks for so long: it is over.
const CALM: Duration = Duration::from_millis(300);
/// For the service to answer again.
const RECOVERED: Duration = Duration::from_secs(30);
/// For a session to be answered again after that; no retransmission waits longer.
const SESSION: Duration = Duration::from_secs(10);
/// What a pair needs to exchange what both know.
const SETTLE: Duration = Duration::from_secs(3);

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Sessions that were open.
    pub sessions: usize,
    /// Those that were answered afterwards.
    pub survived: usize,
    /// The longest time without an answer to a knock.
    pub gap: Duration,
    /// The longest time between two answers on the beat; None when it died.
    pub session_gap: Option<Duration>,
    /// From the event to both VIPs on the other director; for a director that keeps them when it is killed, to both
    /// VIPs there as well.
    pub moved: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let beat = self.session_gap.map_or_else(|| "dead".to_owned(), |gap| format!("{:.1} ms", millis(gap)));
        write!(
            f,
            "gap {:>8.1} ms  session {beat:>10}  VIPs after {:>7.1} ms  survived {} of {}",
            millis(self.gap),
            millis(self.moved),
            self.survived,
            self.sessions
        )
    }
}

impl Pair {
    /// One event on d1, then its return; d1 is Active again afterwards.
    pub(super) fn round(&self, event: Event, sessions: usize) -> Result<[(Event, Outcome); 2]> {
        let pair = &self.pair;
        let sessions = self.fill(Vec::new(), sessions)?;
        thread::sleep(SETTLE);
        let mut cut = None;
        let (first, alive) = self.observe(1, sessions, || match event {
            Event::HandOver | Event::Failback => pair.stop(0),
            Event::Crash => pair.kill(0),
            Event::LinksCut => {
                cut = Some(pair.lab.cut(pair.lab.d1().host(), &["ext0", "int0", "sync0"])?);
                Ok(())
            }
        })?;

        // Nothing is left of d1 when its links come back.
        pair.wipe(0).context("take everything off d1")?;
        cut.map_or(Ok(()), Disturbance::end)?;
        pair.start(0).context("bring d1 back")?;
        let sessions = self.fill(alive, first.sessions)?;
        thread::sleep(SETTLE);
        let (second, alive) = self.observe(0, sessions, || pair.stop(1)).context("failback")?;
        drop(alive);
        pair.restart(1).context("start d2 again")?;
        Ok([(event, first), (Event::Failback, second)])
    }

    /// Opens sessions until there are `count`.
    fn fill(&self, mut sessions: Vec<EchoSession>, count: usize) -> Result<Vec<EchoSession>> {
        self.pair.lab.client().host().enter(|| {
            while sessions.len() < count {
                let number = sessions.len() as u64;
                sessions.push(EchoSession::open(addr::SERVICE, number, SESSION)?);
            }
            Ok(())
        })?;
        Ok(sessions)
    }

    /// Lets `happen` happen while the witnesses watch, until `to` has the VIPs and the service answers again.
    fn observe(
        &self,
        to: usize,
        sessions: Vec<EchoSession>,
        happen: impl FnOnce() -> Result<()>,
    ) -> Result<(Outcome, Vec<EchoSession>)> {
        let client = self.pair.lab.client();
        let (beat, knocks) = (Beat::start(client, addr::SERVICE)?, Knocks::start(client, addr::SERVICE)?);
        knocks.wait_for_calm(CALM, RECOVERED).context("before the event")?;
        let event = now();
        happen()?;
        let moved = self.pair.takes(to)?;
        let calm = knocks.wait_for_calm(CALM, RECOVERED).context("after the event")?;
        let alive = wait_for("the beat", SESSION, || {
            // It is over, or it has been answered since the service answers.
            Ok((beat.gap(event).is_err() || beat.last().is_some_and(|last| last > calm)).then_some(()))
        });
        let session_gap = alive.ok().and_then(|()| beat.gap(event).ok());
        drop(beat);
        let gap = knocks.stop()?.gap(event);
        let count = sessions.len();
        let sessions = survivors(sessions, SESSION);
        let moved = moved.saturating_duration_since(event);
        Ok((Outcome { sessions: count, survived: sessions.len(), gap, session_gap, moved }, sessions))
    }
}

//! The event ring: one record per change of a conn, read by a poll on a timer.
//!
//! Owns the reading end and the decoding. The packet path submits without a wake-up, because a wake-up costs as much
//! as a packet; records that found no room are counted there (`Counter::EventLost`) and call for a scan of the tables.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use lb_common::{MapType, abi::map, event::Event};
use tokio::time::{self, MissedTickBehavior};

use super::error::{Error, Result};

/// How often the ring is looked at: the latency of an event, and 200 wake-ups a second of an idle agent.
pub const POLL: Duration = Duration::from_millis(5);

/// The reading end of the ring. There is one: two readers would take each other's records.
pub struct Events {
    ring: RingBuf<MapData>,
    invalid: u64,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("invalid", &self.invalid).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let what = "open the event ring";
        let missing = || Error::Object { what: what.to_owned(), why: format!("no map {}", map::EVENTS) };
        let map = ebpf.take_map(map::EVENTS).ok_or_else(missing)?;
        let ring = RingBuf::try_from(map).map_err(|error| Error::object(what, &error))?;
        Ok(Self { ring, invalid: 0 })
    }

    /// Appends the records that lie in the ring to `to`, at most `limit`; answers how many it took out.
    pub fn drain(&mut self, to: &mut Vec<Event>, limit: usize) -> usize {
        let mut taken = 0;
        while taken < limit
            && let Some(record) = self.ring.next()
        {
            taken += 1;
            match Event::decode(&record) {
                Ok(event) => to.push(event),
                Err(error) => {
                    if self.invalid == 0 {
                        tracing::warn!(%error, "a record of the event ring is unreadable; more are only counted");
                    }
                    self.invalid += 1;
                }
            }
        }
        taken
    }

    /// Waits for records and appends them to `to`, at most `limit`. Cancelling it loses nothing.
    pub async fn next(&mut self, to: &mut Vec<Event>, limit: usize) {
        if self.drain(to, limit) > 0 {
            return;
        }
        let mut timer = time::interval(POLL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate.
        timer.tick().await;
        loop {
            timer.tick().await;
            if self.drain(to, limit) > 0 {
                return;
            }
        }
    }

    /// Number of records so far that did not decode.
    #[must_use]
    pub const fn invalid(&self) -> u64 {
        self.invalid
    }
}

//! The event ring: one record per change of a conn.
//!
//! Owns the reading end and the decoding. The packet path wakes a reader that has read everything, and no other; whoever
//! has read pauses for [`PAUSE`], because a wake-up costs the packet path as much as a packet. Records that found no room
//! are counted there (`Counter::EventLost`) and call for a scan of the tables.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use lb_common::{MapType, abi::map, event::Event};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time,
};

use super::error::{Error, Result};

/// The least time between two looks at the ring: the latency of an event among many, and at most 200 wake-ups a second.
pub const PAUSE: Duration = Duration::from_millis(5);

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

impl AsFd for Events {
    /// Readable when there is something to [`drain`](Self::drain).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
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
        while self.drain(to, limit) == 0 {
            // SAFETY: the ring is borrowed, so it stays open and the same until after the wait.
            let ring = unsafe { AsyncFd::register_with_interest(self.ring.as_fd(), Interest::READABLE) };
            // One that cannot be waited for is looked at again and again.
            if let Ok(ring) = ring {
                drop(ring.readable().await);
            }
            time::sleep(PAUSE).await;
        }
    }

    /// Number of records so far that did not decode.
    #[must_use]
    pub const fn invalid(&self) -> u64 {
        self.invalid
    }
}

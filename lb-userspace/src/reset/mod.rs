//! RSTs of our own: tells the ends of a conn that it is over, in the other end's name, so that nobody waits for hours.
//!
//! Owns the segments, the raw socket and the pace. Which conns are over, and where their ends stand, others say. A segment
//! goes through the host's own routing table and its firewall's output chain, as everything that this host sends.

mod segment;
mod socket;

use std::{io, thread, time::Duration};

use lb_common::conn::FlowKey;

use segment::Segment;
use socket::RawSocket;

/// Segments sent in one go: less than a device's queue holds.
const BURST: usize = 256;
/// The pause between two bursts, in which queues empty: 20,000 segments take less than 100 ms.
const PAUSE: Duration = Duration::from_micros(500);

/// One end of a conn that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The segment's own 5-tuple: from the other end, as this end knows it, to this end.
    pub flow: FlowKey,
    /// The end's last acknowledgement number: where it waits, if it has acknowledged all it got. 0: not known.
    pub acked: u32,
    /// The sequence number after the last byte that was sent to it: where it waits, if it got all of them. 0: not known.
    pub sent: u32,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Sent {
    /// Segments that left.
    pub segments: usize,
    /// Ends of which no number is known: they were told nothing.
    pub unknown: usize,
    /// Segments that the kernel refused.
    pub refused: usize,
    /// The first refusal.
    pub error: Option<io::Error>,
}

/// Sends RSTs. Any number of threads may share it.
#[derive(Debug)]
pub struct Resetter {
    socket: RawSocket,
}

impl Resetter {
    /// Opens the raw socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses, because CAP_NET_RAW is missing.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: RawSocket::open()? })
    }

    /// Tells all `ends`. Blocks for about 4 ms per 1,000 of them, most of it asleep; what the kernel refuses is counted
    /// and does not keep the others from being told.
    ///
    /// An end that waits between its two numbers, because it got only a part of what was sent, answers with an ACK that
    /// tells where (RFC 5961 §3.2): whoever sees that may answer it.
    pub fn reset(&self, ends: &[End]) -> Sent {
        let mut sent = Sent::default();
        let mut burst = Vec::with_capacity(BURST + 1);
        for end in ends {
            let segments = Segment::of(end);
            sent.unknown += usize::from(segments.is_empty());
            burst.extend(segments);
            if burst.len() >= BURST {
                self.burst(&mut burst, &mut sent);
                thread::sleep(PAUSE);
            }
        }
        self.burst(&mut burst, &mut sent);
        sent
    }

    /// Sends and empties `burst`.
    fn burst(&self, burst: &mut Vec<Segment>, sent: &mut Sent) {
        sent.segments += self.socket.send(burst, |error| {
            sent.refused += 1;
            sent.error.get_or_insert(error);
        });
        burst.clear();
    }
}

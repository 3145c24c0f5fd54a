//! A beat: one ordinary TCP connection through the service to an echo server, on which a record goes out every
//! millisecond. The longest pause between two answers is what an application would have felt, retransmission
//! timers included (RFC 6298).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::Client;
use super::pulse::{PERIOD, lock};
use super::wait::now;

/// The number of a record is all there is in it.
const RECORD: usize = size_of::<u64>();
const LIMIT: Duration = Duration::from_secs(5);

/// A running beat. Dropping it ends the connection.
#[derive(Debug)]
pub struct Beat {
    stop: Arc<AtomicBool>,
    stream: TcpStream,
    heard: Arc<Mutex<Heard>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// When answers came; several at once count once.
    answers: Vec<Instant>,
    next: u64,
    over: Option<String>,
}

impl Beat {
    /// Connects and starts.
    ///
    /// # Errors
    /// When there is no connection within 5 s.
    pub fn start(client: &Client, service: SocketAddrV4) -> Result<Self> {
        let stream = client.host().enter(|| {
            TcpStream::connect_timeout(&service.into(), LIMIT).with_context(|| format!("connect to {service}"))
        })?;
        stream.set_nodelay(true)?;
        let mut beat = Self { stop: Arc::default(), stream, heard: Arc::default(), threads: Vec::new() };
        let (mut ear, heard) = (beat.stream.try_clone()?, Arc::clone(&beat.heard));
        beat.threads.push(thread::spawn(move || {
            let mut rest = Vec::new();
            let mut buffer = [0; 16 << 10];
            loop {
                let read = ear.read(&mut buffer);
                let at = now();
                let mut heard = lock(&heard);
                match read {
                    Ok(0) => heard.over = Some("the server closed it".to_owned()),
                    Ok(length) => {
                        rest.extend_from_slice(&buffer[..length]);
                        heard.take(&mut rest, at);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => heard.over = Some(error.to_string()),
                }
                if heard.over.is_some() {
                    return;
                }
            }
        }));
        let (mut mouth, stop) = (beat.stream.try_clone()?, Arc::clone(&beat.stop));
        beat.threads.push(thread::spawn(move || {
            let started = now();
            let mut number = 0_u64;
            // A full send buffer makes it wait; the records then go out when there is room.
            while !stop.load(Ordering::Relaxed) && mouth.write_all(&number.to_be_bytes()).is_ok() {
                number += 1;
                let due = PERIOD * u32::try_from(number).unwrap_or(u32::MAX);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }));
        Ok(beat)
    }

    /// The longest pause between two answers so far, from the last answer before `event` on; up to this moment when
    /// nothing has come since. Why the connection is over, when it is, is an error.
    ///
    /// # Errors
    /// When the connection was ended, or a wrong answer came.
    pub fn gap(&self, event: Instant) -> Result<Duration> {
        let heard = lock(&self.heard);
        match &heard.over {
            Some(why) => Err(anyhow!("{why}")),
            None => Ok(heard.gap(event, now())),
        }
    }

    /// When the last answer came.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        lock(&self.heard).answers.last().copied()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes both threads.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Heard {
    /// Takes whole records off the front of `bytes`.
    fn take(&mut self, bytes: &mut Vec<u8>, at: Instant) {
        let whole = bytes.len() / RECORD * RECORD;
        for record in bytes[..whole].chunks_exact(RECORD) {
            if record != self.next.to_be_bytes() {
                self.over = Some(format!("record {} came back as {record:?}", self.next));
            }
            self.next += 1;
        }
        bytes.drain(..whole);
        if whole > 0 {
            self.answers.push(at);
        }
    }

    fn gap(&self, event: Instant, end: Instant) -> Duration {
        let first = self.answers.partition_point(|answer| *answer <= event).saturating_sub(1);
        let answers = self.answers.get(first..).unwrap_or_default();
        let pauses = answers.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]));
        let open = end.saturating_duration_since(answers.last().copied().unwrap_or(event));
        pauses.chain([open]).max().unwrap_or(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_reaches_to_the_end_when_nothing_comes_any_more() {
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        let heard = Heard { answers: [0, 1, 2, 30, 31].map(at).to_vec(), ..Heard::default() };
        assert_eq!(heard.gap(at(2), at(32)), Duration::from_millis(28));
        assert_eq!(heard.gap(at(30), at(90)), Duration::from_millis(59));
        assert_eq!(heard.gap(at(31), at(31)), Duration::ZERO);
    }

    #[test]
    fn records_may_come_in_pieces_but_must_be_the_right_ones() {
        let mut heard = Heard::default();
        let all: Vec<u8> = (0..3_u64).flat_map(u64::to_be_bytes).collect();
        let mut bytes = all[..10].to_vec();
        heard.take(&mut bytes, now());
        assert_eq!((heard.next, bytes.len()), (1, 2));
        bytes.extend(&all[10..]);
        heard.take(&mut bytes, now());
        assert_eq!((heard.next, bytes.len(), heard.answers.len()), (3, 0, 2));
        assert!(heard.over.is_none());
        heard.take(&mut 9_u64.to_be_bytes().to_vec(), now());
        assert!(heard.over.is_some());
    }
}

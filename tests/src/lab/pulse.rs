//! A pulse: one conn on which a crafted segment goes to the server every millisecond and comes back. TCP sends again
//! what was lost and so hides it; here every single loss shows, and when it was.
//!
//! Sent over raw sockets (raw(7)), so that the hosts' own kernels route and resolve; received by packet sockets, past
//! the hosts' protocols, which must be deaf.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::host::Host;
use super::tap::Tap;
use super::wait::{now, wait_for};
use crate::packet::{Packet, Tcp, flag, tcp};

/// From ping to ping.
pub(super) const PERIOD: Duration = Duration::from_millis(1);
/// How often a waiting thread looks whether it is to stop.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How long the last answers may take.
const LAST: Duration = Duration::from_millis(300);

/// An answer that came so fast did not wait for anything.
const PROMPT: Duration = Duration::from_millis(200);

pub(super) const CLIENT_SEQ: u32 = 1000;
const SERVER_SEQ: u32 = 5000;
/// The number of a ping is its payload.
const PAYLOAD: usize = size_of::<u32>();

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client.
    pub client: SocketAddrV4,
    /// Where it sends to.
    pub vip: SocketAddrV4,
    /// The server behind it.
    pub server: SocketAddrV4,
}

/// One ping.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// When it was sent.
    pub sent: Instant,
    /// When the answer came; `None`: never.
    pub answered: Option<Instant>,
}

/// A running pulse. Dropping it stops it.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    pings: Arc<Mutex<Vec<Ping>>>,
    pinger: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Opens the conn and starts pinging.
    ///
    /// # Errors
    /// When the handshake does not succeed.
    pub fn start(client: &Host, server: &Host, ends: Ends) -> Result<Self> {
        client.deafen()?;
        server.deafen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let pings = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new(AtomicU32::new(0));
        let (client_tap, server_tap) = (Tap::open(client, "eth0")?, Tap::open(server, "eth0")?);
        let (asks, answers) = (client.enter(raw_socket)?, server.enter(raw_socket)?);

        let mut pulse = Self { stop, pings, pinger: None, others: Vec::new() };
        pulse.spawn(move || answer(&server_tap, &answers, ends));
        let (heard, shaken) = (Arc::clone(&pulse.pings), Arc::clone(&state));
        pulse.spawn(move || hear(&client_tap, &heard, &shaken, ends));

        let from_client = move || tcp().from(ends.client).to(ends.vip);
        wait_for("the SYN+ACK", Duration::from_secs(5), || {
            // Once a while; whoever answers late answers twice.
            send(&asks, &from_client().syn().seq(CLIENT_SEQ));
            thread::sleep(Duration::from_millis(50));
            Ok((state.load(Ordering::Relaxed) != 0).then_some(()))
        })?;
        send(&asks, &from_client().ack(SERVER_SEQ + 1).seq(CLIENT_SEQ + 1));
        let (stop, pings) = (Arc::clone(&pulse.stop), Arc::clone(&pulse.pings));
        pulse.pinger = Some(thread::spawn(move || {
            let started = now();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let packet = from_client()
                    .psh()
                    .seq(CLIENT_SEQ + 1 + number * PAYLOAD as u32)
                    .ack(SERVER_SEQ + 1)
                    .payload(&number.to_be_bytes()[..]);
                lock(&pings).push(Ping { sent: now(), answered: None });
                send(&asks, &packet);
                number += 1;
                thread::sleep((PERIOD * number).saturating_sub(started.elapsed()));
            }
        }));
        Ok(pulse)
    }

    /// Waits, then answers the moment: time for the pulse to be steady before something happens.
    #[must_use]
    pub fn after(&self, time: Duration) -> Instant {
        thread::sleep(time);
        now()
    }

    /// Stops pinging and answers what became of every ping.
    ///
    /// # Errors
    /// When a thread of it has failed.
    pub fn stop(mut self) -> Result<Record> {
        self.end()?;
        let pings = std::mem::take(&mut *lock(&self.pings));
        ensure!(!pings.is_empty(), "not one ping was sent");
        Ok(Record { pings })
    }

    /// Runs `work` again and again on a thread until the pulse stops.
    fn spawn(&mut self, mut work: impl FnMut() -> Result<()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.others.push(thread::spawn(move || {
            // The last answers are on their way when the pinger stops.
            let mut end = None;
            while end.is_none_or(|end| now() < end) {
                if let Err(error) = work() {
                    eprintln!("pulse: {error:#}");
                    return;
                }
                if end.is_none() && stop.load(Ordering::Relaxed) {
                    end = Some(now() + LAST);
                }
            }
        }));
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut threads = self.pinger.take().into_iter().chain(self.others.drain(..));
        threads.try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread of the pulse panicked")))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What became of every ping, in the order they were sent.
#[derive(Clone, Debug)]
pub struct Record {
    /// The pings.
    pub pings: Vec<Ping>,
}

impl Record {
    /// The pings that were sent in a stretch of time.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        Self { pings: self.pings.iter().filter(|ping| (from..to).contains(&ping.sent)).copied().collect() }
    }

    /// Number of pings without an answer.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.pings.iter().filter(|ping| ping.answered.is_none()).count()
    }

    /// From `event` until every ping was answered again; zero when none was lost after it.
    #[must_use]
    pub fn outage(&self, event: Instant) -> Duration {
        let last_lost = self.pings.iter().rposition(|ping| ping.answered.is_none() && ping.sent >= event);
        let Some(last_lost) = last_lost else { return Duration::ZERO };
        self.pings.get(last_lost + 1).map_or(Duration::MAX, |ping| ping.sent.saturating_duration_since(event))
    }

    /// The longest time without an answer from `event` on: from one answer that came soon to the next such one. Answers
    /// that took longer than 200 ms waited somewhere and say nothing about the moment in which they came.
    #[must_use]
    pub fn gap(&self, event: Instant) -> Duration {
        let prompt = self.pings.iter().filter_map(|ping| Some((ping.sent, ping.answered?)));
        let prompt = prompt.filter(|(sent, answered)| answered.saturating_duration_since(*sent) < PROMPT);
        let mut answers: Vec<_> = prompt.map(|(_, answered)| answered).collect();
        answers.sort_unstable();
        let first = answers.partition_point(|answered| *answered <= event).saturating_sub(1);
        let Some(answers) = answers.get(first..).filter(|answers| answers.len() > 1) else { return Duration::MAX };
        answers.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or(Duration::MAX)
    }

    /// The round-trip time that a share of the answered pings, 0 to 1, did not exceed.
    #[must_use]
    pub fn latency(&self, share: f64) -> Duration {
        let mut times: Vec<_> =
            self.pings.iter().filter_map(|ping| Some(ping.answered?.saturating_duration_since(ping.sent))).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * share) as usize;
        times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or(Duration::MAX)
    }
}

/// The server: one answer to whatever comes.
fn answer(tap: &Tap, socket: &OwnedFd, ends: Ends) -> Result<()> {
    let Some(frame) = tap.receive(LOOK)? else { return Ok(()) };
    let Some(segment) = Segment::of(&frame.bytes, ends.client.port(), ends.server.port()) else { return Ok(()) };
    let back = tcp().from(ends.server).to(ends.client);
    if segment.flags & flag::SYN != 0 {
        send(socket, &back.syn().seq(SERVER_SEQ).ack(segment.seq.wrapping_add(1)));
    } else if let Some(number) = segment.number {
        let seq = SERVER_SEQ + 1 + number * PAYLOAD as u32;
        let back = back.psh().seq(seq).ack(segment.seq.wrapping_add(PAYLOAD as u32));
        send(socket, &back.payload(&number.to_be_bytes()[..]));
    }
    Ok(())
}

/// The client's ear.
fn hear(tap: &Tap, pings: &Mutex<Vec<Ping>>, shaken: &AtomicU32, ends: Ends) -> Result<()> {
    let Some(frame) = tap.receive(LOOK)? else { return Ok(()) };
    let time = now();
    let Some(segment) = Segment::of(&frame.bytes, ends.vip.port(), ends.client.port()) else { return Ok(()) };
    if segment.flags & flag::SYN != 0 {
        shaken.store(1, Ordering::Relaxed);
    } else if let Some(number) = segment.number
        && let Some(ping) = lock(pings).get_mut(number as usize)
    {
        ping.answered.get_or_insert(time);
    }
    Ok(())
}

/// The few words of a received segment that count here.
struct Segment {
    flags: u8,
    seq: u32,
    number: Option<u32>,
}

impl Segment {
    /// `None`: it is something else, or from or to another port.
    fn of(frame: &[u8], from: u16, to: u16) -> Option<Self> {
        let ip = frame.get(14..)?;
        let tcp =
            ip.get(usize::from(ip.first()? & 0xf) * 4..usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])))?;
        let word = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        if ip.get(9) != Some(&6) || word(0)? != from || word(2)? != to {
            return None;
        }
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let number = tcp.get(header..header + PAYLOAD).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let seq = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
        Some(Self { flags: *tcp.get(13)?, seq, number })
    }
}

pub(super) fn raw_socket() -> Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(io::Error::last_os_error()).context("open a raw socket");
    }
    // SAFETY: it was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Sends an IP packet. What the kernel refuses (no route, link down) counts as lost, like what a wire loses.
pub(super) fn send(socket: &OwnedFd, packet: &Packet<Tcp>) {
    let bytes = packet.ip_bytes();
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(packet.ends().1.ip().octets()) },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: packet and address are valid for reads of their lengths.
    unsafe {
        libc::sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, (&raw const to).cast(), length);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_outages_are_counted_from_the_event_on() {
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        let lost = [3, 10, 11, 12];
        let pings = (0..20).map(|ms| Ping { sent: at(ms), answered: (!lost.contains(&ms)).then(|| at(ms + 2)) });
        let record = Record { pings: pings.collect() };
        assert_eq!(record.lost(), 4);
        assert_eq!(record.between(at(5), at(20)).lost(), 3);
        assert_eq!(record.outage(at(9)), Duration::from_millis(4));
        assert_eq!(record.outage(at(13)), Duration::ZERO);
        assert_eq!(record.latency(0.99), Duration::from_millis(2));
        // Answered at 11 (the ping of 9), then at 15 (that of 13).
        assert_eq!(record.gap(at(9)), Duration::from_millis(4));
        assert_eq!(record.gap(at(16)), Duration::from_millis(1));
        let never = Record { pings: vec![Ping { sent: at(0), answered: None }] };
        assert_eq!(never.outage(at(0)), Duration::MAX);
        assert_eq!(never.gap(at(0)), Duration::MAX);
    }
}

//! Knocking: every millisecond a SYN of a new conn goes to the service, and who answers is a server's own kernel. It
//! asks whether *new* connections get through at this very moment, and needs no state on a director. Each knock ends
//! with the RST of the client's kernel, which knows of no such connection.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::client::Client;
use super::pulse::{CLIENT_SEQ, LOOK, PERIOD, Ping, Record, lock, raw_socket, send};
use super::tap::Tap;
use super::wait::{now, wait_for};
use crate::packet::{flag, tcp};

/// Source ports; below those that kernels choose for sockets of their own.
const FIRST_PORT: u16 = 10_000;
const PORTS: usize = 20_000;
/// How long the last answers may take.
const LAST: Duration = Duration::from_millis(200);

/// Knocks until it is stopped or dropped.
#[derive(Debug)]
pub struct Knocks {
    stop: Arc<AtomicBool>,
    pings: Arc<Mutex<Vec<Ping>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Knocks {
    /// Starts knocking.
    ///
    /// # Errors
    /// When a raw socket cannot be opened.
    pub fn start(client: &Client, service: SocketAddrV4) -> Result<Self> {
        let (tap, socket) = (Tap::open(client.host(), "eth0")?, client.host().enter(raw_socket)?);
        let mut knocks = Self { stop: Arc::default(), pings: Arc::default(), threads: Vec::new() };
        let (stop, pings, own) = (Arc::clone(&knocks.stop), Arc::clone(&knocks.pings), client.address());
        knocks.threads.push(thread::spawn(move || {
            let mut end = None;
            while end.is_none_or(|end| now() < end) {
                if let Err(error) = hear(&tap, &pings, service, own) {
                    eprintln!("knocks: {error:#}");
                    return;
                }
                if end.is_none() && stop.load(Ordering::Relaxed) {
                    end = Some(now() + LAST);
                }
            }
        }));
        let (stop, pings) = (Arc::clone(&knocks.stop), Arc::clone(&knocks.pings));
        knocks.threads.push(thread::spawn(move || {
            let started = now();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let from = SocketAddrV4::new(own, FIRST_PORT + (number % PORTS) as u16);
                // The number of the round keeps a server from taking it for an old acquaintance.
                let seq = CLIENT_SEQ.wrapping_add((number / PORTS) as u32 * 1_000_000);
                let packet = tcp().from(from).to(service).syn().seq(seq);
                lock(&pings).push(Ping { sent: now(), answered: None });
                send(&socket, &packet);
                number += 1;
                let due = PERIOD * u32::try_from(number).unwrap_or(u32::MAX);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }));
        Ok(knocks)
    }

    /// Waits until the service has answered knocks sent after this call for `time` without a break.
    ///
    /// # Errors
    /// When that does not happen within `limit`.
    pub fn wait_for_calm(&self, time: Duration, limit: Duration) -> Result<Instant> {
        let called = now();
        wait_for("answers to all knocks", limit, || {
            let pings = lock(&self.pings);
            let end = now();
            // The youngest ones may still be answered.
            let recent = pings.iter().rev().skip_while(|ping| end - ping.sent < time / 2);
            let recent: Vec<_> =
                recent.take_while(|ping| ping.sent > called && end - ping.sent < time * 3 / 2).collect();
            let long = recent.last().is_some_and(|oldest| end - oldest.sent >= time);
            Ok((long && recent.iter().all(|ping| ping.answered.is_some())).then_some(end))
        })
    }

    /// Stops and answers what became of every knock.
    ///
    /// # Errors
    /// When a thread of it has failed.
    pub fn stop(mut self) -> Result<Record> {
        self.end()?;
        let pings = std::mem::take(&mut *lock(&self.pings));
        ensure!(!pings.is_empty(), "nobody knocked");
        Ok(Record { pings })
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut threads = self.threads.drain(..);
        threads.try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread of the knocks panicked")))
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn hear(tap: &Tap, pings: &Mutex<Vec<Ping>>, service: SocketAddrV4, own: Ipv4Addr) -> Result<()> {
    let Some(frame) = tap.receive(LOOK)? else { return Ok(()) };
    let time = now();
    let Some(port) = welcomed(&frame.bytes, service, own) else { return Ok(()) };
    let mut pings = lock(pings);
    let slot = usize::from(port - FIRST_PORT);
    // The latest knock from that port.
    if let Some(round) = pings.len().checked_sub(slot + 1).map(|rest| rest / PORTS)
        && let Some(ping) = pings.get_mut(round * PORTS + slot)
    {
        ping.answered.get_or_insert(time);
    }
    Ok(())
}

/// The client's port, when the frame is a SYN+ACK of the service to it.
fn welcomed(frame: &[u8], service: SocketAddrV4, own: Ipv4Addr) -> Option<u16> {
    let ip = frame.get(14..)?;
    let tcp = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    let ends = ip.get(9) == Some(&6) && ip.get(12..16)? == service.ip().octets() && ip.get(16..20)? == own.octets();
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let both = flag::SYN | flag::ACK;
    let ours = FIRST_PORT..FIRST_PORT + PORTS as u16;
    let to = port(2).filter(|port| ours.contains(port))?;
    (ends && port(0)? == service.port() && tcp.get(13)? & both == both).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_service_s_welcome_counts() {
        let (service, own) = (SocketAddrV4::new(Ipv4Addr::new(10, 80, 1, 243), 3306), Ipv4Addr::new(10, 80, 1, 1));
        let answer = |port| tcp().from(service).to(SocketAddrV4::new(own, port));
        assert_eq!(welcomed(&answer(10_007).syn().ack(1).build(), service, own), Some(10_007));
        assert_eq!(welcomed(&answer(10_007).ack(1).build(), service, own), None, "no SYN");
        assert_eq!(welcomed(&answer(40_000).syn().ack(1).build(), service, own), None, "not from here");
        let other = SocketAddrV4::new(*service.ip(), 3307);
        assert_eq!(welcomed(&answer(10_007).syn().ack(1).build(), other, own), None);
    }
}

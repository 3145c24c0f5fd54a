//! Every VRRP advert that a client's segment sees, with its sender and priority: what a director says, as opposed to what
//! it does. VRRPv2 and v3 have the same first four bytes (RFC 3768 §5.1, RFC 9568 §5.1).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::client::Client;
use super::pulse::lock;
use super::tap::Tap;
use super::wait::now;

const LOOK: Duration = Duration::from_millis(20);
const VRRP: u8 = 112;

/// An advert on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// When it was seen.
    pub at: Instant,
    /// Who sent it.
    pub from: Ipv4Addr,
    /// The virtual router.
    pub vrid: u8,
    /// Its priority; 0 gives up.
    pub priority: u8,
}

/// Listens to the adverts of a segment until it is dropped.
#[derive(Debug)]
pub struct Adverts {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Advert>>>,
    thread: Option<JoinHandle<()>>,
}

impl Adverts {
    /// Starts listening where a client is.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn listen(client: &Client) -> Result<Self> {
        let tap = Tap::open(client.host(), "eth0")?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match tap.receive(LOOK) {
                    Ok(frame) => lock(&found).extend(frame.and_then(|frame| advert(&frame.bytes, now()))),
                    Err(error) => return eprintln!("adverts: {error:#}"),
                }
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// What a director has sent since a moment.
    #[must_use]
    pub fn of(&self, from: Ipv4Addr, since: Instant) -> Vec<Advert> {
        lock(&self.seen).iter().filter(|advert| advert.from == from && advert.at >= since).copied().collect()
    }
}

impl Drop for Adverts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn advert(frame: &[u8], at: Instant) -> Option<Advert> {
    let ip = frame.get(14..)?;
    let vrrp = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    let from = <[u8; 4]>::try_from(ip.get(12..16)?).ok()?;
    // Type 1 of any version.
    let is_advert = ip.get(9) == Some(&VRRP) && vrrp.first()? & 0xf == 1;
    is_advert.then_some(Advert { at, from: from.into(), vrid: *vrrp.get(1)?, priority: *vrrp.get(2)? })
}

//! Who holds which VIP, as the kernels of the directors say it: every address that comes or goes, with the moment
//! (rtnetlink(7), RTNLGRP_IPV4_IFADDR). The witness is neither the agent nor keepalived.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use super::Lab;
use super::vrrp::VIPS;
use super::wait::{now, wait_for};

/// How often a watching thread looks whether it is to stop, in milliseconds.
const LOOK: u16 = 20;

/// A VIP came to a director, or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the kernel's word of it was read.
    pub at: Instant,
    /// 0 for d1, 1 for d2.
    pub director: usize,
    /// Index in [`VIPS`].
    pub vip: usize,
    /// It came.
    pub held: bool,
}

/// Watches the addresses of all directors of a lab until it is dropped.
#[derive(Debug)]
pub struct VipWatch {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<Shared>>,
    directors: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    changes: Vec<Change>,
    failed: Option<String>,
}

impl VipWatch {
    /// Starts watching; what is held already counts as coming now.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directors = lab.directors().len();
        let mut watch = Self { stop: Arc::default(), shared: Arc::default(), directors, threads: Vec::new() };
        for director in lab.directors() {
            let socket = director.host().enter(subscribe)?;
            let (stop, shared, index) = (Arc::clone(&watch.stop), Arc::clone(&watch.shared), director.index());
            watch.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = listen(&socket, index, &shared) {
                        lock(&shared).failed = Some(format!("{error:#}"));
                        return;
                    }
                }
            }));
        }
        Ok(watch)
    }

    /// All that has happened so far.
    ///
    /// # Errors
    /// When the kernel had more to tell than was read in time.
    pub fn history(&self) -> Result<History> {
        let shared = lock(&self.shared);
        match &shared.failed {
            Some(error) => bail!("watching the addresses: {error}"),
            None => Ok(History { directors: self.directors, changes: shared.changes.clone(), end: now() }),
        }
    }

    /// The director that holds both VIPs while no other holds one; None when there is no such director now.
    ///
    /// # Errors
    /// As [`VipWatch::history`].
    pub fn active(&self) -> Result<Option<usize>> {
        Ok(self.history()?.active())
    }

    /// Waits until `director` holds both VIPs and no other holds one; answers when it got the second one.
    ///
    /// # Errors
    /// When that does not come true within `limit`; the message holds what was seen.
    pub fn wait_for(&self, director: usize, limit: Duration) -> Result<Instant> {
        let what = format!("both VIPs on d{} alone", director + 1);
        wait_for(&what, limit, || {
            let history = self.history()?;
            Ok(if history.active() == Some(director) { history.complete_since(director) } else { None })
        })
        .with_context(|| self.history().map_or_else(|error| format!("{error:#}"), |history| history.describe()))
    }
}

impl Drop for VipWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What happened to the VIPs, in order.
#[derive(Clone, Debug)]
pub struct History {
    directors: usize,
    /// The changes.
    pub changes: Vec<Change>,
    /// Until when it was watched.
    end: Instant,
}

type Held = Vec<[bool; VIPS.len()]>;

impl History {
    /// What happened from a moment on; what was held then counts as coming at that moment.
    #[must_use]
    pub fn since(&self, from: Instant) -> Self {
        let mut held = vec![[false; VIPS.len()]; self.directors];
        let (before, after): (Vec<Change>, Vec<Change>) = self.changes.iter().partition(|change| change.at < from);
        before.iter().for_each(|change| held[change.director][change.vip] = change.held);
        let all = (0..self.directors).flat_map(|director| (0..VIPS.len()).map(move |vip| (director, vip)));
        let start = all.filter(|(director, vip)| held[*director][*vip]).map(|(director, vip)| Change {
            at: from,
            director,
            vip,
            held: true,
        });
        Self { directors: self.directors, changes: start.chain(after).collect(), end: self.end }
    }

    /// The director that holds both VIPs at the end, when no other holds one.
    #[must_use]
    pub fn active(&self) -> Option<usize> {
        let held = self.held_at_end();
        let whole = held.iter().position(|vips| vips.iter().all(|held| *held))?;
        let others = held.iter().enumerate().any(|(director, vips)| director != whole && vips.contains(&true));
        (!others).then_some(whole)
    }

    /// The longest time that a director held one of the VIPs without the other.
    #[must_use]
    pub fn apart(&self) -> Duration {
        self.longest(|held| held.iter().any(|vips| vips.contains(&true) && vips.contains(&false)))
    }

    /// The longest time that two directors held the same VIP.
    #[must_use]
    pub fn twice(&self) -> Duration {
        self.longest(|held| (0..VIPS.len()).any(|vip| held.iter().filter(|vips| vips[vip]).count() > 1))
    }

    /// How often a director that did not hold both VIPs came to hold them.
    #[must_use]
    pub fn promotions(&self) -> usize {
        let mut held: Held = vec![[false; VIPS.len()]; self.directors];
        let mut count = 0;
        for change in &self.changes {
            let before = held[change.director];
            held[change.director][change.vip] = change.held;
            count += usize::from(before.contains(&false) && !held[change.director].contains(&false));
        }
        count
    }

    /// Since when a director holds both VIPs; None when it does not.
    #[must_use]
    pub fn complete_since(&self, director: usize) -> Option<Instant> {
        let last = |vip: usize| self.changes.iter().rfind(|change| (change.director, change.vip) == (director, vip));
        let came = (0..VIPS.len()).map(|vip| last(vip).filter(|change| change.held).map(|change| change.at));
        came.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The changes as text, for messages; milliseconds before the end of watching.
    #[must_use]
    pub fn describe(&self) -> String {
        let line = |change: &Change| {
            let ago = self.end.saturating_duration_since(change.at).as_millis();
            let (verb, (vip, ..)) = (if change.held { "gets" } else { "loses" }, VIPS[change.vip]);
            format!("{ago:>6} ms ago d{} {verb} {vip}", change.director + 1)
        };
        self.changes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn held_at_end(&self) -> Held {
        let mut held: Held = vec![[false; VIPS.len()]; self.directors];
        self.changes.iter().for_each(|change| held[change.director][change.vip] = change.held);
        held
    }

    fn longest(&self, state: impl Fn(&Held) -> bool) -> Duration {
        let mut held: Held = vec![[false; VIPS.len()]; self.directors];
        let (mut since, mut longest) = (None, Duration::ZERO);
        for change in &self.changes {
            held[change.director][change.vip] = change.held;
            match (state(&held), since) {
                (true, None) => since = Some(change.at),
                (false, Some(start)) => {
                    longest = longest.max(change.at.saturating_duration_since(start));
                    since = None;
                }
                _ => {}
            }
        }
        longest.max(since.map_or(Duration::ZERO, |start| self.end.saturating_duration_since(start)))
    }
}

const RTM_NEWADDR: u16 = libc::RTM_NEWADDR;
const RTM_DELADDR: u16 = libc::RTM_DELADDR;
/// `struct nlmsghdr` (netlink(7)).
const HEADER: usize = 16;
/// `struct ifaddrmsg` (rtnetlink(7)).
const BODY: usize = 8;

/// Opens a socket that hears of every change, and asks for what there is.
fn subscribe() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
        .context("open a netlink socket")?;
    setsockopt(&socket, sockopt::RcvBuf, &(1 << 20)).context("set the receive buffer")?;
    let groups = 1 << (libc::RTNLGRP_IPV4_IFADDR - 1);
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("subscribe to address changes")?;
    let mut request = Vec::with_capacity(HEADER + BODY);
    request.extend(((HEADER + BODY) as u32).to_ne_bytes());
    request.extend(libc::RTM_GETADDR.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).context("ask for the addresses")?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, director: usize, shared: &Mutex<Shared>) -> Result<()> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::from(LOOK)) {
        Ok(0) | Err(Errno::EINTR) => return Ok(()),
        Ok(_) => {}
        Err(errno) => return Err(errno).context("wait for address changes"),
    }
    let mut buffer = [0; 16 << 10];
    let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        Ok(length) => length,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
        Err(errno) => return Err(anyhow!(errno)).context("read address changes"),
    };
    let at = now();
    let mut shared = lock(shared);
    for (address, held) in changes(&buffer[..length]) {
        let Some(vip) = VIPS.iter().position(|(vip, ..)| *vip == address) else { continue };
        let known = shared.changes.iter().rfind(|change| (change.director, change.vip) == (director, vip));
        if known.is_some_and(|known| known.held) != held {
            shared.changes.push(Change { at, director, vip, held });
        }
    }
    Ok(())
}

/// The addresses that a datagram speaks of, with whether they are there.
fn changes(mut datagram: &[u8]) -> Vec<(Ipv4Addr, bool)> {
    let mut found = Vec::new();
    while let Some((header, rest)) = datagram.split_at_checked(HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = length.checked_sub(HEADER).and_then(|length| rest.get(..length)) else { break };
        if matches!(kind, RTM_NEWADDR | RTM_DELADDR)
            && let Some(address) = local_address(body)
        {
            found.push((address, kind == RTM_NEWADDR));
        }
        datagram = rest.get(align(length) - HEADER..).unwrap_or_default();
    }
    found
}

/// `IFA_LOCAL` among the attributes of an address.
fn local_address(body: &[u8]) -> Option<Ipv4Addr> {
    let mut attributes = body.get(BODY..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes([*attributes.first()?, *attributes.get(1)?]));
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        if kind == libc::IFA_LOCAL {
            return <[u8; 4]>::try_from(attributes.get(4..8)?).ok().map(Ipv4Addr::from);
        }
        attributes = attributes.get(align(length).max(4)..)?;
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: &[(u64, usize, usize, bool)], end: u64) -> (Instant, History) {
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        let changes = steps.iter().map(|&(ms, director, vip, held)| Change { at: at(ms), director, vip, held });
        (start, History { directors: 2, changes: changes.collect(), end: at(end) })
    }

    #[test]
    fn a_clean_move_is_one_promotion_and_nothing_overlaps() {
        let steps = [
            (0, 0, 0, true),
            (0, 0, 1, true),
            (10, 0, 0, false),
            (12, 0, 1, false),
            (15, 1, 0, true),
            (18, 1, 1, true),
        ];
        let (start, history) = history(&steps, 100);
        assert_eq!(history.active(), Some(1));
        assert_eq!((history.apart(), history.twice()), (Duration::from_millis(3), Duration::ZERO));
        assert_eq!(history.promotions(), 2);
        assert_eq!(history.since(start + Duration::from_millis(11)).promotions(), 1);
        assert_eq!(history.complete_since(1), Some(start + Duration::from_millis(18)));
        assert_eq!(history.complete_since(0), None);
    }

    #[test]
    fn what_has_not_ended_counts_to_the_end() {
        let (start, history) = history(&[(0, 0, 0, true), (0, 0, 1, true), (40, 1, 0, true)], 100);
        assert_eq!(history.active(), None, "d2 holds one, too");
        assert_eq!((history.apart(), history.twice()), (Duration::from_millis(60), Duration::from_millis(60)));
        assert_eq!(history.since(start + Duration::from_millis(70)).twice(), Duration::from_millis(30));
    }

    #[test]
    fn a_datagram_of_several_messages_is_read_to_its_end() {
        let message = |kind: u16, address: [u8; 4]| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend([0; BODY]);
            // IFA_ADDRESS comes first, IFA_LOCAL is what counts.
            bytes.extend([4, 0, libc::IFA_ADDRESS as u8, 0]);
            bytes.extend([8, 0, libc::IFA_LOCAL as u8, 0]);
            bytes.extend(address);
            bytes[0] = bytes.len() as u8;
            bytes
        };
        let datagram = [message(RTM_NEWADDR, [10, 80, 1, 243]), message(RTM_DELADDR, [10, 0, 0, 1]), vec![1]].concat();
        let (vip, other) = (Ipv4Addr::new(10, 80, 1, 243), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(changes(&datagram), [(vip, true), (other, false)]);
    }
}

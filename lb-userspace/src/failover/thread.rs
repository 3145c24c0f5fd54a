//! The timer thread: waits, hears, decides, acts.
//!
//! Each turn of its loop hands over all that was received before it lets time pass: silence counts only if somebody
//! listened. Nothing here allocates while nothing happens, and nothing waits for anybody but the kernel.

mod prepare;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;

use super::{
    CHECK_ADDRESSES, Event, Fence, Granted, Happened, Shared, Status, Witness,
    addresses::Addresses,
    inbox::{Inbox, Message},
    links::{Links, News},
    pack,
    wire::{Read, Wire},
};
use crate::{
    ha::{self, Action, Cause, Election, Input, Role},
    vrrp::{PRIORITY_RESIGN, machine::Heard, packet::Advert},
};

/// The longest wait: somebody watches whether the loop turns.
const TURN: Duration = Duration::from_millis(100);
/// Packets of a transport in one turn: more than its socket holds, so that a sleeper's backlog is one turn's.
const PACKETS: usize = 256;
/// The pause of a thread that is flooded, for the sake of all others.
const BREATH: Duration = Duration::from_millis(1);
/// The pause after which VIPs that the kernel refused are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long frames may still come after the role went: switches and neighbours learn.
const LINGER: Duration = Duration::from_secs(3);

/// What can fail, to be told once.
#[derive(Clone, Copy)]
enum Work {
    Receive,
    Send,
    Announce,
    Vips,
    Gate,
    Beat,
    Links,
}

const WORKS: [&str; 7] = [
    "receive adverts",
    "send adverts",
    "send gratuitous ARP",
    "configure the VIPs",
    "move the ARP gate",
    "keep the ARP gate open",
    "watch the links",
];

/// The state of the thread.
pub(super) struct Thread {
    election: Election,
    wires: Vec<Wire>,
    addresses: Addresses,
    links: Links,
    fence: Box<dyn Fence>,
    witness: Option<Box<dyn Witness>>,
    next_witness: Option<Instant>,
    inbox: Inbox,
    events: Sender<Event>,
    shared: Arc<Shared>,
    granted: Granted,
    fds: Vec<libc::pollfd>,
    role: Role,
    gate_open: bool,
    next_beat: Instant,
    /// When late frames are over, after this director gave up.
    settles: Option<Instant>,
    /// The VIPs could not be put on in this turn: nobody is told that they are here.
    refused: bool,
    /// When they are tried again.
    again: Option<Instant>,
    /// When another router was heard last.
    heard: Option<Instant>,
    /// When this director gave its role away, until another one is heard.
    gave_up: Option<Instant>,
    told: [bool; WORKS.len()],
    late: u64,
    worst_delay: Duration,
    stopped: bool,
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the election; the core takes it as an argument")]
    Instant::now()
}

impl Thread {
    pub(super) const fn config(&self) -> &ha::Config {
        self.election.config()
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, granted: Granted) {
        self.granted = granted;
        while !self.stopped {
            let due = self.due();
            self.wait(due);
            let now = now();
            let delay = due.map(|due| now.saturating_duration_since(due)).unwrap_or_default();
            self.worst_delay = self.worst_delay.max(delay);
            let flooded = self.listen(now);
            self.look_at_links(now);
            self.read_messages(now);
            self.election.handle_timeout(now);
            self.act(now);
            self.keep_alive(now);
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            if flooded {
                std::thread::sleep(BREATH);
            }
        }
    }

    /// When something must be done.
    fn due(&self) -> Option<Instant> {
        let beat = self.gate_open.then_some(self.next_beat);
        [self.election.poll_timeout(), beat, self.next_witness, self.settles, self.again].into_iter().flatten().min()
    }

    fn wait(&mut self, due: Option<Instant>) {
        let left = due.map_or(TURN, |due| due.saturating_duration_since(now()).min(TURN));
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: left.as_nanos() as libc::c_long };
        // SAFETY: the array is valid for its length; no signal mask. An interrupted wait is a short one.
        unsafe {
            libc::ppoll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, &raw const timeout, std::ptr::null());
        }
    }

    /// Hands over every packet that has arrived; `true`: there were too many, or a socket is broken.
    fn listen(&mut self, now: Instant) -> bool {
        let mut flooded = false;
        for transport in 0..self.wires.len() {
            flooded |= self.listen_to(transport, now);
        }
        flooded
    }

    fn listen_to(&mut self, transport: usize, now: Instant) -> bool {
        for _ in 0..PACKETS {
            match self.wires[transport].read() {
                Ok(Read::Advert(advert)) => {
                    while let Some(what) = self.wires[transport].news(&advert) {
                        self.tell(Happened::Differs { from: advert.source, transport, what }, now);
                    }
                    self.heard = Some(now);
                    let heard = Heard::from(&advert);
                    self.election.handle(Input::Advert { transport, heard }, now);
                    self.act(now);
                    if advert.priority != PRIORITY_RESIGN && self.role != Role::Active {
                        self.is_taken_over(&advert, transport, now);
                    }
                }
                Ok(Read::Ignored(None)) => {}
                Ok(Read::Ignored(Some((from, reason)))) => {
                    self.tell(Happened::Ignored { from, transport, reason }, now);
                }
                Ok(Read::Empty) => {
                    self.outcome(Work::Receive, Ok(()), now);
                    return false;
                }
                Err(error) => {
                    self.outcome(Work::Receive, Err(error), now);
                    return true;
                }
            }
        }
        true
    }

    fn is_taken_over(&mut self, advert: &Advert, transport: usize, now: Instant) {
        if let Some(gave_up) = self.gave_up.take() {
            let after = now.saturating_duration_since(gave_up);
            self.tell(Happened::TakenOver { by: advert.source, transport, after }, now);
        }
    }

    fn look_at_links(&mut self, now: Instant) {
        let Self { links, wires, election, addresses, .. } = self;
        let mut lost = false;
        let read = links.read(|news| match news {
            News::Link(link) => {
                for (transport, wire) in wires.iter_mut().enumerate().filter(|(_, wire)| wire.ifindex == link.ifindex) {
                    if let Some(mac) = link.mac {
                        wire.set_mac(mac);
                    }
                    election.handle(Input::Link { transport, up: link.up }, now);
                }
            }
            News::Gone(address) => lost |= addresses.is_vip(address),
        });
        self.outcome(Work::Links, read, now);
        self.act(now);
        if lost && self.gate_open {
            self.restore(now);
        }
    }

    /// Somebody took a VIP off; or it is old news, of a time when this director was not Active.
    fn restore(&mut self, now: Instant) {
        match self.addresses.restore() {
            Ok(false) => {}
            Ok(true) => {
                self.tell(Happened::Restored, now);
                self.announce(1, now);
            }
            Err(error) => {
                self.outcome(Work::Vips, Err(error), now);
            }
        }
    }

    fn announce(&mut self, repeat: u8, now: Instant) {
        for _ in 0..repeat {
            for wire in 0..self.wires.len() {
                let announced = self.wires[wire].announcer.announce();
                self.outcome(Work::Announce, announced, now);
            }
        }
    }

    fn read_messages(&mut self, now: Instant) {
        self.inbox.hush();
        while let Some(message) = self.inbox.take() {
            match message {
                Message::Input(input) => {
                    self.stopped |= input == Input::Stop;
                    self.election.handle(input, now);
                    self.act(now);
                }
                Message::Status(answer) => {
                    // Who has gone does not miss it.
                    let _ = answer.try_send(self.status(now));
                }
            }
        }
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            election: self.election.status(now),
            transports: self.wires.iter().map(|wire| wire.status.clone()).collect(),
            gate_open: self.gate_open,
            granted: self.granted.clone(),
            late: self.late,
            worst_delay: self.worst_delay,
        }
    }

    /// Does everything that the election wants done, in its order.
    fn act(&mut self, now: Instant) {
        while let Some(action) = self.election.poll_action() {
            self.perform(action, now);
        }
        if std::mem::take(&mut self.refused) {
            self.again = Some(now + AGAIN);
            self.election.handle(Input::Check { check: CHECK_ADDRESSES, ok: false }, now);
            while let Some(action) = self.election.poll_action() {
                self.perform(action, now);
            }
        }
        self.shared.beat.store(pack(self.election.beat()), Ordering::Release);
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::OpenArpGate => {
                let opened = self.fence.open().map_err(io::Error::other);
                self.gate_open = opened.is_ok();
                self.settles = None;
                self.next_beat = now + self.fence.every();
                self.refused |= !self.outcome(Work::Gate, opened, now);
            }
            Action::CloseArpGate => {
                if std::mem::take(&mut self.gate_open) {
                    self.settles = Some(now + LINGER);
                }
                let closed = self.fence.close().map_err(io::Error::other);
                self.outcome(Work::Gate, closed, now);
            }
            Action::AddVips => {
                let risen = self.wires.iter().try_for_each(Wire::rise);
                let added = risen.and_then(|()| self.addresses.add());
                self.refused |= !self.outcome(Work::Vips, added, now);
            }
            Action::RemoveVips => {
                let removed = self.addresses.remove();
                let removed = removed.and_then(|()| self.wires.iter().try_for_each(Wire::sink));
                self.outcome(Work::Vips, removed, now);
            }
            Action::SendAdvert { priority, .. } if self.refused && priority != PRIORITY_RESIGN => {}
            Action::SendAdvert { transport, priority } => {
                let sent = self.wires[transport].send(priority);
                self.outcome(Work::Send, sent, now);
            }
            Action::GratuitousArp { .. } if self.refused => {}
            Action::GratuitousArp { repeat } => self.announce(repeat, now),
            Action::Notify { role, cause } => {
                let was = std::mem::replace(&mut self.role, role);
                // Who is displaced has heard the new Active already.
                let displaced = matches!(cause, Cause::Outranked { .. } | Cause::OutrankedBySync | Cause::Superseded);
                self.gave_up = (was == Role::Active && role != Role::Active && !displaced).then_some(now);
                self.next_witness = self.next_witness.map(|_| now);
                // Everything before this in the queue is done: the announcements are out.
                let done = self::now();
                let silence = self.heard.map(|at| done.saturating_duration_since(at));
                self.tell(Happened::Role { role, cause, was, silence }, done);
            }
            Action::Alarm { alarm, raised } => self.tell(Happened::Alarm { alarm, raised }, now),
            Action::Late { by } => {
                self.late += 1;
                self.tell(Happened::Late { by }, now);
            }
        }
    }

    /// What must go on for as long as this thread lives.
    fn keep_alive(&mut self, now: Instant) {
        if self.gate_open && self.next_beat <= now {
            let beaten = self.fence.beat().map_err(io::Error::other);
            self.outcome(Work::Beat, beaten, now);
            self.next_beat = now + self.fence.every();
        }
        if let (Some(witness), true) = (&mut self.witness, self.next_witness.is_some_and(|at| at <= now)) {
            witness.send(&self.election.beat());
            self.next_witness = self.election.config().heartbeat.map(|timing| now + timing.interval);
        }
        if self.settles.take_if(|at| *at <= now).is_some() {
            self.fence.settle();
        }
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.election.handle(Input::Check { check: CHECK_ADDRESSES, ok: true }, now);
            self.act(now);
        }
    }

    /// Tells about a failure, once until it has gone well again; `true`: it went well.
    fn outcome(&mut self, work: Work, result: io::Result<()>, now: Instant) -> bool {
        let what = work as usize;
        match result {
            Ok(()) => self.told[what] = false,
            Err(error) => {
                if !std::mem::replace(&mut self.told[what], true) {
                    self.tell(Happened::Failed { what: WORKS[what], error: error.to_string() }, now);
                }
                return false;
            }
        }
        true
    }

    fn tell(&self, what: Happened, at: Instant) {
        // A reader that sleeps loses events; the thread must not wait for it.
        let _ = self.events.try_send(Event { at, what });
    }
}

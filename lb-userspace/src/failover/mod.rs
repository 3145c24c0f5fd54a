//! The election at work: sockets, addresses, links, and one thread that owns them together with the pure core in `ha`.
//!
//! The thread waits for nobody: it is told through an [`inbox`], tells through a bounded channel, and touches the packet
//! path through [`Fence`]. It reads the clock; nothing else here does. Adverts, timers and ARP follow RFC 9568, RFC 3768
//! and RFC 5227.

mod addresses;
mod arp;
mod inbox;
mod links;
mod place;
mod realtime;
mod socket;
mod status;
mod thread;
mod vmac;
mod wire;

use std::{
    fmt, io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    ha::{self, Beat, PeerRole},
    vrrp::packet::VirtualRouter,
};

use inbox::{Message, Outside};

pub use place::Vip;
pub use realtime::Granted;
pub use status::{Difference, Event, Happened, Status, TransportStatus};
pub use vmac::virtual_mac;

/// Events that may wait for their reader.
const EVENTS: usize = 256;
/// How long an answer of the thread may take: it is never busy for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The index of the packet path among the election's checks.
pub const CHECK_PACKET_PATH: usize = 0;
/// The index of the VIPs themselves: that the kernel takes them.
pub const CHECK_ADDRESSES: usize = 1;
/// The checks above, by name; others follow.
pub const CHECKS: [&str; 2] = ["packet path", "VIPs"];

/// One VRRP instance.
#[derive(Clone, Debug)]
pub struct Transport {
    /// The interface.
    pub interface: String,
    /// What its adverts say; the addresses are those of `vips`.
    pub router: VirtualRouter,
    /// The VIPs that it announces.
    pub vips: Vec<Vip>,
    /// Our own address there; `None`: the interface's first one that is no VIP.
    pub address: Option<Ipv4Addr>,
    /// The other directors there: adverts of others are ignored. Empty: anybody's count.
    pub peers: Vec<Ipv4Addr>,
    /// Adverts go to the peers instead of the group.
    pub unicast: bool,
    /// The VIPs have a link-layer address of their own.
    pub virtual_mac: bool,
}

/// The parameters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Those of the election, without transports: they follow from the ones here.
    pub election: ha::Config,
    /// At least one, in the same order on all directors.
    pub transports: Vec<Transport>,
}

/// The ARP gate of the packet path, as the thread moves it.
pub trait Fence: Send + 'static {
    /// Answer ARP for the VIPs for as long as [`Fence::beat`] is called.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    fn open(&self) -> Result<(), String>;

    /// Answer no ARP for the VIPs.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    fn close(&self) -> Result<(), String>;

    /// The thread is alive. Must not wait and not allocate.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    fn beat(&self) -> Result<(), String>;

    /// Late frames do not come any more: those for a virtual MAC are the peer's now.
    fn settle(&self);

    /// The pause between two beats while the gate is open.
    fn every(&self) -> Duration;
}

/// Sends our heartbeat to the peer, from the timer thread: must not wait and not allocate.
pub trait Witness: Send + 'static {
    /// Sends it.
    fn send(&mut self, beat: &Beat);
}

/// Why the election cannot run.
#[derive(Debug)]
pub enum Error {
    /// An interface does not exist.
    NoInterface(String),
    /// An interface has no address of its own to send from, or not the configured one.
    NoAddress {
        /// The interface.
        interface: String,
        /// The configured address.
        wanted: Option<Ipv4Addr>,
    },
    /// A VIP is the only address of an interface.
    OwnAddress {
        /// The address.
        address: Ipv4Addr,
        /// The interface.
        interface: String,
    },
    /// The parameters make no sense.
    Config(ha::ConfigError),
    /// The ARP gate does not move.
    Gate(String),
    /// A system call failed.
    Io {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface(name) => write!(f, "interface {name:?} does not exist: `ip link` lists the names"),
            Self::NoAddress { interface, wanted: Some(address) } => write!(
                f,
                "{interface} does not have the address {address} that `addresses` of [director.NAME] gives it: is this \
                 the right --node?"
            ),
            Self::NoAddress { interface, wanted: None } => write!(
                f,
                "{interface} has no IPv4 address beside VIPs: adverts need one to be sent from; give it one of its own"
            ),
            Self::OwnAddress { address, interface } => write!(
                f,
                "{address} is the only address of {interface}, so it is this host's own and no VIP: give {interface} \
                 another one, or correct [[vip]]"
            ),
            Self::Config(error) => write!(f, "{error}"),
            Self::Gate(error) => write!(f, "move the ARP gate: {error}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Config(error) => Some(error),
            _ => None,
        }
    }
}

/// The running thread. Dropping it stops the thread, which gives up the VIPs.
#[derive(Debug)]
pub struct Failover {
    to: Outside,
    shared: Arc<Shared>,
    config: ha::Config,
    notes: Vec<String>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread shows without being asked.
#[derive(Debug, Default)]
struct Shared {
    /// Turns of its loop: it lives as long as they go up.
    turns: AtomicU64,
    /// The last [`Beat`], packed.
    beat: AtomicU64,
}

impl Failover {
    /// Brings the VIPs in order, opens sockets and starts the thread. The election takes part from
    /// [`Input::Start`](ha::Input::Start) on: checks may be told before.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; then no VIP is configured and no socket is open.
    pub fn start(
        settings: Settings,
        fence: impl Fence,
        witness: Option<Box<dyn Witness>>,
    ) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let (to, inbox) = inbox::open()?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared::default());
        let locked = realtime::lock_memory().err().map(|error| error.to_string());
        let (thread, notes) = thread::Thread::prepare(settings, fence, witness, inbox, events, shared.clone())?;
        let config = thread.config().clone();
        let (ready, started) = sync_channel(0);
        let run = move || {
            let realtime = realtime::schedule().err().map(|error| error.to_string());
            // The starter waits for it.
            let _ = ready.send(());
            thread.run(Granted { realtime, locked });
        };
        let builder = std::thread::Builder::new().name("lb-timer".to_owned());
        let thread = builder.spawn(run).map_err(Error::io("start the timer thread"))?;
        // An error would mean that the thread has ended already; then nobody answers, and that is noticed.
        let _ = started.recv();
        Ok((Self { to, shared, config, notes, thread: Mutex::new(Some(thread)) }, receiver))
    }

    /// Tells the election something; `false`: the thread does not keep up, and the input is lost.
    pub fn input(&self, input: ha::Input) -> bool {
        self.to.send(Message::Input(input))
    }

    /// A way for other parts to tell the election something, from any thread, without waiting.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        Inputs(self.to.clone())
    }

    /// The election's parameters, for the names in causes and alarms.
    #[must_use]
    pub const fn config(&self) -> &ha::Config {
        &self.config
    }

    /// What the start found and changed, for the operator.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the running election knows; `None`: the thread does not answer.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let (answer, answered): (SyncSender<Status>, _) = sync_channel(1);
        if !self.to.send(Message::Status(answer)) {
            return None;
        }
        answered.recv_timeout(PATIENCE).ok()
    }

    /// What the heartbeat is to tell the peer at this moment.
    #[must_use]
    pub fn beat(&self) -> Beat {
        unpack(self.shared.beat.load(Ordering::Acquire))
    }

    /// Turns of the thread's loop, at least ten per second: the thread lives as long as they go up.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// The thread has ended without being told to: it has panicked.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Gives up all VIPs, tells the peer, and ends the thread.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            while !self.input(ha::Input::Stop) && !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A panic of the thread has been printed; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Failover {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes off everything that agents left on this host's interfaces; tells what.
///
/// # Errors
///
/// The kernel refuses.
pub fn clean_up() -> Result<Vec<String>, Error> {
    let mut gone = addresses::remove_ours().map_err(Error::io("remove the VIPs"))?;
    gone.extend(vmac::remove_all().map_err(Error::io("remove the devices of virtual MACs"))?);
    Ok(gone)
}

/// Tells the election something.
#[derive(Clone, Debug)]
pub struct Inputs(Outside);

impl Inputs {
    /// As [`Failover::input`].
    pub fn input(&self, input: ha::Input) -> bool {
        self.0.send(Message::Input(input))
    }
}

fn pack(beat: Beat) -> u64 {
    u64::from(beat.role as u8) << 40 | u64::from(beat.priority) << 32 | u64::from(beat.address.to_bits())
}

fn unpack(word: u64) -> Beat {
    let roles = [PeerRole::Active, PeerRole::Backup, PeerRole::Fault, PeerRole::Leaving];
    let role = roles.into_iter().find(|role| *role as u64 == word >> 40).unwrap_or(PeerRole::Backup);
    Beat { role, priority: (word >> 32) as u8, address: Ipv4Addr::from_bits(word as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_fits_into_a_word() {
        for role in [PeerRole::Active, PeerRole::Backup, PeerRole::Fault, PeerRole::Leaving] {
            let beat = Beat { role, priority: 254, address: Ipv4Addr::new(255, 1, 2, 3) };
            assert_eq!(unpack(pack(beat)), beat);
        }
    }
}

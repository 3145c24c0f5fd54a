//! The timer thread while nothing happens: it sends, hears and keeps the ARP gate open without allocating once.
//!
//! The real thread on real interfaces; only the packet path's side is the test's own, to see from within.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use lb_tests::lab::{Director, LabOptions, addr, wait_for};
use lb_userspace::failover::{CHECKS, Failover, Fence, Settings, Transport, Vip, Witness};
use lb_userspace::ha::{ArpSchedule, Beat, Config, HeartbeatTiming, Input, Mode, PeerRole};
use lb_userspace::vrrp::{
    Version,
    interval::Interval,
    machine::Preempt,
    packet::{Auth, ChecksumKind, VirtualRouter},
};

const LIMIT: Duration = Duration::from_secs(20);

thread_local! {
    /// This thread is one whose allocations count.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with a count for the watched threads.
struct Counting;

impl Counting {
    fn count() {
        // A thread that ends has no such variable any more.
        if WATCHED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: upheld by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: upheld by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: upheld by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Debug, Default)]
struct Seen {
    open: AtomicBool,
    beats: AtomicU64,
    /// Heartbeats that were to be sent.
    sent: AtomicU64,
}

struct Gate(Arc<Seen>);

impl Fence for Gate {
    fn open(&self) -> Result<(), String> {
        self.0.open.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn close(&self) -> Result<(), String> {
        self.0.open.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn beat(&self) -> Result<(), String> {
        self.0.beats.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn settle(&self) {}

    fn every(&self) -> Duration {
        Duration::from_millis(20)
    }
}

struct Spy(Arc<Seen>);

impl Witness for Spy {
    fn send(&mut self, _: &Beat) {
        WATCHED.set(true);
        self.0.sent.fetch_add(1, Ordering::SeqCst);
    }
}

fn settings(priority: u8) -> Settings {
    let interval = Interval::new(Version::V3, 10).unwrap();
    let transport = |interface: &str, vrid, vip: Ipv4Addr| Transport {
        interface: interface.to_owned(),
        router: VirtualRouter {
            version: Version::V3,
            vrid,
            auth: Auth::None,
            interval,
            addresses: vec![vip],
            checksum: ChecksumKind::Message,
        },
        vips: vec![Vip { address: vip, prefix: 24 }],
        address: None,
        peers: Vec::new(),
        unicast: false,
        virtual_mac: false,
    };
    Settings {
        election: Config {
            mode: Mode::Pair,
            priority,
            preempt: Preempt::Never,
            transports: Vec::new(),
            checks: CHECKS.map(str::to_owned).into(),
            heartbeat: Some(HeartbeatTiming { interval: Duration::from_millis(50), lost_after: 3 }),
            arp: ArpSchedule::default(),
            hold_max: None,
        },
        transports: vec![transport("ext0", 52, addr::VIP), transport("int0", 51, addr::INTERNAL_VIP)],
    }
}

fn start(director: &Director, priority: u8) -> (Failover, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let (gate, spy) = (Gate(seen.clone()), Box::new(Spy(seen.clone())));
    let (failover, _events) =
        director.host().enter(|| Ok(Failover::start(settings(priority), gate, Some(spy)).unwrap())).unwrap();
    assert!(failover.input(Input::Start));
    (failover, seen)
}

#[test]
fn in_steady_state_neither_the_active_nor_the_backup_allocates_and_each_tells_its_heartbeat() {
    let options = LabOptions { directors: 2, clients: 0, servers: 0, mariadb: None, ..LabOptions::default() };
    let lab = options.up().unwrap();
    let [d1, d2] = lab.directors() else { panic!("not two directors") };
    let (active, active_seen) = start(d1, 101);
    wait_for("d1 as Active", LIMIT, || Ok(active_seen.open.load(Ordering::SeqCst).then_some(()))).unwrap();
    let (backup, backup_seen) = start(d2, 100);
    // The peer's heartbeats reach the thread from another one, as those of the sync path do.
    let inputs = backup.inputs();
    let exchange = |turns: u32| {
        for _ in 0..turns {
            assert!(inputs.input(Input::Heartbeat(active.beat())));
            assert!(active.input(Input::Heartbeat(backup.beat())));
            sleep(Duration::from_millis(50));
        }
    };
    exchange(20);

    let before = ALLOCATIONS.load(Ordering::SeqCst);
    let counts = || [&active_seen, &backup_seen].map(|seen| seen.sent.load(Ordering::SeqCst));
    let (sent, beats) = (counts(), active_seen.beats.load(Ordering::SeqCst));
    exchange(20);
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
    // The refresh of ARP comes every 10 s, as all else does more rarely; this was a second with all that is frequent.
    let [of_active, of_backup] = counts();
    assert!(of_active - sent[0] >= 10 && of_backup - sent[1] >= 10, "the threads were not watched");
    assert!(active_seen.beats.load(Ordering::SeqCst) - beats >= 20, "the gate was not kept open");
    assert_eq!(allocations, 0);

    assert_eq!([active.beat().role, backup.beat().role], [PeerRole::Active, PeerRole::Backup]);
    assert_eq!(backup.beat().address, Ipv4Addr::new(10, 80, 1, 242));
    let status = backup.status().unwrap();
    assert!(status.transports.iter().all(|transport| transport.received.adverts >= 10), "{status:?}");
    assert!(status.election.alarms.is_empty(), "{status:?}");
    assert!(ALLOCATIONS.load(Ordering::SeqCst) > before, "an answer allocates: the count works");
}

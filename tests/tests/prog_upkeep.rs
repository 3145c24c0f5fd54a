//! What the agent does while the packet path runs, with the real object and the real kernel: events, expiry, reuse of
//! backend ids, next hops, the ARP gate's heartbeat.

use std::{
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use lb_common::{
    abi,
    conn::{Conn, FlowKey},
    control::ArpGate,
    counter::Counter,
    event::EventKind,
    retire::{BATCH, Outcome, Request},
    tcp::{State, flag},
};
use lb_tests::sandbox::{BACKEND, CLIENT, Sandbox, VIP, conn, object, run, sandbox, service};
use lb_userspace::datapath::{Datapath, DesiredService, Events, Mode, Summary, Sweep, Timeouts, hops};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A conn of the client's port, last seen that many seconds ago, with the flags that each side has seen.
fn aged(datapath: &Datapath, port: u16, seconds: u32, seen: [u8; 2]) -> [(FlowKey, Conn); 2] {
    let last_seen = (datapath.clock().unwrap().jiffies as u32).wrapping_sub(seconds * datapath.ticks().hz);
    let [mut forward, mut reverse] = conn(port);
    (forward.1.seen, reverse.1.seen) = (seen[0], seen[1]);
    (forward.1.last_seen, reverse.1.last_seen) = (last_seen, last_seen);
    [forward, reverse]
}

fn sweep(datapath: &Datapath) -> Summary {
    let mut sweep = Sweep::new(datapath, &Timeouts::default()).unwrap();
    loop {
        if let Some(summary) = sweep.step(datapath).unwrap() {
            return summary;
        }
    }
}

const OPEN: [u8; 2] = [flag::SYN | flag::ACK, flag::SYN | flag::ACK];
const RESET: [u8; 2] = [flag::SYN | flag::ACK, flag::SYN | flag::ACK | flag::RST];
const SYN_SENT: [u8; 2] = [flag::SYN, 0];

#[test]
fn a_sweep_removes_what_is_over_and_counts_the_rest() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let tables = datapath.tables();
        let mut entries = Vec::new();
        for port in 1..=9_000 {
            let (seconds, seen) = match port % 3 {
                0 => (11, RESET),
                1 => (9, RESET),
                _ => (3_600, OPEN),
            };
            entries.extend(aged(&datapath, port, seconds, seen));
        }
        // An entry whose other half is gone: a young one stays, of either direction an old one goes.
        entries.push(aged(&datapath, 20_000, 5, OPEN)[0]);
        entries.push(aged(&datapath, 20_001, 11, OPEN)[0]);
        entries.push(aged(&datapath, 20_002, 11, OPEN)[1]);
        tables.conns.insert_many(&entries).unwrap();
        for port in [30_000, 30_001] {
            tables.half_open.insert_many(&aged(&datapath, port, 61, SYN_SENT)).unwrap();
        }
        tables.half_open.insert_many(&aged(&datapath, 30_002, 59, SYN_SENT)).unwrap();

        let summary = sweep(&datapath);
        assert_eq!((summary.conns, summary.half_open, summary.invalid), (9_000, 3, 0));
        assert_eq!(summary.expired[State::Close as usize], 3_000);
        assert_eq!(summary.expired[State::SynRecv as usize], 2);
        assert_eq!((summary.removed(), summary.alone), (3_002, 2));
        assert_eq!((summary.backends[0].active, summary.backends[0].inactive), (3_000, 3_001));
        for (port, lives) in [(3_u16, false), (1, true), (2, true), (20_000, true), (20_001, false)] {
            assert_eq!(tables.conns.get(&conn(port)[0].0).unwrap().is_some(), lives, "conn of port {port}");
        }
        assert_eq!(tables.conns.get(&conn(3)[1].0).unwrap(), None, "both entries go");
        assert_eq!(tables.conns.get(&conn(20_002)[1].0).unwrap(), None);

        let again = sweep(&datapath);
        assert_eq!((again.removed(), again.conns, again.half_open), (0, 6_000, 1));
        assert_eq!(again.entries(), [12_003]);
    });
}

#[test]
fn a_packet_after_the_scan_saves_its_conn() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let [forward, reverse] = aged(&datapath, 40_000, 11, RESET);
        datapath.tables().conns.insert_many(&[forward, reverse]).unwrap();
        let request = Request { key: forward.0, forward_seen: forward.1.last_seen, reverse_seen: reverse.1.last_seen };
        let newer = Conn { last_seen: reverse.1.last_seen + 1, ..reverse.1 };
        datapath.tables().conns.insert(&reverse.0, &newer).unwrap();
        assert_eq!(datapath.retire(&[request]).unwrap(), [Outcome::default()]);
        assert!(datapath.tables().conns.get(&forward.0).unwrap().is_some());
        datapath.tables().conns.insert(&reverse.0, &reverse.1).unwrap();
        let outcome = Outcome {
            removed: 1,
            forward_ack: forward.1.ack,
            forward_seq: forward.1.seq,
            reverse_ack: reverse.1.ack,
            reverse_seq: reverse.1.seq,
            reserved: 0,
        };
        assert_eq!(datapath.retire(&[request]).unwrap(), [outcome], "and where both ends stand");
        assert_eq!(datapath.tables().conns.get(&reverse.0).unwrap(), None);
        assert_eq!(datapath.retire(&[request]).unwrap(), [Outcome::default()], "it is gone");
    });
}

#[test]
fn a_full_batch_comes_back_with_an_outcome_for_each() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let numbered = |port: u16| {
            let [mut forward, mut reverse] = aged(&datapath, port, 11, RESET);
            (forward.1.seq, forward.1.ack) = (port.into(), 10_000 + u32::from(port));
            (reverse.1.seq, reverse.1.ack) = (20_000 + u32::from(port), 30_000 + u32::from(port));
            [forward, reverse]
        };
        let all: Vec<_> = (1..=BATCH as u16).map(numbered).collect();
        datapath.tables().conns.insert_many(&all.concat()).unwrap();
        // Named by either entry, and every third not at all as it is now.
        let requests: Vec<Request> = all
            .iter()
            .enumerate()
            .map(|(at, [forward, reverse])| {
                let (own, other) = if at % 2 == 0 { (forward, reverse) } else { (reverse, forward) };
                let stale = u32::from(at % 3 == 0);
                Request { key: own.0, forward_seen: own.1.last_seen + stale, reverse_seen: other.1.last_seen }
            })
            .collect();
        for (at, outcome) in datapath.retire(&requests).unwrap().iter().enumerate() {
            let port = 1 + at as u32;
            let removed = Outcome {
                removed: 1,
                forward_ack: 10_000 + port,
                forward_seq: port,
                reverse_ack: 30_000 + port,
                reverse_seq: 20_000 + port,
                reserved: 0,
            };
            assert_eq!(*outcome, if at % 3 == 0 { Outcome::default() } else { removed }, "conn {at}");
        }
        assert!(datapath.retire(&[requests[0]; BATCH + 1]).is_err(), "one too many");
    });
}

#[test]
fn a_conn_that_wakes_up_during_a_sweep_is_neither_removed_nor_counted_so() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let [forward, reverse] = aged(&datapath, 40_000, 11, RESET);
        datapath.tables().conns.insert_many(&[forward, reverse]).unwrap();
        let mut sweep = Sweep::new(&datapath, &Timeouts::default()).unwrap();
        // In small tables: half-open conns read, joined; conns read…
        for _ in 0..3 {
            assert_eq!(sweep.step(&datapath).unwrap(), None);
        }
        let awake = Conn { last_seen: datapath.clock().unwrap().jiffies as u32, ..forward.1 };
        datapath.tables().conns.insert(&forward.0, &awake).unwrap();
        // …joined and retired.
        let summary = sweep.step(&datapath).unwrap().expect("the last step");
        assert_eq!((summary.conns, summary.removed()), (1, 0));
        assert_eq!(datapath.tables().conns.get(&forward.0).unwrap(), Some(awake));
    });
}

#[test]
fn the_id_of_a_removed_backend_is_free_when_its_last_conn_is_gone() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        datapath.apply(&[service()]).unwrap();
        let [forward, reverse] = aged(&datapath, 40_000, 1, OPEN);
        datapath.tables().conns.insert_many(&[forward, reverse]).unwrap();
        let admitted =
            || -> u32 { datapath.tables().control.get(0).unwrap().filter.iter().map(|word| word.count_ones()).sum() };
        let with_service = admitted();
        assert_eq!(with_service, 2, "the VIP and the backend");

        datapath.apply(&[]).unwrap();
        assert!(datapath.reclaim(&sweep(&datapath).entries()).unwrap().is_empty());
        assert_eq!(admitted(), with_service, "packets of the leftover conn still pass the filter");
        datapath.tables().conns.remove_many(&[forward.0, reverse.0]).unwrap();
        assert_eq!(datapath.reclaim(&sweep(&datapath).entries()).unwrap(), [0]);
        assert_eq!(admitted(), 0);
    });
}

/// The object's TC program on the maps of the running packet path.
fn tc_program(sandbox: &Sandbox) -> aya::Ebpf {
    let mut loader = aya::EbpfLoader::new();
    for name in abi::map::ALL {
        loader.map_pin_path(name, sandbox.pins().join(name));
    }
    let mut ebpf = loader.load(&object()).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("lb_tc").unwrap().try_into().unwrap();
    program.load().unwrap();
    ebpf
}

/// A SYN from the client to the service, in an Ethernet frame.
fn syn(port: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(CLIENT.octets);
    frame.extend(VIP.octets);
    frame.extend(port.to_be_bytes());
    frame.extend(3306_u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flag::SYN, 1, 0, 0, 0, 0, 0]);
    frame
}

#[test]
fn refused_syns_are_events_and_the_reader_gets_every_one() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let empty = DesiredService { backends: Vec::new(), ..service() };
        datapath.apply(&[empty]).unwrap();
        let mut events = datapath.take_events().unwrap();
        assert!(datapath.take_events().is_none(), "there is one reader");
        let ebpf = tc_program(sandbox);
        let program: &SchedClassifier = ebpf.program("lb_tc").unwrap().try_into().unwrap();
        for port in 1_000..1_100 {
            let frame = syn(port);
            program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() }).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut found = Vec::new();
        let next = |events: &mut Events, limit, found: &mut Vec<_>| {
            let waited = async { tokio::time::timeout(Duration::from_millis(50), events.next(found, limit)).await };
            runtime.block_on(waited).is_ok()
        };
        assert!(next(&mut events, 30, &mut found));
        assert_eq!(found.len(), 30, "the limit holds");
        assert!(next(&mut events, 1_000, &mut found));
        assert!(!next(&mut events, 1, &mut found), "an empty ring waits");
        assert_eq!((found.len(), events.invalid()), (100, 0));
        for (event, port) in found.iter().zip(1_000..) {
            assert_eq!((event.kind, event.key), (EventKind::Refused, FlowKey::tcp(CLIENT, port, VIP, 3306)));
            assert_eq!(event.reason, Counter::NoBackend as u8);
        }
        assert_eq!(datapath.tables().counter(Counter::NoBackend).unwrap(), 100);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that measures the real time")]
fn a_reader_that_has_read_everything_is_woken_by_the_next_event() {
    const LIMIT: Duration = Duration::from_secs(20);
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        datapath.apply(&[DesiredService { backends: Vec::new(), ..service() }]).unwrap();
        let mut events = datapath.take_events().unwrap();
        let ebpf = tc_program(sandbox);
        let program: &SchedClassifier = ebpf.program("lb_tc").unwrap().try_into().unwrap();
        let ring = events.as_fd().try_clone_to_owned().unwrap();
        for port in 1_000..1_003 {
            let waited = thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let began = Instant::now();
                    // At its end it looks once more, and would find the event without having been woken.
                    poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)).unwrap();
                    began.elapsed()
                });
                // Asleep by then, mostly; awake, it would find the event at once.
                thread::sleep(Duration::from_millis(100));
                let frame = syn(port);
                program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() }).unwrap();
                waiting.join().unwrap()
            });
            assert!(waited < LIMIT / 2, "{waited:?}");
            assert_eq!(events.drain(&mut Vec::new(), 10), 1);
        }
    });
}

/// Another host at the far end of the veth pair: a network namespace that lives as long as its process.
struct Host(Child);

impl Host {
    fn behind_vb(address: &str) -> Self {
        let sleep = Command::new("unshare").args(["-n", "sleep", "60"]).stdout(Stdio::null()).spawn().unwrap();
        let host = Self(sleep);
        // `unshare` makes the namespace before it becomes `sleep`.
        while std::fs::read_to_string(format!("/proc/{}/comm", host.0.id())).unwrap().trim() != "sleep" {
            thread::sleep(Duration::from_millis(1));
        }
        run(&format!("ip link set vb netns {}", host.0.id()));
        host.exec(&format!("ip address add {address} dev vb"));
        host.exec("ip link set vb up");
        host
    }

    fn exec(&self, command: &str) {
        run(&format!("nsenter -n -t {} {command}", self.0.id()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition holds; answers how long it took.
fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a test that measures the real time")]
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(8), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[test]
fn changes_of_routes_and_neighbours_reach_the_packet_path_at_once() {
    sandbox(|sandbox| {
        let host = Host::behind_vb("192.168.80.167/24");
        run("ip address add 192.168.80.101/24 dev va");
        run("ip link set va up");
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        datapath.apply(&[service()]).unwrap();
        assert_eq!(BACKEND.to_string(), "192.168.80.167");
        let generation = || datapath.tables().control.get(0).unwrap().hop_gen;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::scope(|scope| {
            // A thread of this scope has this test's namespaces.
            let watcher = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        ended = hops::watch(&datapath) => panic!("the watch ended: {ended:?}"),
                        _ = stopped => {}
                    }
                });
            });
            // It asks for the backend, which nobody has talked to.
            until("the backend's neighbour is known", || {
                run("ip neigh show dev va to 192.168.80.167").contains("lladdr")
            });
            until("the start has settled", || {
                let before = generation();
                thread::sleep(Duration::from_millis(100));
                before == generation()
            });
            let mut fastest = Duration::MAX;
            for change in [
                "ip route add 10.9.0.0/16 via 192.168.80.167",
                "ip route del 10.9.0.0/16",
                "ip address add 192.168.81.1/24 dev va",
                "ip neigh replace 192.168.80.167 lladdr 02:00:00:00:00:99 dev va nud reachable",
            ] {
                let before = generation();
                run(change);
                fastest = fastest.min(until(change, || generation() > before));
                thread::sleep(Duration::from_millis(60));
            }
            // Of one change the machine may be busy with something else.
            assert!(fastest < Duration::from_millis(100), "{fastest:?}");
            let before = generation();
            run("ip neigh replace 192.168.80.167 lladdr 02:00:00:00:00:99 dev va nud stale");
            thread::sleep(Duration::from_millis(60));
            assert_eq!(generation(), before, "a state of a neighbour is no news");

            let batch = tempfile::NamedTempFile::new().unwrap();
            let route = |n: u32| format!("route add 10.{}.{}.0/24 via 192.168.80.167\n", n / 256, n % 256);
            std::fs::write(batch.path(), (0..4_000).map(route).collect::<String>()).unwrap();
            let took = until("a burst of routes", || {
                run(&format!("ip -batch {}", batch.path().display()));
                true
            });
            thread::sleep(Duration::from_millis(60));
            let bumps = u128::from(generation() - before);
            let most = 3 + took.as_millis() / 20;
            assert!((1..=most).contains(&bumps), "{bumps} generations for 4,000 routes in {took:?}");
            stop.send(()).unwrap();
            watcher.join().unwrap();
        });
        drop(host);
    });
}

#[test]
fn the_arp_gate_gets_its_vips_and_heartbeats() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        datapath.guard(&[VIP], ArpGate::Open, Duration::from_secs(2)).unwrap();
        let first = datapath.tables().control.get(0).unwrap();
        assert_eq!((first.vips[0], first.arp_gate), (VIP, ArpGate::Open));
        assert_eq!(first.heartbeat_jiffies, 2 * datapath.ticks().hz);
        thread::sleep(Duration::from_millis(50));
        datapath.heartbeat().unwrap();
        let second = datapath.tables().control.get(0).unwrap();
        assert!(second.heartbeat.wrapping_sub(first.heartbeat) >= datapath.ticks().hz / 25);
        assert_eq!((second.filter, second.vips), (first.filter, first.vips));
        assert!(datapath.guard(&[VIP; 9], ArpGate::Open, Duration::from_secs(2)).is_err());
    });
}

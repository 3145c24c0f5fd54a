//! The sweep and what follows from it at scale: entries that a flood has orphaned, the conns of a dead backend, and
//! thousands of ends that are to be told.

use std::time::Duration;

use lb_common::{
    addr::Ipv4,
    backend::BackendState,
    conn::{Conn, FlowKey},
    service::OnDown,
    tcp::{State, flag},
};
use lb_tests::bench::cpu_time;
use lb_tests::sandbox::{BACKEND, VIP, conn, object, run, sandbox, service};
use lb_userspace::{
    datapath::{Datapath, DesiredService, Ends, Mode, Numbers, Scan, Summary, Sweep, TableSizes, Timeouts},
    reset::{End, Resetter},
};

/// Both entries of the conn of the `number`th client port there is, last seen that many seconds ago.
fn numbered(datapath: &Datapath, number: u32, seconds: u32, seen: [u8; 2]) -> [(FlowKey, Conn); 2] {
    let [forward, reverse] = conn((number % 50_000) as u16);
    let client = Ipv4::new([10, 80, 1 + (number / 50_000) as u8, 1]);
    let last_seen = (datapath.clock().unwrap().jiffies as u32).wrapping_sub(seconds * datapath.ticks().hz);
    [
        (FlowKey { src: client, ..forward.0 }, Conn { src: client, seen: seen[0], last_seen, ..forward.1 }),
        (FlowKey { dst: client, ..reverse.0 }, Conn { dst: client, seen: seen[1], last_seen, ..reverse.1 }),
    ]
}

fn sweep(datapath: &Datapath) -> (Summary, Vec<Ends>) {
    let mut sweep = Sweep::new(datapath, &Timeouts::default()).unwrap();
    let mut ended = Vec::new();
    loop {
        let summary = sweep.step(datapath).unwrap();
        ended.append(&mut sweep.take_ended());
        if let Some(summary) = summary {
            return (summary, ended);
        }
    }
}

const OPEN: [u8; 2] = [flag::SYN | flag::ACK, flag::SYN | flag::ACK];
const SYN_SENT: [u8; 2] = [flag::SYN, 0];

/// A flood evicts entries one by one: what is left of a conn is an entry that nobody can use, in either direction.
#[test]
fn a_flood_of_orphans_is_swept_in_time_that_grows_as_their_number() {
    sandbox(|sandbox| {
        let mut settings = sandbox.settings(&[("va", Mode::Tc)]);
        settings.tables = TableSizes { half_open: 131_072, ..settings.tables };
        let datapath = Datapath::open(&object(), &settings).unwrap();
        let table = &datapath.tables().half_open;
        let mut took = Vec::new();
        for count in [16_384_u32, 65_536] {
            // One half each: now the client's, now the backend's.
            let orphan = |number: u32| numbered(&datapath, number, 61, SYN_SENT)[number as usize % 2];
            let entries: Vec<_> = (0..count).map(orphan).collect();
            table.insert_many(&entries).unwrap();
            let began = cpu_time().unwrap();
            let (summary, _) = sweep(&datapath);
            took.push(cpu_time().unwrap() - began);
            assert_eq!((summary.alone, summary.half_open), (u64::from(count), 0));
            let mut left = 0;
            table.for_each_slice(|slice| left += slice.len()).unwrap();
            assert_eq!(left, 0, "of {count} orphans");
        }
        println!("16,384 orphans take {:.0?} of CPU, 65,536 take {:.0?}", took[0], took[1]);
        // Four times as many: a search of each among all others would take 16 times as long.
        assert!(took[1] < 9 * took[0], "{took:?}");
    });
}

#[test]
fn the_conns_of_a_dead_backend_are_looked_up_at_once_and_gone_soon() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let with = |down: bool, on_down: OnDown| {
            let mut service = DesiredService { on_down, ..service() };
            service.backends[0].down = down;
            service
        };
        let generation = || datapath.tables().control.get(0).unwrap().hop_gen;
        let state = || datapath.tables().backends.get(0).unwrap().state;
        datapath.apply(&[with(false, OnDown::Rst)]).unwrap();
        let alive = generation();
        datapath.apply(&[with(false, OnDown::Rst)]).unwrap();
        assert_eq!((state(), generation()), (BackendState::Up, alive), "nothing has changed");

        let silent = numbered(&datapath, 1, 11, OPEN);
        let heard = numbered(&datapath, 2, 9, OPEN);
        datapath.tables().conns.insert_many(&[silent, heard].concat()).unwrap();
        // Conns that shall stay: nothing is done to them.
        datapath.apply(&[with(true, OnDown::Keep)]).unwrap();
        assert_eq!((state(), sweep(&datapath).0.removed()), (BackendState::Down, 0));

        let before = generation();
        datapath.apply(&[with(true, OnDown::Rst)]).unwrap();
        // Every conn's next packet looks its hop up, and finds the backend dead.
        assert_ne!(generation(), before);
        let (summary, ended) = sweep(&datapath);
        assert_eq!((summary.expired[State::Established as usize], summary.removed()), (1, 1));
        let [(forward, client), (reverse, backend)] = silent;
        let ends = Ends {
            forward,
            reverse,
            state: State::Established,
            client: Numbers { seq: client.seq, ack: client.ack },
            backend: Numbers { seq: backend.seq, ack: backend.ack },
        };
        assert_eq!(ended, [ends], "what both ends are told");
    });
}

#[test]
fn the_conns_of_one_backend_are_found_among_those_of_others() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let mut entries = Vec::new();
        for number in 0..9_000 {
            let backend = (number % 3) as u16;
            entries.extend(numbered(&datapath, number, 1, OPEN).map(|(key, conn)| (key, Conn { backend, ..conn })));
        }
        // Half a conn has no two ends.
        entries.push(numbered(&datapath, 20_000, 1, OPEN)[0]);
        datapath.tables().conns.insert_many(&entries).unwrap();
        let (mut scan, mut found) = (Scan::new(), Vec::new());
        while let Some(slice) = datapath.tables().next_conns_of(2, &mut scan).unwrap() {
            found.extend(slice);
        }
        assert_eq!(found.len(), 3_000);
        for conn in &found {
            assert_eq!((conn.forward.dst, conn.reverse.src, conn.state), (VIP, BACKEND, State::Established));
            assert_eq!((conn.forward.src, conn.forward.sport), (conn.reverse.dst, conn.reverse.dport));
        }
    });
}

/// What 10,000 conns of a dead backend cost, and that no segment is lost on the way out.
#[test]
fn ten_thousand_conns_are_reset_with_little_cpu_and_nothing_is_lost() {
    const CONNS: u32 = 10_000;
    const GOAL: Duration = Duration::from_millis(100);
    sandbox(|_| {
        for command in ["address add 10.80.1.241/16 dev va", "link set va up", "link set vb up"] {
            run(&format!("ip {command}"));
        }
        run("ip route add default via 10.80.0.1 dev va");
        run("ip neigh add 10.80.0.1 lladdr 02:00:00:00:00:01 dev va nud permanent");
        let received = || -> u32 {
            std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().find_map(arrived_at_vb).unwrap()
        };
        let end = |number: u32| {
            let client = Ipv4::new([172, 16, (number >> 8) as u8, number as u8]);
            let flow = FlowKey::tcp(VIP, 3306, client, 40_000);
            [
                End { flow, acked: number + 1, sent: number + 1 },
                End { flow: FlowKey::tcp(client, 40_000, BACKEND, 3306), acked: number + 7, sent: number + 7 },
            ]
        };
        let ends: Vec<End> = (0..CONNS).flat_map(end).collect();
        let resetter = Resetter::open().unwrap();
        let (before, began) = (received(), cpu_time().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a test that measures the real time")]
        let started = std::time::Instant::now();
        let sent = resetter.reset(&ends);
        let (elapsed, cpu) = (started.elapsed(), cpu_time().unwrap() - began);
        println!("{} segments in {elapsed:.1?}, {cpu:.1?} of CPU (goal {GOAL:?})", sent.segments);
        assert_eq!((sent.segments, sent.unknown, sent.refused), (2 * CONNS as usize, 0, 0), "{:?}", sent.error);
        assert!(received() - before >= 2 * CONNS, "{} frames arrived", received() - before);
        assert!(cpu < 5 * GOAL, "{cpu:?}");

        // Whom nothing is known of is told nothing; whom no way leads to does not hold up the others.
        run("ip route add unreachable 172.16.1.0/24");
        let unknown = End { flow: ends[0].flow, acked: 0, sent: 0 };
        let sent = resetter.reset(&[&[unknown][..], &ends[510..516]].concat());
        assert_eq!((sent.segments, sent.unknown, sent.refused), (4, 1, 2));
        assert!(sent.error.is_some());
    });
}

/// Frames that `vb` has received, from its line in /proc/thread-self/net/dev.
fn arrived_at_vb(line: &str) -> Option<u32> {
    line.trim_start().strip_prefix("vb:")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

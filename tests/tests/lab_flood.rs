//! A SYN flood, and a full table: established sessions must not notice either.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lb_common::{abi::map, counter::Counter};
use lb_tests::lab::{EchoServer, EchoSession, Flood, Lab, LabOptions, Offload, addr, flood, now, talk_all, wait_for};
use lb_userspace::datapath::{self, Tables};

const SYNS: u64 = 1_000_000;
/// SYNs a second: the flood is over in 25 s, and both CPUs of a small machine are busy with it.
const RATE: u32 = 40_000;
const SESSIONS: u64 = 1000;
/// How long a session waits for an answer. TCP sends again after 1 s, 3 s, 7 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lab in front of one echo server.
fn lab(mode: &str, offload: Offload, extra: &str) -> (Lab, EchoServer) {
    let lab = LabOptions { servers: 1, offload, mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let mut options = lab.agent_options().mode(mode);
    extra.clone_into(&mut options.extra);
    lab.d1().start_agent(&options).unwrap();
    let server = &lab.servers()[0];
    let echo = EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)).unwrap();
    (lab, echo)
}

fn tables(lab: &Lab) -> Tables {
    Tables::open(&datapath::versioned(&lab.d1().pin_directory())).unwrap()
}

fn open(lab: &Lab, numbers: std::ops::Range<u64>) -> Vec<EchoSession> {
    let open = || numbers.map(|number| EchoSession::open(addr::SERVICE, number, PATIENCE)).collect();
    lab.client().host().enter(open).unwrap()
}

/// New sessions during the flood.
#[derive(Debug, Default)]
struct Newcomers {
    tried: u32,
    /// Connected and answered.
    in_time: u32,
    /// Of those, without a SYN that had to be sent again.
    at_once: u32,
    errors: Vec<String>,
}

/// Opens a session every 20 ms until the flood is over.
fn newcomers(lab: &Lab, over: &AtomicBool) -> Newcomers {
    let mut seen = Newcomers::default();
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let started = now();
            seen.tried += 1;
            match EchoSession::open(addr::SERVICE, u64::from(seen.tried), PATIENCE) {
                Ok(_) => {
                    seen.in_time += 1;
                    seen.at_once += u32::from(started.elapsed() < Duration::from_millis(900));
                }
                Err(error) => seen.errors.push(format!("{error:#}")),
            }
            thread::sleep(Duration::from_millis(20).saturating_sub(started.elapsed()));
        }
        Ok(seen)
    };
    lab.client().host().enter(work).unwrap()
}

/// Sends until [`SYNS`] of them have opened a conn: the virtual wires in front of the director lose some.
fn flood_until_arrived(lab: &Lab, tables: &Tables) -> anyhow::Result<Flood> {
    let router = addr::link(Ipv4Addr::new(10, 80, 1, 241));
    let before = tables.counter(Counter::Opened)?;
    let mut all = Flood { sent: 0, elapsed: Duration::ZERO };
    for seed in 0..10 {
        let missing = SYNS.saturating_sub(tables.counter(Counter::Opened)? - before);
        if missing == 0 {
            break;
        }
        let part = flood(lab.client().host(), router, addr::SERVICE, missing, RATE, seed)?;
        all = Flood { sent: all.sent + part.sent, elapsed: all.elapsed + part.elapsed };
    }
    Ok(all)
}

fn survives_a_flood(mode: &str, offload: Offload) {
    let (lab, _echo) = lab(mode, offload, "");
    let (d1, tables) = (lab.d1(), tables(&lab));
    // The answers to strangers leave through the client's side, like those to the rest of the world.
    d1.host().ip_batch(&format!("route add default via {}\n", lab.client().address())).unwrap();
    let mut sessions = open(&lab, 0..SESSIONS);
    let ports: Vec<u16> = sessions.iter().map(|session| session.port().unwrap()).collect();
    assert_eq!(talk_all(&mut sessions).0, SESSIONS as usize);

    let memory = |lab: &Lab| [map::CONNS, map::HALF_OPEN].map(|name| lab.d1().map_memory(name).unwrap());
    let (maps, rss, cpu) = (memory(&lab), d1.agent_memory().unwrap().0, d1.agent_cpu().unwrap());
    let before = tables.counters().unwrap();
    let over = AtomicBool::new(false);
    let (sent, newcomers, rounds) = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let sent = flood_until_arrived(&lab, &tables);
            over.store(true, Ordering::Relaxed);
            sent
        });
        let newcomers = scope.spawn(|| newcomers(&lab, &over));
        let mut rounds = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let started = now();
            let (right, error) = talk_all(&mut sessions);
            rounds.push((right, started.elapsed(), error.map(|error| format!("{error:#}"))));
            thread::sleep(Duration::from_millis(200));
        }
        (flooding.join().unwrap().unwrap(), newcomers.join().unwrap(), rounds)
    });

    let counted = |counter: Counter| {
        let found = before.iter().find(|(known, _)| *known == counter).map_or(0, |(_, count)| *count);
        tables.counter(counter).unwrap() - found
    };
    let (rss_after, peak) = d1.agent_memory().unwrap();
    println!(
        "{mode}: {} SYNs in {:.1?}, {} reached the director; {} rounds over {SESSIONS} sessions, slowest {:.0?}",
        sent.sent,
        sent.elapsed,
        counted(Counter::Opened),
        rounds.len(),
        rounds.iter().map(|round| round.1).max().unwrap_or_default(),
    );
    println!(
        "{mode}: newcomers {} of {} in, {} of them with their first SYN; conns and half_open {maps:?} bytes; agent's RSS \
         {rss} KiB before, {rss_after} after, {peak} at most; its CPU {:.1?}",
        newcomers.in_time,
        newcomers.tried,
        newcomers.at_once,
        d1.agent_cpu().unwrap() - cpu
    );
    // The flood was one, and it hit the director.
    assert!(sent.elapsed < Duration::from_secs(60), "{sent:?}");
    assert!(counted(Counter::Opened) >= SYNS, "{}", counted(Counter::Opened));
    assert!(newcomers.tried >= 200 && rounds.len() >= 20, "{newcomers:?}, {} rounds", rounds.len());
    // Established sessions: every answer in every round, over the same connections.
    for (round, (right, _, error)) in rounds.iter().enumerate() {
        assert_eq!((*right, error), (SESSIONS as usize, &None), "round {round}");
    }
    assert_eq!(talk_all(&mut sessions).0, SESSIONS as usize);
    assert_eq!(ports, sessions.iter().map(|session| session.port().unwrap()).collect::<Vec<_>>());
    assert!(newcomers.in_time * 100 >= newcomers.tried * 99, "{newcomers:?}");
    // Memory.
    assert_eq!(memory(&lab), maps, "a table grew");
    assert!(peak < rss + 65_536, "the agent grew from {rss} to {peak} KiB");
    assert_eq!((counted(Counter::TableFull), counted(Counter::EventLost)), (0, 0));
    // The agent is not lost in it.
    let status = d1.lbctl(&["--timeout", "5s", "status"]).unwrap();
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn a_million_syns_leave_a_thousand_sessions_untouched_tc() {
    survives_a_flood("tc", Offload::On);
}

#[test]
fn a_million_syns_leave_a_thousand_sessions_untouched_xdp() {
    survives_a_flood("xdp", Offload::Off);
}

#[test]
fn a_full_table_refuses_new_conns_and_keeps_the_old_ones() {
    const CONNS: u64 = 200;
    for (mode, offload) in [("tc", Offload::On), ("xdp", Offload::Off)] {
        let (lab, _echo) = lab(
            mode,
            offload,
            "[table]\nconns = 200\n[timeouts]\ntime_wait = \"1s\"\nclose_wait = \"1s\"\nclose = \"1s\"",
        );
        let tables = tables(&lab);
        let mut sessions = open(&lab, 0..CONNS);
        assert_eq!(tables.counter(Counter::TableFull).unwrap(), 0);
        for number in 0..10 {
            let open = || Ok(EchoSession::open(addr::SERVICE, number, Duration::from_millis(500)).map(drop));
            let refused = lab.client().host().enter(open).unwrap();
            assert!(refused.is_err(), "{mode}: conn {number} beyond the {CONNS} was let in");
        }
        let full = tables.counter(Counter::TableFull).unwrap();
        assert!(full >= 10, "{mode}: {full}");
        let (right, error) = talk_all(&mut sessions);
        assert_eq!(right, CONNS as usize, "{mode}: {error:?}");
        let drops = lab.d1().lbctl(&["drops"]).unwrap();
        let drops = String::from_utf8_lossy(&drops.stdout).into_owned();
        assert!(drops.contains("table_full"), "{drops}");

        // Room again: as soon as some are over, others get in.
        sessions.truncate(150);
        let mut newcomer = wait_for("room in the table", Duration::from_secs(20), || {
            lab.client().host().enter(|| Ok(EchoSession::open(addr::SERVICE, 1000, Duration::from_secs(1)).ok()))
        })
        .unwrap();
        newcomer.talk().unwrap();
        assert_eq!(talk_all(&mut sessions).0, 150);
        println!("{mode}: {full} packets of 10 conns refused, {CONNS} conns live");
    }
}

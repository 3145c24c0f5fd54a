//! The packet path outlives the agent: killed, started again and upgraded under load, it stays attached by the same
//! links, no query fails, and no conn is lost.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::Duration;

use lb_common::tcp::State;
use lb_tests::checks::{Setting, by_servers, exact_shares, spread};
use lb_tests::lab::{Lab, LinkFacts, Offload, SysbenchOptions, now, prepare_sysbench, wait_for};
use lb_userspace::control::protocol::ConnView;

const THREADS: u32 = 8;
const TABLE: u32 = 20_000;

/// Established conns: client and backend, with the age in seconds.
fn table(lab: &Lab) -> BTreeMap<(SocketAddrV4, SocketAddrV4), u64> {
    let conns: Vec<ConnView> = lab.d1().ctl(&["conns", "--state", State::Established.name()]).unwrap();
    conns.iter().map(|conn| ((conn.client, conn.destination), conn.age_seconds)).collect()
}

/// The ids of links and of programs, by the name of the pin.
fn split(links: &BTreeMap<String, LinkFacts>) -> (Vec<(&str, u64)>, Vec<u64>) {
    let ids = links.iter().map(|(name, facts)| (name.as_str(), facts.link)).collect();
    (ids, links.values().map(|facts| facts.program).collect())
}

fn survives_restarts(mode: &str, offload: Offload, seconds: u32, expected_links: usize) {
    let setting = Setting::of(mode, offload);
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let shares = setting.shares(&lab);
    prepare_sysbench(lab.servers(), TABLE).unwrap();
    // Spread over all rows, so that two transactions hardly ever want the same ones: a deadlock is an error too.
    let extra = vec!["--rand-type=uniform".to_owned()];
    let options = SysbenchOptions { threads: THREADS, seconds, table_size: TABLE, extra, ..Default::default() };
    let mut running = lab.client().start_sysbench(&options).unwrap();
    let (started, length) = (now(), Duration::from_secs(u64::from(seconds)));
    wait_for("sysbench's sessions", Duration::from_secs(10), || {
        Ok((by_servers(&lab)?.len() == THREADS as usize).then_some(()))
    })
    .unwrap();
    let conns = table(&lab);
    assert_eq!(conns.len(), THREADS as usize);
    let links = d1.links().unwrap();
    assert_eq!(links.len(), expected_links, "{links:?}");

    let mut programs = split(&links).1;
    for (number, step) in (1..).zip(["kill -9", "kill -9", "kill -9", "SIGTERM"]) {
        sleep((length * number / 6).saturating_sub(started.elapsed()));
        let stopped = now();
        match step {
            "SIGTERM" => assert!(d1.stop_agent().unwrap().success(), "a clean stop"),
            _ => drop(d1.kill_agent().unwrap()),
        }
        // Without an agent: everything is still there, and new connections are balanced.
        assert_eq!(d1.links().unwrap().values().map(|facts| facts.program).collect::<Vec<_>>(), programs, "{step}");
        assert!(d1.map_dump("conns").unwrap().len() >= 2 * THREADS as usize, "{step}: two entries for a conn");
        let work = lab.client().many_connections(20, 2, 2).unwrap();
        exact_shares(&work, lab.client().address(), &shares).unwrap();
        assert!(running.is_running().unwrap(), "{step}: sysbench ended early");

        d1.restart_agent().unwrap();
        let elapsed = started.elapsed().as_secs();
        println!("{mode}: {step} at {:?}, without an agent for {:?}", stopped - started, stopped.elapsed());
        let now_linked = d1.links().unwrap();
        assert_eq!(split(&now_linked).0, split(&links).0, "{step}: the links are the same");
        let now_running = split(&now_linked).1;
        assert!(now_running.iter().all(|program| !programs.contains(program)), "{step}: new programs {now_running:?}");
        programs = now_running;
        let now_open = table(&lab);
        assert!(now_open.keys().eq(conns.keys()), "{step}: {conns:?} became {now_open:?}");
        assert!(now_open.values().all(|age| age + 2 >= elapsed), "{step}: a conn was made anew: {now_open:?}");
    }

    let report = running.wait().unwrap();
    println!("{mode}: {report:?}");
    assert!(report.completed && report.fatal.is_empty(), "{report:?}");
    assert_eq!((report.errors, report.reconnects), (0, 0), "{report:?}");
    assert!(report.queries > 1000, "{report:?}");
    spread(&lab, &shares, 200, 2).unwrap();
}

#[test]
fn no_query_fails_while_the_agent_is_killed_three_times_and_upgraded_tc() {
    survives_restarts("tc", Offload::On, 30, 2);
}

/// Behind each XDP link stands one of TC.
#[test]
fn no_query_fails_while_the_agent_is_killed_three_times_and_upgraded_xdp() {
    survives_restarts("xdp", Offload::Off, 24, 4);
}

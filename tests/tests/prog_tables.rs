//! What happens when something runs out: the conn table, the half-open table, source ports, the event ring.

use std::collections::BTreeSet;

use lb_common::{
    counter::Counter::{
        BadHandshake, Established, EventLost, HopLookup, NoConn, Opened, PortCollision, PortRemapped, TableFull,
    },
    event::EventKind,
    service::Scheduler,
};
use lb_tests::prog::{Bench, Flow, Hook, Port, Site, Sizes, Verdict, case, network::*, put, run};

/// The conn of the n-th client port.
fn nth(n: u16) -> Flow {
    Flow::mysql(&format!("10.80.1.1:{}", 40_000 + n), SERVER1)
}

#[test]
fn a_full_table_refuses_new_conns_and_keeps_the_old() {
    let [first, second] = [nth(1).established(), nth(2).established()];
    let new = nth(3).answered();
    let query = first.client_ack().payload(10);
    let answer = second.backend_ack().payload(20);
    // Two entries for each conn.
    let sizes = |conns: u32| Sizes { conns, ..Sizes::default() };
    let refused = |name: &str, size: u32, before: &[&Flow]| {
        let given: Vec<&Flow> = before.iter().copied().chain([&new]).collect();
        case(name)
            .with_sizes(sizes(size))
            .given(&given)
            .from_client(&new.client_ack())
            .dropped(TableFull)
            .tells_refusal(EventKind::Refused, &new, TableFull)
            .leaves_roughly(&given)
    };
    run(&[
        refused("a handshake does not complete when the table is full", 4, &[&first, &second])
            .translates(&first, &query)
            .leaves_roughly(&[&first.after(&query), &second, &new])
            .translates(&second, &answer)
            .leaves_roughly(&[&first.after(&query), &second.after(&answer), &new]),
        refused("a handshake does not complete by halves when one place is free", 3, &[&first]),
        case("the last two places are for a conn")
            .with_sizes(sizes(4))
            .given(&[&first, &new])
            .translates(&new, &new.client_ack())
            .counts(&[Established])
            .tells(EventKind::Established, &new.after(&new.client_ack()))
            .leaves(&[&first, &new.after(&new.client_ack())]),
    ]);
}

/// Runs `test` with a fresh bench on each hook.
fn on_both(sizes: Sizes, site: &Site, test: impl Fn(&mut Bench)) {
    for hook in Hook::ALL {
        let mut bench = Bench::with_sizes(hook, sizes).unwrap();
        site.apply(&mut bench.tables).unwrap();
        test(&mut bench);
    }
}

#[test]
fn a_flood_of_syns_harms_no_established_conn_and_blocks_no_new_one() {
    let sizes = Sizes { half_open: 256, ..Sizes::default() };
    on_both(sizes, &Site::mysql(), |bench| {
        let hook = bench.hook();
        let old = nth(0).established();
        let now = bench.jiffies().unwrap();
        put(bench, &old, now).unwrap();
        let before = bench.tables.conns().unwrap();
        for n in 0..5000_u32 {
            let client = (std::net::Ipv4Addr::from(0x0a50_0200 + n / 8), 1024 + (n % 8) as u16);
            let syn = old.client_syn().from(client).build();
            // Its way back is unknown, which nobody asks before the backend answers.
            assert_eq!(bench.run(Port::Ext, &syn).unwrap().verdict, Verdict::Redirect, "{hook}, SYN {n}");
        }
        assert_eq!(bench.tables.conns().unwrap(), before, "{hook}: the flood reached the established conns");
        assert!(bench.tables.half_open().unwrap().len() <= 256, "{hook}");
        assert_eq!(bench.tables.counters().unwrap()[&Opened], 5000, "{hook}");

        let query = old.client_ack().payload(9);
        let outcome = bench.run(Port::Ext, &query.build()).unwrap();
        assert_eq!(outcome.packet, old.translated(&query).build(), "{hook}: an old conn");

        let syn = nth(7).client_syn();
        assert_eq!(bench.run(Port::Ext, &syn.build()).unwrap().verdict, Verdict::Redirect);
        let key = nth(7).keys()[0];
        let backend = bench.tables.half_open().unwrap()[&key].dst;
        let new = Flow::mysql("10.80.1.1:40007", &backend.to_string());
        for (port, packet) in [(Port::Int, new.backend_syn_ack()), (Port::Ext, new.answered().client_ack())] {
            let outcome = bench.run(port, &packet.build()).unwrap();
            assert_eq!(outcome.packet, new.translated(&packet).build(), "{hook}: a new conn after the flood");
        }
        assert_eq!(bench.tables.conns().unwrap().len(), before.len() + 2, "{hook}");
    });
}

#[test]
fn services_that_share_a_backend_get_ports_of_their_own() {
    let backend = format!("{SERVER1}:3306");
    let ports = 3306..3312_u16;
    let site = ports
        .clone()
        .fold(Site::new(), |site, port| site.service(&format!("{VIP}:{port}"), Scheduler::Rr, &[&backend]));
    on_both(Sizes::default(), &site, |bench| {
        let hook = bench.hook();
        let mut seen = BTreeSet::new();
        let mut conns = Vec::new();
        let mut refused = 0;
        for port in ports.clone() {
            let service = format!("{VIP}:{port}");
            let flow = Flow::opened(&site, "10.80.1.1:40000", &service, &backend);
            let outcome = bench.run(Port::Ext, &flow.client_syn().build()).unwrap();
            let Some(entry) = bench.tables.half_open().unwrap().get(&flow.keys()[0]).copied() else {
                assert_eq!(outcome.verdict, Verdict::Drop, "{hook}");
                let events = bench.tables.events().unwrap();
                let about = (events[0].kind, events[0].reason, events[0].service, events[0].key);
                assert_eq!(about, (EventKind::Refused, PortCollision as u8, flow.service_id, flow.keys()[0]), "{hook}");
                refused += 1;
                continue;
            };
            let flow = flow.remapped_to(entry.sport);
            assert_eq!(outcome.packet, flow.translated(&flow.client_syn()).build(), "{hook}: the SYN for {service}");
            assert!(entry.sport >= 1024 && seen.insert(entry.sport), "{hook}: port {} again", entry.sport);
            conns.push(flow);
        }
        assert_eq!(conns[0].client_port, 40_000, "{hook}: the first conn keeps its port");
        assert!(conns.len() >= 3, "{hook}: only {} conns of one client port", conns.len());
        // Each conn comes and goes by its own port, in both tables.
        for flow in &conns {
            for (port, packet) in [
                (Port::Int, flow.backend_syn_ack()),
                (Port::Ext, flow.answered().client_ack()),
                (Port::Ext, flow.established().client_ack().payload(50)),
                (Port::Int, flow.established().backend_ack().payload(70)),
            ] {
                let outcome = bench.run(port, &packet.build()).unwrap();
                let out = flow.translated(&packet).build();
                assert_eq!(lb_tests::packet::difference(&out, &outcome.packet), None, "{hook}: {}", flow.service);
            }
        }
        let counters = bench.tables.counters().unwrap();
        let count = |counter| counters.get(&counter).copied().unwrap_or(0);
        assert_eq!(count(PortRemapped), conns.len() as u64 - 1, "{hook}");
        assert_eq!(count(PortCollision), refused, "{hook}");
        assert_eq!((count(Opened), count(Established)), (conns.len() as u64, conns.len() as u64), "{hook}");
        assert_eq!(count(HopLookup), 2 * conns.len() as u64, "{hook}");
        // Against an established conn, too.
        let again = Flow::opened(&site, "10.80.1.1:40000", &format!("{VIP}:3306"), &backend);
        bench.tables.remove(&again.keys()[0]).unwrap();
        bench.run(Port::Ext, &again.client_syn().build()).unwrap();
        if let Some(entry) = bench.tables.half_open().unwrap().get(&again.keys()[0]) {
            assert!(!seen.contains(&entry.sport), "{hook}: port {} belongs to another conn", entry.sport);
        }
    });
}

#[test]
fn a_lost_event_is_counted() {
    // 4096 bytes hold 56 records of 64 bytes and their headers of 8.
    let sizes = Sizes { events: 4096, ..Sizes::default() };
    on_both(sizes, &Site::mysql(), |bench| {
        let hook = bench.hook();
        let now = bench.jiffies().unwrap();
        for n in 0..80 {
            let flow = nth(n).established();
            put(bench, &flow, now).unwrap();
            let fin = flow.client_ack().fin();
            assert_eq!(bench.run(Port::Ext, &fin.build()).unwrap().packet, flow.translated(&fin).build(), "{hook}");
        }
        let counters = bench.tables.counters().unwrap();
        assert_eq!(bench.tables.events().unwrap().len(), 56, "{hook}");
        assert_eq!(counters[&EventLost], 24, "{hook}");
    });
}

#[test]
fn a_stranger_cannot_fill_the_event_ring() {
    on_both(Sizes::default(), &Site::mysql(), |bench| {
        let hook = bench.hook();
        let stray = nth(0).client().ack(1).build();
        let runs = lb_common::abi::EVENTS_BYTES / 72;
        bench.repeat(Port::Ext, &stray, runs).unwrap();
        assert_eq!(bench.tables.counters().unwrap()[&NoConn], u64::from(runs), "{hook}");
        let flow = nth(1).answered();
        let now = bench.jiffies().unwrap();
        put(bench, &flow, now).unwrap();
        bench.run(Port::Ext, &flow.client().ack(3).build()).unwrap();
        bench.run(Port::Ext, &flow.client_ack().build()).unwrap();
        let events = bench.tables.events().unwrap();
        let last = events.last().map(|event| (event.kind, event.key));
        assert_eq!(last, Some((EventKind::Established, flow.keys()[0])), "{hook}");
        let strays = events.iter().filter(|event| event.kind == EventKind::Miss).count();
        assert_eq!(strays + 1, events.len(), "{hook}");
        assert!(strays as u32 <= runs / 2 + 1, "{hook}: {strays} of {runs} records");
        let counters = bench.tables.counters().unwrap();
        assert_eq!((counters.get(&EventLost), counters[&BadHandshake]), (None, 1), "{hook}");
    });
}

//! Who gets a new conn: every scheduler through both programs, pick by pick.

use std::collections::BTreeMap;

use lb_common::{
    backend::BackendState,
    counter::Counter::{Established, HopLookup, Opened, ResetFull, Reused, SynAgain},
    service::{OnDown, Scheduler, Service, ServiceKey},
    tcp::State,
};
use lb_tests::{
    packet::tcp,
    prog::{Bench, Flow, Hook, Port, Site, network::*, put},
};

const LISTEN: &str = "10.80.1.243:3306";
const B1: &str = "192.168.80.167:3306";
const B2: &str = "192.168.80.136:3306";
const B3: &str = "192.168.80.137:3306";

/// Runs `test` with a fresh bench of `site` on each hook.
fn on_both(site: &Site, test: impl Fn(&mut Bench)) {
    for hook in Hook::ALL {
        let mut bench = Bench::load(hook).unwrap();
        site.apply(&mut bench.tables).unwrap();
        test(&mut bench);
    }
}

/// Opens a conn from `client` and tells which backend gets it: by the packet that leaves, not by the tables.
fn pick(bench: &mut Bench, client: (std::net::Ipv4Addr, u16), listen: &str) -> &'static str {
    let syn = tcp().from(client).to(listen).syn().macs(mac_of(CLIENT), EXT_MAC).build();
    let out = bench.run(Port::Ext, &syn).unwrap().packet;
    let dst = format!("{}.{}.{}.{}:{}", out[30], out[31], out[32], out[33], u16::from_be_bytes([out[36], out[37]]));
    [B1, B2, B3].into_iter().find(|backend| *backend == dst).unwrap_or_else(|| panic!("{}: to {dst}", bench.hook()))
}

/// The picks of `count` conns from one client, port after port.
fn picks(bench: &mut Bench, count: u16) -> Vec<&'static str> {
    (0..count).map(|n| pick(bench, ([10, 80, 1, 1].into(), 20_000 + n), LISTEN)).collect()
}

fn counts(picks: &[&'static str]) -> BTreeMap<&'static str, usize> {
    picks.iter().fold(BTreeMap::new(), |mut counts, backend| {
        *counts.entry(*backend).or_default() += 1;
        counts
    })
}

#[test]
fn rr_is_exact_after_every_conn() {
    for ring in [&[B1][..], &[B1, B2], &[B1, B2, B3]] {
        on_both(&Site::new().service(LISTEN, Scheduler::Rr, ring), |bench| {
            let picks = picks(bench, 60);
            for (n, backend) in picks.iter().enumerate() {
                assert_eq!(*backend, ring[n % ring.len()], "{}, {} backends, pick {n}", bench.hook(), ring.len());
            }
            for id in 0..ring.len() as u16 {
                assert_eq!(bench.tables.stats(id).unwrap().conns, 60 / ring.len() as u64, "{}", bench.hook());
            }
            assert_eq!(bench.tables.cursor(0).unwrap(), 60, "{}", bench.hook());
        });
    }
}

#[test]
fn wrr_follows_the_interleaved_ring() {
    let ring = [B1, B1, B2, B1];
    on_both(&Site::new().service(LISTEN, Scheduler::Wrr, &ring), |bench| {
        let picks = picks(bench, 40);
        assert_eq!(counts(&picks), BTreeMap::from([(B1, 30), (B2, 10)]), "{}", bench.hook());
        for (n, four) in picks.chunks(4).enumerate() {
            assert_eq!(four, ring, "{}, round {n}", bench.hook());
        }
    });
}

#[test]
fn the_cursor_outlives_a_change_of_the_ring() {
    let site = Site::new().service(LISTEN, Scheduler::Rr, &[B1, B2, B3]);
    on_both(&site, |bench| {
        assert_eq!(picks(bench, 4), [B1, B2, B3, B1], "{}", bench.hook());
        // The agent fills the other half and then switches to it: the first backend drains.
        bench.tables.put_ring(4, &[1, 2]).unwrap();
        let key = ServiceKey::tcp(lb_common::addr::Ipv4::new([10, 80, 1, 243]), 3306);
        let service = bench.tables.service(&key).unwrap();
        bench.tables.put_service(key, Service { ring_start: 4, ring_len: 2, ..service }).unwrap();
        let syn = |bench: &mut Bench, port| pick(bench, ([10, 80, 1, 1].into(), port), LISTEN);
        let after: Vec<_> = (0..4).map(|n| syn(bench, 30_000 + n)).collect();
        assert_eq!(after, [B2, B3, B2, B3], "{}: cursor 4 in a ring of two", bench.hook());
        // The conns of the drained backend stay where they are.
        assert_eq!(syn(bench, 20_000), B1, "{}", bench.hook());
        assert_eq!(bench.tables.counters().unwrap()[&SynAgain], 1, "{}", bench.hook());
    });
}

#[test]
fn a_cursor_at_its_end_goes_on() {
    on_both(&Site::new().service(LISTEN, Scheduler::Rr, &[B1, B2, B3]), |bench| {
        bench.tables.set_cursor(0, u64::MAX).unwrap();
        // 2^64 − 1 is a multiple of three, and 0 is the next one.
        assert_eq!(picks(bench, 4), [B1, B1, B2, B3], "{}", bench.hook());
    });
}

#[test]
fn services_have_cursors_of_their_own() {
    let site =
        Site::new().service(LISTEN, Scheduler::Rr, &[B1, B2]).service("10.80.1.244:3306", Scheduler::Rr, &[B3, B1]);
    on_both(&site, |bench| {
        let client = |n: u16| ([10, 80, 1, 1].into(), 20_000 + n);
        let picks: Vec<_> =
            (0..6).map(|n| pick(bench, client(n), if n % 3 == 0 { "10.80.1.244:3306" } else { LISTEN })).collect();
        assert_eq!(picks, [B3, B1, B2, B1, B1, B2], "{}", bench.hook());
        assert_eq!((bench.tables.cursor(0).unwrap(), bench.tables.cursor(1).unwrap()), (4, 2), "{}", bench.hook());
    });
}

#[test]
fn a_retransmission_steps_no_cursor_and_a_reused_key_does() {
    on_both(&Site::mysql(), |bench| {
        let syn = |bench: &mut Bench, port| pick(bench, ([10, 80, 1, 1].into(), port), LISTEN);
        assert_eq!([syn(bench, 1), syn(bench, 1), syn(bench, 1), syn(bench, 2)], [B1, B1, B1, B2], "{}", bench.hook());
        let closed = Flow::mysql("10.80.1.1:3", SERVER2).in_state(State::TimeWait);
        let now = bench.jiffies().unwrap();
        put(bench, &closed, now).unwrap();
        assert_eq!([syn(bench, 3), syn(bench, 4)], [B1, B2], "{}", bench.hook());
        let counters = bench.tables.counters().unwrap();
        let found = [SynAgain, Opened, Reused, HopLookup].map(|counter| counters[&counter]);
        assert_eq!(found, [2, 4, 1, 4], "{}", bench.hook());
    });
}

#[test]
fn hashing_keeps_a_client_with_its_backend() {
    for scheduler in [Scheduler::Sh, Scheduler::Mh] {
        on_both(&Site::new().service(LISTEN, scheduler, &[B1, B2, B3]), |bench| {
            let mut firsts = Vec::new();
            for client in 1..=120 {
                let from = |port| (std::net::Ipv4Addr::new(10, 80, 1, client), port);
                let first = pick(bench, from(20_000), LISTEN);
                for port in [20_001, 54_321] {
                    assert_eq!(pick(bench, from(port), LISTEN), first, "{scheduler}, client {client}, port {port}");
                }
                firsts.push(first);
            }
            let counts = counts(&firsts);
            assert_eq!(counts.len(), 3, "{}, {scheduler}: {counts:?}", bench.hook());
            assert!(counts.values().all(|&n| n >= 20), "{}, {scheduler}: {counts:?} of 120 clients", bench.hook());
        });
    }
}

#[test]
fn least_connection_fills_the_gaps() {
    on_both(&Site::new().service(LISTEN, Scheduler::Lc, &[B1, B2, B3]), |bench| {
        for (id, active) in [(0, 5), (1, 3), (2, 4)] {
            bench.tables.set_load(id, active).unwrap();
        }
        // Half-open conns are no load: only an established one changes the choice.
        assert_eq!(picks(bench, 2), [B2, B2], "{}", bench.hook());
        bench.tables.set_load(1, 5).unwrap();
        assert_eq!(pick(bench, ([10, 80, 1, 2].into(), 1), LISTEN), B3, "{}", bench.hook());
        // Equal ones take turns.
        bench.tables.set_load(2, 5).unwrap();
        let picks: Vec<_> = (2..62).map(|n| pick(bench, ([10, 80, 1, 2].into(), n), LISTEN)).collect();
        assert_eq!(counts(&picks), BTreeMap::from([(B1, 20), (B2, 20), (B3, 20)]), "{}", bench.hook());
    });
}

#[test]
fn weighted_least_connection_divides_by_the_weight() {
    let site = Site::new().service(LISTEN, Scheduler::Wlc, &[B1, B2, B3]).weight(B1, 3).weight(B3, 0);
    on_both(&site, |bench| {
        let mut load = [0_u64; 2];
        let mut order = Vec::new();
        for n in 0..40 {
            let backend = pick(bench, ([10, 80, 1, 1].into(), 20_000 + n), LISTEN);
            let id = usize::from(backend != B1);
            assert_ne!(backend, B3, "{}: weight 0 takes no conn", bench.hook());
            // As if each handshake completed at once.
            load[id] += 1;
            bench.tables.set_load(id as u16, load[id]).unwrap();
            order.push(backend);
        }
        assert_eq!(counts(&order), BTreeMap::from([(B1, 30), (B2, 10)]), "{}: {order:?}", bench.hook());
        for (n, four) in order.chunks(4).enumerate() {
            assert_eq!(counts(four)[B1], 3, "{}, round {n}: {four:?}", bench.hook());
        }
    });
}

#[test]
fn a_handshake_counts_as_load_until_the_conn_closes() {
    on_both(&Site::new().service(LISTEN, Scheduler::Lc, &[B1, B2]), |bench| {
        let flow = Flow::mysql("10.80.1.1:40000", SERVER1);
        let load = |bench: &mut Bench| [0, 1].map(|id| bench.tables.load(id).unwrap());
        let run = |bench: &mut Bench, port, packet: lb_tests::packet::Packet<lb_tests::packet::Tcp>| {
            let outcome = bench.run(port, &packet.build()).unwrap();
            assert_eq!(outcome.packet, flow.translated(&packet).build(), "{}", bench.hook());
        };
        run(bench, Port::Ext, flow.client_syn());
        run(bench, Port::Int, flow.backend_syn_ack());
        assert_eq!(load(bench), [0, 0], "{}", bench.hook());
        run(bench, Port::Ext, flow.answered().client_ack());
        assert_eq!(load(bench), [1, 0], "{}", bench.hook());
        assert_eq!(picks(bench, 2), [B2, B2], "{}", bench.hook());
        run(bench, Port::Int, flow.established().backend_ack().fin());
        assert_eq!(load(bench), [0, 0], "{}", bench.hook());
        run(bench, Port::Ext, flow.established().client_ack().fin());
        run(bench, Port::Ext, flow.established().client().rst());
        assert_eq!(load(bench), [0, 0], "{}: uncounted once", bench.hook());
    });
}

#[test]
fn only_the_ring_decides_who_takes_conns() {
    // The agent leaves a drained backend out of the ring; its state alone changes nothing.
    let site = Site::new().service(LISTEN, Scheduler::Rr, &[B1, B2]).state(B2, BackendState::Draining, OnDown::Keep);
    on_both(&site, |bench| assert_eq!(picks(bench, 2), [B1, B2], "{}", bench.hook()));
}

/// The TCP flags of a frame without VLAN tags and IP options.
fn flags(frame: &[u8]) -> u8 {
    frame[14 + 20 + 13]
}

const RST: u8 = 4;

#[test]
fn a_backend_at_its_limit_is_passed_over() {
    for scheduler in [Scheduler::Rr, Scheduler::Wrr, Scheduler::Lc, Scheduler::Wlc] {
        let site = Site::new().service(LISTEN, scheduler, &[B1, B2, B3]).max_conn(B1, 5).max_conn(B3, 7);
        on_both(&site, |bench| {
            bench.tables.set_load(0, 5).unwrap();
            bench.tables.set_load(1, 1000).unwrap();
            bench.tables.set_load(2, 6).unwrap();
            let counts_of = counts(&picks(bench, 12));
            assert!(!counts_of.contains_key(B1), "{scheduler}, {}: {counts_of:?}", bench.hook());
            assert!(counts_of.contains_key(B3), "{scheduler}, {}: {counts_of:?}", bench.hook());
            bench.tables.set_load(2, 7).unwrap();
            assert_eq!(
                counts(&(0..6).map(|n| pick(bench, ([10, 80, 1, 2].into(), n + 1), LISTEN)).collect::<Vec<_>>()),
                BTreeMap::from([(B2, 6)])
            );
            // One leaves.
            bench.tables.set_load(0, 4).unwrap();
            let again: Vec<_> = (10..22).map(|n| pick(bench, ([10, 80, 1, 2].into(), n), LISTEN)).collect();
            assert!(again.contains(&B1), "{scheduler}, {}: {again:?}", bench.hook());
        });
    }
}

#[test]
fn when_no_backend_has_room_the_client_is_told_at_once() {
    for scheduler in [Scheduler::Rr, Scheduler::Lc, Scheduler::Sh, Scheduler::Mh] {
        let site = Site::new().service(LISTEN, scheduler, &[B1, B2]).max_conn(B1, 1).max_conn(B2, 1);
        on_both(&site, |bench| {
            bench.tables.set_load(0, 1).unwrap();
            bench.tables.set_load(1, 1).unwrap();
            let syn = tcp().from("10.80.1.1:40000").to(LISTEN).syn().macs(mac_of(CLIENT), EXT_MAC).build();
            let out = bench.run(Port::Ext, &syn).unwrap().packet;
            assert_eq!(flags(&out) & RST, RST, "{scheduler}, {}", bench.hook());
            let counters = bench.tables.counters().unwrap();
            let found = [ResetFull, Opened].map(|counter| counters.get(&counter).copied().unwrap_or(0));
            assert_eq!(found, [1, 0], "{scheduler}, {}", bench.hook());
        });
    }
}

/// SYNs of any number may run before the first handshake is done: the last step counts.
#[test]
fn of_many_handshakes_that_run_at_once_only_as_many_end_as_there_is_room() {
    const MOST: u64 = 3;
    let site = Site::new().service(LISTEN, Scheduler::Rr, &[B1]).max_conn(B1, MOST as u32);
    on_both(&site, |bench| {
        let flows: Vec<Flow> = (0..10).map(|n| Flow::mysql(&format!("10.80.1.1:{}", 40_000 + n), SERVER1)).collect();
        for flow in &flows {
            bench.run(Port::Ext, &flow.client_syn().build()).unwrap();
        }
        for flow in &flows {
            bench.run(Port::Int, &flow.backend_syn_ack().build()).unwrap();
        }
        let mut refused = Vec::new();
        for flow in &flows {
            let out = bench.run(Port::Ext, &flow.answered().client_ack().build()).unwrap().packet;
            if flags(&out) & RST != 0 {
                refused.push(flow);
            }
        }
        assert_eq!(refused.len() as u64, 10 - MOST, "{}", bench.hook());
        assert_eq!(bench.tables.load(0).unwrap(), MOST, "{}", bench.hook());
        // The backend, which waits for the client's ACK, asks again and is told, too.
        for flow in &refused {
            let out = bench.run(Port::Int, &flow.backend_syn_ack().build()).unwrap().packet;
            assert_eq!(flags(&out) & RST, RST, "{}", bench.hook());
        }
        let counters = bench.tables.counters().unwrap();
        let found = [Established, ResetFull].map(|counter| counters[&counter]);
        assert_eq!(found, [MOST, 2 * (10 - MOST)], "{}", bench.hook());
        // A place becomes free, and is given away once.
        let first = &flows[0];
        bench.run(Port::Ext, &first.established().client().rst().build()).unwrap();
        assert_eq!(bench.tables.load(0).unwrap(), MOST - 1, "{}", bench.hook());
    });
}

//! What the programs answer or withhold in the kernel's place: RSTs, ARP requests; and when they ask for the next hop anew.

use lb_common::{
    addr::Ipv4,
    backend::BackendState,
    control::{ArpGate, Control},
    counter::Counter::{self, HopLookup, NoBackend, NoConn, ResetDown, ResetNoConn},
    event::EventKind,
    service::{OnDown, Refusal, Scheduler},
    tcp::State,
};
use lb_tests::{
    packet::{Packet, Tcp, arp_reply, arp_request, difference, flag, tcp},
    prog::{Bench, CLIENT_ISN, Case, Flow, Hook, Port, Site, Verdict, case, network::*, put, run},
};

fn flow() -> Flow {
    Flow::mysql("10.80.1.1:40000", SERVER1)
}

/// The RST that RFC 9293 §3.10.7.1 wants in answer to a segment, as a host sends it: no options, no window.
fn reset_of(packet: &Packet<Tcp>) -> Packet<Tcp> {
    let (src, dst) = packet.ends();
    let answer = tcp().from(dst).to(src).window(0).id(0).tagged_as(packet);
    let (mac_src, mac_dst) = packet.link();
    match packet.acknowledges() {
        Some(ack) => answer.rst().seq(ack),
        None => answer.rst().seq(0).ack(packet.seq_end()),
    }
    .macs(mac_dst, mac_src)
}

#[test]
fn a_packet_without_a_conn_is_answered_with_a_reset_if_the_service_wants_it() {
    let site = Site::mysql().no_conn(Refusal::Rst);
    let flow = flow().established();
    let answered = |name: &str, packet: &Packet<Tcp>| {
        case(name).at(&site).from_client(packet).answered(&reset_of(packet), ResetNoConn).tells_refusal(
            EventKind::Miss,
            &flow,
            NoConn,
        )
    };
    let silent = |name: &str, packet: &Packet<Tcp>| {
        case(name).at(&site).from_client(packet).dropped(NoConn).tells_refusal(EventKind::Miss, &flow, NoConn)
    };
    let query = flow.client_ack().psh().payload("\x09\0\0\0\x03SELECT 1");
    run(&[
        answered("a query", &query),
        answered("an ACK", &flow.client_ack()),
        answered("an ACK of number zero", &flow.client().ack(0)),
        answered("a padded ACK", &flow.client_ack().padded()),
        answered("a segment of 1460 bytes", &flow.client_ack().payload(1460)),
        answered("a segment of odd length with options", &{
            flow.client_ack().ip_options(&[1; 8]).tcp_options(&[1; 12]).payload(33)
        }),
        answered("a FIN+ACK", &flow.client_ack().fin()),
        answered("a SYN+ACK", &flow.client_ack().syn()),
        answered("a bare FIN", &flow.client().fin()),
        answered("a SYN+FIN", &flow.client().syn().fin()),
        answered("a segment without flags and with data", &flow.client().payload(7)),
        answered("a jumbo frame", &flow.client_ack().payload(3000)),
        answered("a query in a VLAN, in the VLAN", &query.clone().vlan(7)).deferred_by_xdp(),
        answered("a query in two VLANs, in both", &query.clone().qinq(100, 7)).deferred_by_xdp(),
        silent("a RST is not answered", &flow.client().rst()),
        silent("a RST+ACK is not answered", &flow.client_ack().rst()),
        silent("a segment with all flags is not answered", &flow.client().flags(0xff)),
        case("a SYN opens a conn")
            .at(&site)
            .translates(&Flow::mysql("10.80.1.1:40000", SERVER1), &flow.client_syn())
            .counts(&[Counter::Opened, HopLookup])
            .leaves(&[&self::flow()]),
    ]);
}

#[test]
fn a_new_conn_that_no_backend_takes_is_answered_with_a_reset() {
    let flow = flow();
    let site = |scheduler| Site::new().service("10.80.1.243:3306", scheduler, &[]);
    let answered = |name: &str, site: &Site, packet: &Packet<Tcp>| {
        case(name).at(site).from_client(packet).answered(&reset_of(packet), NoBackend).tells_refusal(
            EventKind::Refused,
            &flow,
            NoBackend,
        )
    };
    let syn = flow.client_syn();
    let rr = site(Scheduler::Rr);
    run(&[
        answered("a SYN", &rr, &syn),
        answered("a SYN with data", &rr, &syn.clone().payload(100)),
        answered("a SYN in a VLAN, in the VLAN", &rr, &syn.clone().vlan(7)).deferred_by_xdp(),
        answered("a SYN by least connections", &site(Scheduler::Lc), &syn),
        answered("a SYN by source hash", &site(Scheduler::Sh), &syn),
    ]);
}

#[test]
fn conns_of_a_backend_that_is_down_are_reset_from_both_sides() {
    let backend = format!("{SERVER1}:3306");
    let down = |on_down| Site::mysql().state(&backend, BackendState::Down, on_down);
    // The agent raises the generation of next hops with it.
    let flow = flow().established().without_hops();
    let answered = |name: &str, port: Port, packet: &Packet<Tcp>| {
        case(name)
            .at(&down(OnDown::Rst))
            .given(&[&flow])
            .frame(port, packet.build())
            .answered(&reset_of(packet), ResetDown)
    };
    let (query, answer) = (flow.client_ack().payload(20), flow.backend_ack().payload(20));
    let lost = Flow::mysql("10.80.1.1:40000", SERVER2).established();
    let again = self::flow().client_syn().seq(CLIENT_ISN + 900_000);
    let keeps = |name: &str, site: &Site| -> Case {
        case(name)
            .at(site)
            .given(&[&flow])
            .translates(&flow, &query)
            .counts(&[HopLookup])
            .leaves(&[&flow.after(&query)])
    };
    let ends = |name: &str, packet: &Packet<Tcp>| {
        case(name)
            .at(&down(OnDown::Rst))
            .given(&[&flow])
            .from_client(packet)
            .dropped(ResetDown)
            .leaves_roughly(&[&flow])
    };
    run(&[
        answered("the client's query is answered", Port::Ext, &query),
        answered("the client's ACK is answered", Port::Ext, &flow.client_ack()),
        answered("the backend's packet is answered", Port::Int, &answer),
        ends("a blind RST is not answered with a RST", &flow.client().rst().seq(7)).counts(&[Counter::BlindRst]),
        case("a SYN sent again to a dead backend opens a conn to another one")
            .at(&Site::mysql().state(&format!("{SERVER2}:3306"), BackendState::Down, OnDown::Keep))
            .given(&[&Flow::mysql("10.80.1.1:40000", SERVER2)])
            .translates(&self::flow(), &self::flow().client_syn())
            .counts(&[Counter::Opened, HopLookup])
            .leaves(&[&self::flow()]),
        case("a SYN from the port of a lost conn opens a conn to another one")
            .at(&Site::mysql().state(&format!("{SERVER2}:3306"), BackendState::Down, OnDown::Rst))
            .given(&[&lost])
            .translates(&self::flow(), &again)
            .counts(&[Counter::Reused, Counter::Opened, HopLookup])
            .tells(EventKind::Replaced, &lost)
            .leaves(&[&self::flow().opened_by(&again)]),
        keeps("conns that shall stay go on", &down(OnDown::Keep)),
        keeps("a draining backend's conns go on", &Site::mysql().state(&backend, BackendState::Draining, OnDown::Rst)),
        keeps("a removed backend's conns go on", &Site::mysql().state(&backend, BackendState::Removed, OnDown::Rst)),
    ]);
}

#[test]
fn the_arp_gate_opens_only_for_a_living_active_agent() {
    let mac = mac_of(CLIENT);
    let who_has = |target: &str| arp_request(mac, CLIENT, target);
    for hook in Hook::ALL {
        let mut bench = Bench::load(hook).unwrap();
        Site::mysql().apply(&mut bench.tables).unwrap();
        let now = bench.jiffies().unwrap();
        let mut ask = |gate: ArpGate, age: u32, frame: Vec<u8>| {
            let control = bench.tables.control().unwrap();
            let mut vips = control.vips;
            vips[..2].copy_from_slice(&[Ipv4::new([10, 80, 1, 243]), Ipv4::new([192, 168, 80, 111])]);
            let heartbeat = now.wrapping_sub(age);
            let control = Control { arp_gate: gate, vips, heartbeat, heartbeat_jiffies: 50_000, ..control };
            bench.tables.set_control(control).unwrap();
            let before = bench.tables.counters().unwrap().get(&Counter::ArpGate).copied().unwrap_or(0);
            let outcome = bench.run(Port::Ext, &frame).unwrap();
            assert_eq!(difference(&frame, &outcome.packet), None, "{hook}");
            let counted = bench.tables.counters().unwrap().get(&Counter::ArpGate).copied().unwrap_or(0) - before;
            assert_eq!(counted, u64::from(outcome.verdict == Verdict::Drop), "{hook}: counted");
            outcome.verdict
        };
        let (vip, inner_vip) = (who_has(VIP).build(), who_has("192.168.80.111").build());
        let own = who_has("10.80.1.241").build();
        let cases = [
            ("the gate is off", ArpGate::Off, 90_000, &vip, Verdict::Pass),
            ("the director is Active and its agent lives", ArpGate::Open, 100, &vip, Verdict::Pass),
            ("the inner VIP, too", ArpGate::Open, 100, &inner_vip, Verdict::Pass),
            ("the agent is dead", ArpGate::Open, 90_000, &vip, Verdict::Drop),
            ("the agent is dead, inner VIP", ArpGate::Open, 90_000, &inner_vip, Verdict::Drop),
            ("the director is not Active", ArpGate::Closed, 100, &vip, Verdict::Drop),
            ("the director's own address", ArpGate::Closed, 90_000, &own, Verdict::Pass),
            (
                "the address 0.0.0.0 of an unused place",
                ArpGate::Closed,
                90_000,
                &who_has("0.0.0.0").build(),
                Verdict::Pass,
            ),
            ("a VLAN", ArpGate::Closed, 100, &who_has(VIP).vlan(7).build(), Verdict::Drop),
            (
                "an answer, not a request",
                ArpGate::Closed,
                100,
                &arp_reply(mac, CLIENT, EXT_MAC, VIP).build(),
                Verdict::Pass,
            ),
            (
                "a gratuitous answer of the peer",
                ArpGate::Closed,
                100,
                &{ arp_reply(mac, VIP, [0xff; 6], VIP).build() },
                Verdict::Pass,
            ),
        ];
        for (name, gate, age, frame, verdict) in cases {
            assert_eq!(ask(gate, age, frame.clone()), verdict, "{hook}: {name}");
        }
        for len in 14..42 {
            let cut = who_has(VIP).truncate(len).build();
            assert_eq!(ask(ArpGate::Closed, 100, cut), Verdict::Pass, "{hook}: a request cut to {len} bytes");
        }
        // A SYN passes a closed gate: who answers ARP and who forwards are different questions.
        assert_eq!(bench.run(Port::Ext, &flow().client_syn().build()).unwrap().verdict, Verdict::Redirect, "{hook}");
    }
}

#[test]
fn a_new_generation_of_next_hops_is_looked_up_once_for_each_direction() {
    for hook in Hook::ALL {
        let mut bench = Bench::load(hook).unwrap();
        Site::mysql().apply(&mut bench.tables).unwrap();
        let flow = flow().established();
        let now = bench.jiffies().unwrap();
        put(&mut bench, &flow, now).unwrap();
        let (query, answer) = (flow.client_ack().payload(9).build(), flow.backend_ack().payload(9).build());
        let new_mac = [2, 0xaa, 0, 0, 0, 1];
        bench.network.ip(&format!("neigh replace {SERVER1} lladdr 02:aa:00:00:00:01 dev int0 nud permanent")).unwrap();
        let dst = |bench: &mut Bench, port, frame: &[u8]| bench.run(port, frame).unwrap().packet[..6].to_vec();
        let lookups = |bench: &mut Bench| bench.tables.counters().unwrap().get(&HopLookup).copied().unwrap_or(0);

        assert_eq!(dst(&mut bench, Port::Ext, &query), mac_of(SERVER1), "{hook}: cached until the agent says so");
        let control = bench.tables.control().unwrap();
        bench.tables.set_control(Control { hop_gen: 2, ..control }).unwrap();
        assert_eq!(dst(&mut bench, Port::Ext, &query), new_mac, "{hook}: the new neighbour");
        assert_eq!(dst(&mut bench, Port::Ext, &query), new_mac, "{hook}");
        assert_eq!(lookups(&mut bench), 1, "{hook}");
        assert_eq!(dst(&mut bench, Port::Int, &answer), mac_of(CLIENT), "{hook}");
        assert_eq!(dst(&mut bench, Port::Int, &answer), mac_of(CLIENT), "{hook}");
        assert_eq!(lookups(&mut bench), 2, "{hook}: once for each direction");

        // A route moves the servers to the other interface.
        bench.network.ip(&format!("route add {SERVER1}/32 via {CLIENT2} dev ext0 mtu lock 1280")).unwrap();
        bench.tables.set_control(Control { hop_gen: 3, ..control }).unwrap();
        assert_eq!(dst(&mut bench, Port::Ext, &query), mac_of(CLIENT2), "{hook}: through the router");
        let entry = bench.tables.conns().unwrap()[&flow.keys()[0]];
        assert_eq!((entry.ifindex, entry.mtu), (EXT_IFINDEX, 1280), "{hook}");
        // A route that vanishes costs packets, not the conn.
        bench.network.ip(&format!("route replace unreachable {SERVER1}/32")).unwrap();
        bench.network.ip(&format!("route del {SERVER1}/32 via {CLIENT2} dev ext0")).ok();
        bench.tables.set_control(Control { hop_gen: 4, ..control }).unwrap();
        assert_eq!(bench.run(Port::Ext, &query).unwrap().verdict, Verdict::Drop, "{hook}");
        assert_eq!(bench.tables.conns().unwrap().len(), 2, "{hook}");
        let state = bench.tables.conns().unwrap().values().fold(0, |seen, entry| seen | entry.seen);
        assert_eq!(State::of(state, state), State::Established, "{hook}");
        assert_eq!(state & flag::RST, 0, "{hook}");
    }
}

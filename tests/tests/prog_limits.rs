//! The edges of a translation: TTL, fragments, options, VLAN tags, checksums, padding, size, the next hop.

use lb_common::{
    counter::Counter::{self, BlindRst, Fragment, HopLookup, NoRoute, Opened, Reused, TooBig, Ttl},
    event::EventKind,
    service::Scheduler,
    tcp::State,
};
use lb_tests::{
    packet::{Packet, Tcp, flag, icmp_error},
    prog::{Case, Flow, Hook, Port, Site, case, network::*, run},
};

fn flow() -> Flow {
    Flow::mysql("10.80.1.1:40000", SERVER1)
}

/// A packet of an established conn is translated, whatever is special about it.
fn goes_through(name: &str, flow: &Flow, packet: &Packet<Tcp>) -> Case {
    case(name).given(&[flow]).translates(flow, packet).leaves(&[&flow.after(packet)])
}

#[test]
fn the_time_to_live_counts_down() {
    let conn = flow().established();
    let time_wait = Flow::mysql("10.80.1.1:40000", SERVER2).in_state(State::TimeWait);
    let (query, answer) = (conn.client_ack().payload(9), conn.backend_ack().payload(9));
    let told =
        |row: Case, packet: &Packet<Tcp>| row.from_client(packet).answered(&conn.error_about(packet, (11, 0), 0), Ttl);
    let ends = |name: &str, packet: &Packet<Tcp>| told(case(name).given(&[&conn]), packet);
    let syn = conn.client_syn().ttl(1);
    run(&[
        goes_through("a client's packet with TTL 2 leaves with 1", &conn, &query.clone().ttl(2)),
        goes_through("a client's packet with TTL 255 leaves with 254", &conn, &query.clone().ttl(255)),
        goes_through("a backend's packet with TTL 2 leaves with 1", &conn, &answer.clone().ttl(2)),
        ends("a client's packet with TTL 1 ends here, and the client is told", &query.clone().ttl(1)),
        ends("a client's packet with TTL 0 ends here", &query.clone().ttl(0)),
        case("a backend's packet with TTL 1 passes, so that the kernel answers")
            .given(&[&conn])
            .from_backend(&answer.clone().ttl(1)),
        told(case("a SYN with TTL 1 ends here and opens nothing"), &syn),
        ends("an error quotes all IP options", &query.clone().ip_options(&[1; 40]).ttl(1)),
        ends("an error quotes a padded packet", &conn.client_ack().padded().ttl(1)),
        case("who cannot be one host is not told")
            .from_client(&syn.clone().from("224.0.0.1:40000"))
            .dropped(Ttl)
            .from_client(&syn.clone().from("0.0.0.0:40000"))
            .dropped(Ttl)
            .from_client(&syn.clone().from("127.0.0.1:40000"))
            .dropped(Ttl),
        case("who is behind a VLAN tag in the frame is not told")
            .given(&[&conn])
            .from_client(&query.clone().vlan(7).ttl(1))
            .deferred_by_xdp()
            .dropped(Ttl),
        case("a packet with TTL 1 and an unfinished checksum is answered by TC")
            .given(&[&conn])
            .from_client(&query.clone().partial_checksum().ttl(1))
            .deferred_by_xdp()
            .answered(&conn.error_about(&query.clone().partial_checksum().ttl(1), (11, 0), 0), Ttl),
        ends("a FIN with TTL 1 ends here and closes nothing", &conn.client_ack().fin().ttl(1)),
        ends("a RST with TTL 1 ends here and closes nothing", &conn.client().rst().ttl(1)),
        ends("a blind RST with TTL 1 is counted once", &conn.client().rst().seq(7).ttl(1)),
        case("a backend's FIN with TTL 1 passes and closes nothing")
            .given(&[&conn])
            .from_backend(&conn.backend_ack().fin().ttl(1)),
        told(
            case("a SYN with TTL 1 on a closed conn ends here and replaces nothing").given(&[&time_wait]),
            &time_wait.client_syn().ttl(1),
        ),
        told(
            case("the last ACK of a handshake with TTL 1 ends here and completes nothing").given(&[&flow().answered()]),
            &flow().answered().client_ack().ttl(1),
        ),
    ]);
}

#[test]
fn a_packet_too_long_for_the_next_link_is_answered_with_how_long_one_may_be() {
    let conn = flow().established().over(1400);
    // 20 bytes of IP and 20 of TCP go in front.
    let (query, answer) = (conn.client_ack().payload(1361), conn.backend_ack().payload(1361));
    let told = |name: &str, before: &Flow, packet: &Packet<Tcp>| {
        let port = if packet.ends().0 == before.client { Port::Ext } else { Port::Int };
        case(name)
            .given(&[before])
            .frame(port, packet.build())
            .answered(&before.error_about(packet, (3, 4), before.mtu), TooBig)
    };
    let stale = flow().established().without_hops();
    let long = stale.client_ack().payload(1461);
    let mut found = stale.clone();
    found.forward.hop = true;
    let fast_open = flow().client_syn().payload(1461);
    run(&[
        goes_through("a client's packet of just the next link's length", &conn, &conn.client_ack().payload(1360)),
        goes_through("a backend's packet of just the next link's length", &conn, &conn.backend_ack().payload(1360)),
        told("a client's packet of one byte more", &conn, &query),
        told("a backend's packet of one byte more", &conn, &answer),
        told("a packet of thousands of bytes", &conn, &answer.clone().payload(2946)),
        told("options count, too", &conn, &query.clone().payload(1341).ip_options(&[1; 8]).tcp_options(&[1; 12])),
        told("a packet that might be fragmented", &conn, &query.clone().may_fragment()),
        told("a FIN, which closes nothing", &conn, &answer.clone().fin()),
        told("a RST, which closes nothing", &conn, &query.clone().rst()),
        told(
            "a half-open conn's packet",
            &flow().answered().over(1400),
            &flow().answered().backend_ack().payload(1361),
        ),
        case("a packet of a conn without valid next hops, after a lookup")
            .given(&[&stale])
            .from_client(&long)
            .answered(&stale.error_about(&long, (3, 4), 1500), TooBig)
            .counts(&[HopLookup])
            .leaves(&[&found]),
        case("a SYN with more data than fits opens a conn that waits for a shorter one")
            .from_client(&fast_open)
            .answered(&flow().error_about(&fast_open, (3, 4), 1500), TooBig)
            .counts(&[Opened, HopLookup])
            .leaves_roughly(&[&flow().opened_by(&fast_open)]),
        case("who is behind a VLAN tag in the frame is not told")
            .given(&[&conn])
            .from_client(&query.clone().vlan(7))
            .deferred_by_xdp()
            .dropped(TooBig),
        case("an ICMP error is never too long")
            .given(&[&conn.over(60)])
            .frame(Port::Ext, about(&conn).0)
            .relayed(about(&conn).1)
            .counts(&[Counter::IcmpError]),
    ]);
}

/// A router's error about an answer of 576 bytes, as it comes and as it leaves.
fn about(conn: &Flow) -> (Vec<u8>, Vec<u8>) {
    let sent = conn.backend_ack().payload(508).ttl(60);
    let seen = sent.clone().from(conn.service).to(conn.client);
    let error = |quote: &Packet<Tcp>| icmp_error(3, 4, 1400, &quote.ip_bytes()).from("10.80.1.2");
    let come = error(&seen).to(VIP).macs(mac_of("10.80.1.2"), EXT_MAC);
    (come.build(), error(&sent).to(SERVER1).ttl(63).macs(INT_MAC, mac_of(SERVER1)).build())
}

#[test]
fn fragments_of_a_service_are_dropped() {
    let conn = flow().established();
    let ends = |name: &str, before: &[&Flow], packet: Packet<Tcp>| {
        let packet = packet.fragment(0, true);
        case(name).given(before).from_client(&packet).dropped(Fragment)
    };
    run(&[
        ends("a first fragment of a conn", &[&conn], conn.client_ack().payload(1480)),
        ends("a SYN in a first fragment opens nothing", &[], conn.client_syn()),
        ends("a first fragment without a conn", &[], conn.client_ack().payload(1480)),
        ends("a FIN in a first fragment closes nothing", &[&conn], conn.client_ack().fin().payload(1480)),
        ends("a RST in a first fragment closes nothing", &[&conn], conn.client().rst()),
        case("a first fragment of a backend's packet is dropped")
            .given(&[&conn])
            .from_backend(&conn.backend_ack().payload(1480).fragment(0, true))
            .dropped(Fragment),
        case("a later fragment of a conn passes")
            .given(&[&conn])
            .from_client(&conn.client_ack().payload(1000).fragment(1480, false)),
    ]);
}

#[test]
fn everything_that_is_not_nat_stays() {
    let conn = flow().established();
    let (query, answer) = (conn.client_ack().payload("SELECT 1"), conn.backend_ack().payload("1"));
    let jumbo = conn.over(9000);
    let with_options = query.clone().ip_options(&[7, 39, 4, 0].repeat(10)).tcp_options(&[1; 40]);
    let odd = query.clone().tos(0xb9).id(0xbeef).window(0).flags(flag::ACK | flag::PSH | flag::URG);
    let cases = vec![
        goes_through("four bytes of IP options", &conn, &query.clone().ip_options(&[1; 4])),
        goes_through("forty bytes of IP and of TCP options", &conn, &with_options),
        goes_through("forty bytes of options from the backend", &conn, &answer.clone().ip_options(&[1; 40])),
        goes_through("type of service, identification, window and urgent data", &conn, &odd),
        goes_through("the padding of a short frame from a client", &conn, &conn.client_ack().padded()),
        goes_through("the padding of a short frame from a backend", &conn, &conn.backend_ack().padded()),
        goes_through("a payload of odd length", &conn, &query.clone().payload(1459)),
        goes_through("a frame of 1514 bytes", &conn, &answer.clone().payload(1460)),
        goes_through("a frame of 3000 bytes", &jumbo, &answer.clone().payload(2946)),
        // A test run gives a TC program at most one page of packet.
        goes_through("a jumbo frame of 9000 bytes", &jumbo, &answer.clone().payload(8946)).only_at(Hook::Xdp),
        case("an IP packet whose end the hook cannot see")
            .given(&[&conn])
            .translates(&conn, &query.clone().claims_ip_len(1500))
            .leaves_roughly(&[&conn]),
        goes_through("a wrong checksum from the client stays as wrong", &conn, &query.clone().bad_checksum()),
        goes_through("a wrong checksum from the backend stays as wrong", &conn, &answer.clone().bad_checksum()),
        goes_through("a checksum off by one stays so", &conn, &answer.clone().checksum_off_by(1)),
    ];
    run(&cases);
}

#[test]
fn xdp_leaves_to_tc_what_it_cannot_do() {
    let conn = flow().established();
    let half_open = flow();
    let time_wait = Flow::mysql("10.80.1.1:40000", SERVER2).in_state(State::TimeWait);
    let deferred = |name: &str, packet: &Packet<Tcp>| goes_through(name, &conn, packet).deferred_by_xdp();
    let (query, answer) = (conn.client_ack().payload(100), conn.backend_ack().payload(100));
    let fin = conn.client_ack().fin().partial_checksum();
    let rst = conn.client().rst().seq(7).partial_checksum();
    let syn = half_open.client_syn().partial_checksum();
    let again = half_open.client_syn().seq(777_000).partial_checksum();
    let closed = conn.client_ack().rst().vlan(7);
    let all_at_once = query.clone().vlan(7).ip_options(&[1; 12]).tcp_options(&[1; 12]).partial_checksum();
    let mut cases = vec![
        deferred("an unfinished checksum from the client", &query.clone().partial_checksum()),
        deferred("an unfinished checksum from the backend", &answer.clone().partial_checksum()),
        deferred("a client's packet in a VLAN leaves without the tag", &query.clone().vlan(7)),
        deferred("a backend's packet in a VLAN leaves without the tag", &answer.clone().vlan(4094)),
        deferred("a packet in two VLANs leaves without the tags", &query.clone().qinq(100, 7)),
        deferred("a packet in a VLAN with options and an unfinished checksum", &all_at_once),
        case("a SYN with an unfinished checksum opens a conn")
            .translates(&half_open, &syn)
            .deferred_by_xdp()
            .counts(&[Opened, HopLookup])
            .leaves(&[&half_open]),
        case("a SYN+ACK with an unfinished checksum returns")
            .given(&[&half_open])
            .translates(&half_open, &half_open.backend_syn_ack().partial_checksum())
            .deferred_by_xdp()
            .counts(&[HopLookup])
            .leaves(&[&half_open.answered()]),
        case("the last ACK of a handshake with an unfinished checksum completes it")
            .given(&[&half_open.answered()])
            .translates(&half_open, &half_open.answered().client_ack().partial_checksum())
            .deferred_by_xdp()
            .counts(&[Counter::Established])
            .tells(EventKind::Established, &conn)
            .leaves(&[&conn]),
        case("a FIN with an unfinished checksum closes a side")
            .given(&[&conn])
            .translates(&conn, &fin)
            .deferred_by_xdp()
            .tells(EventKind::Closing, &conn.after(&fin))
            .leaves(&[&conn.after(&fin)]),
        case("a RST in a VLAN closes the conn")
            .given(&[&conn])
            .translates(&conn, &closed)
            .deferred_by_xdp()
            .tells(EventKind::Closed, &conn.after(&closed).client_sent(flag::RST))
            .leaves(&[&conn.after(&closed).client_sent(flag::RST)]),
        case("a blind RST with an unfinished checksum is counted once")
            .given(&[&conn])
            .translates(&conn, &rst)
            .deferred_by_xdp()
            .counts(&[BlindRst])
            .leaves_roughly(&[&conn]),
        case("a SYN with an unfinished checksum on a closed conn starts a new one")
            .given(&[&time_wait])
            .translates(&half_open, &again)
            .deferred_by_xdp()
            .counts(&[Reused, Opened, HopLookup])
            .tells(EventKind::Replaced, &time_wait)
            .leaves(&[&half_open.opened_by(&again)]),
    ];
    cases.push({
        let stranger = lb_tests::packet::tcp().from("203.0.113.9:1").to("198.51.100.9:2").syn().partial_checksum();
        case("a stranger's unfinished checksum is nobody's business").frame(Port::Ext, stranger.build())
    });
    run(&cases);
}

#[test]
fn the_next_hop_is_where_the_kernel_says() {
    let site = |server: &str| Site::new().service("10.80.1.243:3306", Scheduler::Rr, &[&format!("{server}:3306")]);
    let flow = |client: &str, server: &str| {
        let client = format!("{client}:40000");
        Flow::opened(&site(server), &client, "10.80.1.243:3306", &format!("{server}:3306"))
    };
    let same_side = flow(CLIENT, SERVER_EXT);
    let far = flow(CLIENT_FAR, SERVER1);
    let lost = flow(CLIENT, SERVER_LOST);
    let silent = flow(CLIENT, SERVER_SILENT);
    let unsent = {
        let mut flow = lost.clone();
        (flow.forward.bytes, flow.forward.hop) = (0, false);
        flow
    };
    let unknown = flow("203.0.113.77", SERVER1).answered().without_hops();
    let asked = silent.established().without_hops();
    let query = asked.client_ack().payload(10);
    // The kernel writes the link-layer header anew; until then it is the frame's own.
    let to_silent = silent.translated(&silent.client_syn()).macs(mac_of(CLIENT), EXT_MAC);
    run(&[
        case("a server on the clients' side gets its packets by the way they came")
            .at(&site(SERVER_EXT))
            .translates(&same_side, &same_side.client_syn())
            .counts(&[Opened, HopLookup])
            .leaves(&[&same_side])
            .translates(&same_side, &same_side.backend_syn_ack())
            .counts(&[HopLookup])
            .leaves(&[&same_side.answered()]),
        case("a client behind a router is reached through it")
            .given(&[&far])
            .translates(&far, &far.backend_syn_ack())
            .counts(&[HopLookup])
            .leaves(&[&far.answered()]),
        case("a SYN for a server without a route is dropped")
            .at(&site(SERVER_LOST))
            .from_client(&lost.client_syn())
            .dropped(NoRoute)
            .counts(&[Opened, HopLookup])
            .leaves(&[&unsent]),
        case("an answer to a client without a route is dropped")
            .given(&[&unknown])
            .from_backend(&unknown.backend_ack().payload(3))
            .dropped(NoRoute)
            .counts(&[HopLookup]),
        case("TC lets the kernel ask for a neighbour that it does not know")
            .at(&site(SERVER_SILENT))
            .given(&[&asked])
            .sends(&asked, &query, &asked.translated(&query).macs([0; 6], [0; 6]))
            .deferred_by_xdp()
            .xdp_counts(&[HopLookup])
            .counts(&[HopLookup])
            .leaves(&[&asked.after(&query).without_hops()]),
        case("TC sends a SYN to a neighbour that the kernel does not know")
            .at(&site(SERVER_SILENT))
            .sends(&silent, &silent.client_syn(), &to_silent)
            .counts(&[Opened, HopLookup])
            .leaves(&[&silent.without_hops()])
            .only_at(Hook::Tc),
    ]);
}

//! ICMP errors about packets of a conn through both programs: translated outside and in the quote, both ways.
//!
//! RFC 792 and RFC 1812 §4.3.2 for the errors, RFC 5508 §4 for what a NAT does with them.

use lb_common::counter::Counter::{HopLookup, IcmpError, Ttl};
use lb_tests::{
    packet::{Icmp, Packet, Tcp, icmp_echo, icmp_error, tcp, udp},
    prog::{Case, Flow, Port, case, network::*, run},
};

/// A router on the clients' side.
const ROUTER: &str = "10.80.1.2";

fn flow() -> Flow {
    Flow::mysql("10.80.1.1:40000", SERVER1).established()
}

/// An answer of the backend as the clients' side knows it, and as the backend sent it, when its TTL is 60.
fn answer(flow: &Flow) -> (Packet<Tcp>, Packet<Tcp>) {
    let sent = flow.backend_ack().payload(1460).ttl(60);
    (sent.clone().from(flow.service).to(flow.client), sent)
}

/// A query of the client as the servers' side knows it, and as the client sent it, when its TTL is 60.
fn query(flow: &Flow) -> (Packet<Tcp>, Packet<Tcp>) {
    let sent = flow.client_ack().payload(100).ttl(60);
    (sent.clone().from((*flow.client.ip(), flow.client_port)).to(flow.backend), sent)
}

/// An error of a router on the clients' side about an answer, and how it reaches the backend.
fn about_answer(flow: &Flow, error: impl Fn(&[u8]) -> Packet<Icmp>) -> (Packet<Icmp>, Packet<Icmp>) {
    let (seen, sent) = answer(flow);
    let come = error(&seen.ip_bytes()).from(ROUTER).to(flow.service.ip().to_string().as_str());
    let left = error(&sent.ip_bytes()).from(ROUTER).to(flow.backend.ip().to_string().as_str());
    (come.macs(mac_of(ROUTER), EXT_MAC), left.ttl(63).macs(INT_MAC, mac_of(SERVER1)))
}

/// An error of the backend's host about a query, and how it reaches the client.
fn about_query(flow: &Flow, error: impl Fn(&[u8]) -> Packet<Icmp>) -> (Packet<Icmp>, Packet<Icmp>) {
    let (seen, sent) = query(flow);
    let come = error(&seen.ip_bytes()).from(SERVER1).to(CLIENT).macs(mac_of(SERVER1), INT_MAC);
    let left = error(&sent.ip_bytes()).from(VIP).to(CLIENT).ttl(63).macs(EXT_MAC, mac_of(CLIENT));
    (come, left)
}

fn relays(name: &str, flow: &Flow, port: Port, (come, left): (Packet<Icmp>, Packet<Icmp>)) -> Case {
    case(name).given(&[flow]).frame(port, come.build()).relayed(left.build()).counts(&[IcmpError])
}

/// A router quotes as much as fits into 576 bytes (RFC 1812 §4.3.2.3).
fn needs_frag(quote: &[u8]) -> Packet<Icmp> {
    icmp_error(3, 4, 1400, quote).quotes(548)
}

#[test]
fn errors_find_their_way_through_the_nat() {
    let flow = flow();
    let half_open = Flow::mysql("10.80.1.1:40000", SERVER1);
    let remapped = flow.remapped_to(50_000);
    let stale = flow.without_hops();
    let mut hop_known = stale.clone();
    hop_known.forward.hop = true;
    let short = |quote: &[u8]| needs_frag(quote).quotes(28);
    let odd = |quote: &[u8]| needs_frag(quote).quotes(51);
    let quoted_options = {
        let (seen, sent) = answer(&flow);
        let with = |packet: Packet<Tcp>| needs_frag(&packet.ip_options(&[1; 12]).ip_bytes());
        let come = with(seen).from(ROUTER).to(VIP).macs(mac_of(ROUTER), EXT_MAC);
        (come, with(sent).from(ROUTER).to(SERVER1).ttl(63).macs(INT_MAC, mac_of(SERVER1)))
    };
    let both = |error: fn(&[u8]) -> Packet<Icmp>| (about_answer(&flow, error), about_query(&flow, error));
    let mut cases = vec![
        relays("a quote of all of a big packet", &flow, Port::Ext, {
            about_answer(&flow, |quote| icmp_error(3, 4, 1400, quote))
        }),
        relays("fragmentation needed, from a client's router to the backend", &flow, Port::Ext, both(needs_frag).0),
        relays("fragmentation needed, from the backend's host to the client", &flow, Port::Int, both(needs_frag).1),
        relays("a quote of eight bytes of TCP", &flow, Port::Ext, about_answer(&flow, short)),
        relays("a quote of eight bytes of TCP, to the client", &flow, Port::Int, about_query(&flow, short)),
        relays("a quote of odd length", &flow, Port::Ext, about_answer(&flow, odd)),
        relays("a quote with IP options", &flow, Port::Ext, quoted_options),
        relays("a packet with outer IP options", &flow, Port::Ext, {
            about_answer(&flow, |quote| needs_frag(quote).ip_options(&[1; 8]))
        }),
        relays("an error in a VLAN leaves without the tag", &flow, Port::Ext, {
            let (come, left) = about_answer(&flow, needs_frag);
            (come.vlan(7), left)
        })
        .deferred_by_xdp(),
        relays("an error with padding", &flow, Port::Ext, about_answer(&flow, |quote| short(quote).padded())),
        relays("an error about a SYN", &half_open, Port::Int, about_query(&half_open.answered(), needs_frag))
            .counts(&[HopLookup])
            .leaves(&[&{
                let mut flow = half_open.clone();
                flow.reverse.hop = true;
                flow
            }]),
        relays("an error about a conn with another port, to the backend", &remapped, Port::Ext, {
            about_answer(&remapped, needs_frag)
        }),
        relays("an error about a conn with another port, to the client", &remapped, Port::Int, {
            about_query(&remapped, needs_frag)
        }),
        relays("an error looks up a next hop that is not known", &stale, Port::Ext, about_answer(&stale, needs_frag))
            .counts(&[HopLookup])
            .leaves(&[&hop_known]),
    ];
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (12, 0)] {
        let error = |quote: &[u8]| icmp_error(kind, code, 0, quote);
        cases.push(relays(
            &format!("type {kind} code {code} to the client"),
            &flow,
            Port::Int,
            about_query(&flow, error),
        ));
        cases.push(relays(&format!("type {kind} code {code} to the backend"), &flow, Port::Ext, {
            about_answer(&flow, error)
        }));
    }
    run(&cases);
}

#[test]
fn other_icmp_passes() {
    let flow = flow();
    let quote = answer(&flow).0;
    let passes = |name: &str, packet: Packet<Icmp>| {
        case(name).given(&[&flow]).frame(Port::Ext, packet.from(ROUTER).to(VIP).macs(mac_of(ROUTER), EXT_MAC).build())
    };
    let other_port = tcp().from("10.80.1.243:3306").to("10.80.1.1:40001").ack(7);
    let datagram = udp().from("10.80.1.243:3306").to("10.80.1.1:40000").payload(40);
    let (spent, _) = about_answer(&flow, needs_frag);
    let (spent_back, _) = about_query(&flow, needs_frag);
    let mut cases = vec![
        passes("a ping", icmp_echo(7, 7)),
        passes("a redirect that quotes a conn", icmp_error(5, 1, 0, &quote.ip_bytes())),
        passes("a source quench that quotes a conn", icmp_error(4, 0, 0, &quote.ip_bytes())),
        passes("an error about a segment of no conn", needs_frag(&other_port.ip_bytes())),
        passes("an error about UDP with a conn's ports", needs_frag(&datagram.ip_bytes())),
        passes("an error about a later fragment", needs_frag(&quote.clone().fragment(1480, false).ip_bytes())),
        passes("an error that is a fragment", needs_frag(&quote.ip_bytes()).fragment(0, true)),
        passes("an error whose quote has a short IP header", {
            needs_frag(&quote.clone().claims_ip_header(16).ip_bytes())
        }),
        case("an error to the backend with TTL 1 ends here")
            .given(&[&flow])
            .frame(Port::Ext, spent.clone().ttl(1).build())
            .dropped(Ttl),
        case("an error to the client with TTL 1 passes").given(&[&flow]).frame(Port::Int, spent_back.ttl(1).build()),
    ];
    for len in 34..34 + 8 + 20 + 8 {
        cases.push(
            case(format!("an error cut to {len} bytes"))
                .given(&[&flow])
                .frame(Port::Ext, spent.clone().truncate(len).build()),
        );
    }
    run(&cases);
}

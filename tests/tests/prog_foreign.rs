//! What is not ours: every such frame passes both programs byte by byte, and leaves no trace but a counter.

use std::net::Ipv6Addr;

use lb_common::counter::Counter::Malformed;
use lb_tests::{
    packet::{arp_reply, arp_request, ether, flag, frame, icmp_echo, icmp_error, ipv4, ipv6_tcp, tcp, udp},
    prog::{Case, Flow, Hook, Port, Site, case, network::*, run},
};

const SERVICE: &str = "10.80.1.243:3306";

/// A frame that passes while a conn is in the table.
fn passes(name: &str, port: Port, frame: Vec<u8>) -> Case {
    case(name).given(&[&flow()]).frame(port, frame)
}

fn flow() -> Flow {
    Flow::mysql("10.80.1.1:40000", SERVER1).established()
}

#[test]
fn other_tcp_passes() {
    let syn = || tcp().macs(mac_of(CLIENT), EXT_MAC).syn().seq(7);
    let answer = || tcp().macs(mac_of(SERVER1), INT_MAC).ack(1001).seq(500_001);
    let other_port = || syn().from("10.80.1.1:40000").to("10.80.1.243:3307");
    let mut cases = vec![
        passes("a SYN for another port of the VIP", Port::Ext, other_port().build()),
        passes("a SYN for another address, the same port", Port::Ext, {
            syn().from("10.80.1.1:40000").to("10.80.1.241:3306").build()
        }),
        passes("a SYN for a backend itself", Port::Ext, {
            syn().from("10.80.1.1:40000").to("192.168.80.167:3306").build()
        }),
        passes("ssh to the director", Port::Ext, syn().from("10.80.1.1:50022").to("10.80.1.241:22").build()),
        passes("a packet between strangers", Port::Ext, syn().from("203.0.113.9:1").to("198.51.100.9:2").build()),
        passes("a packet of a conn's client from another port to a stranger", Port::Ext, {
            syn().from("10.80.1.1:40000").to("10.80.1.9:3306").build()
        }),
        passes("an answer of a backend to another port of the client", Port::Int, {
            answer().from("192.168.80.167:3306").to("10.80.1.1:40001").build()
        }),
        passes("an answer of the other backend to the client", Port::Int, {
            answer().from("192.168.80.136:3306").to("10.80.1.1:40000").build()
        }),
        passes("an answer of the backend from another port", Port::Int, {
            answer().from("192.168.80.167:3307").to("10.80.1.1:40000").build()
        }),
        passes("a packet from the VIP", Port::Int, answer().from(SERVICE).to("10.80.1.1:40000").build()),
        passes("a packet of a backend to itself", Port::Int, {
            answer().from("192.168.80.167:3306").to("192.168.80.167:3306").build()
        }),
        passes("a SYN for the VIP in a frame for another host", Port::Ext, {
            tcp().macs(mac_of(CLIENT), mac_of(SERVER1)).syn().seq(7).from("10.80.1.1:40001").to(SERVICE).build()
        }),
        passes("a SYN for the VIP in a broadcast frame", Port::Ext, {
            tcp().macs(mac_of(CLIENT), [0xff; 6]).syn().seq(7).from("10.80.1.1:40001").to(SERVICE).build()
        }),
        passes("a packet of the conn in a frame for another host", Port::Ext, {
            flow().client_ack().macs(mac_of(CLIENT), mac_of(SERVER1)).build()
        }),
        case("a SYN for the VIP when no service is configured")
            .at(&Site::new())
            .frame(Port::Ext, syn().from("10.80.1.1:40000").to(SERVICE).build()),
        passes("the same 5-tuple in a later fragment", Port::Ext, {
            syn().from("10.80.1.1:40000").to(SERVICE).fragment(1480, false).build()
        }),
        passes("the same 5-tuple in a middle fragment", Port::Ext, {
            syn().from("10.80.1.1:40000").to(SERVICE).fragment(8, true).build()
        }),
        passes("the first fragment of a stranger", Port::Ext, other_port().fragment(0, true).build()),
    ];
    for flags in [flag::SYN, flag::SYN | flag::ACK, flag::ACK, flag::ACK | flag::FIN, flag::RST, 0] {
        let packet = answer().from("192.168.80.136:3306").to("10.80.1.1:40000").flags(flags).payload(9);
        cases.push(passes(
            &format!("a backend's packet with flags {flags:#04x} and no conn"),
            Port::Int,
            packet.build(),
        ));
    }
    run(&cases);
}

#[test]
fn other_protocols_pass() {
    let query = flow().client_ack().payload("SELECT 1");
    let to_vip = |proto: u8| {
        let packet = ipv4(proto, query.ip_bytes()[20..].to_vec());
        packet.macs(mac_of(CLIENT), EXT_MAC).from(CLIENT).to(VIP).build()
    };
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let needs_frag = icmp_error(3, 4, 1400, &query.ip_bytes()).from("192.0.2.1").to("192.0.2.2");
    let mac = mac_of(CLIENT);
    run(&[
        passes("UDP to the service's port", Port::Ext, udp().from("10.80.1.1:40000").to(SERVICE).payload(32).build()),
        passes("a ping to the VIP", Port::Ext, icmp_echo(1, 1).macs(mac, EXT_MAC).from(CLIENT).to(VIP).build()),
        passes("an ICMP error between strangers that quotes a conn", Port::Ext, needs_frag.build()),
        passes("GRE with a segment's bytes", Port::Ext, to_vip(47)),
        passes("ESP with a segment's bytes", Port::Ext, to_vip(50)),
        passes("VRRP with a segment's bytes", Port::Ext, to_vip(112)),
        passes("SCTP with a segment's bytes", Port::Ext, to_vip(132)),
        passes("UDP with a segment's bytes", Port::Ext, to_vip(17)),
        passes("a segment in IP version 6 under IPv4's EtherType", Port::Ext, query.clone().ip_version(6).build()),
        passes("a segment in IP version 5", Port::Ext, query.clone().ip_version(5).build()),
        passes("ARP: who has the client", Port::Ext, arp_request(EXT_MAC, VIP, CLIENT).build()),
        passes("ARP: who has the VIP, while the gate is off", Port::Ext, arp_request(mac, CLIENT, VIP).build()),
        passes("ARP: an answer", Port::Ext, arp_reply(mac, CLIENT, EXT_MAC, VIP).build()),
        passes("MySQL over IPv6", Port::Ext, {
            ipv6_tcp(v6("2001:db8::1"), v6("2001:db8::243"), &query.ip_bytes()[20..]).build()
        }),
        passes("an EtherType that nobody knows", Port::Ext, frame(0x88b5, query.ip_bytes()).build()),
        passes("LLDP", Port::Ext, frame(0x88cc, 40).build()),
        passes("an 802.3 frame with a length", Port::Ext, frame(46, 46).build()),
        passes("a stranger in a VLAN", Port::Ext, {
            tcp().from("203.0.113.9:1").to("198.51.100.9:2").syn().vlan(7).build()
        }),
        passes("a segment behind three VLAN tags", Port::Ext, query.clone().qinq(5, 6).vlan(7).build()),
        passes("a segment behind two service tags", Port::Ext, {
            let mut bytes = query.clone().qinq(5, 6).build();
            bytes[16..18].copy_from_slice(&ether::SERVICE_VLAN.to_be_bytes());
            bytes
        }),
    ]);
}

#[test]
fn broken_headers_pass() {
    let query = flow().client_ack().payload("SELECT 1");
    let broken = |name: &str, packet: Vec<u8>| passes(name, Port::Ext, packet).deferred_by_xdp().counts(&[Malformed]);
    let options = query.clone().ip_options(&[1; 8]);
    let mut cases = vec![
        broken("an IP header of 16 bytes", query.clone().claims_ip_header(16).build()),
        broken("an IP header of 0 bytes", query.clone().claims_ip_header(0).build()),
        broken("a TCP header of 16 bytes", query.clone().claims_tcp_header(16).build()),
        broken("a TCP header of 0 bytes", query.clone().claims_tcp_header(0).build()),
        broken("a TCP header longer than the packet", query.clone().claims_tcp_header(60).build()),
        broken("an IP packet shorter than its own header", query.clone().claims_ip_len(19).build()),
        broken("an IP packet that ends in the TCP header", query.clone().claims_ip_len(39).build()),
        broken("an IP packet of length 0", query.clone().claims_ip_len(0).build()),
        broken("IP options that reach into the TCP header", options.clone().claims_ip_len(47).build()),
    ];
    for (kind, tagged, packet) in [
        ("plain", false, query.clone()),
        ("with IP options", false, options),
        ("in a VLAN", true, query.clone().vlan(7)),
        ("in two VLANs with 40 bytes of IP options", true, query.clone().qinq(5, 6).ip_options(&[1; 40])),
    ] {
        // The kernel runs no program on a frame shorter than an Ethernet header.
        for len in 14..packet.transport_offset() + 20 {
            let name = format!("a segment, {kind}, cut to {len} bytes");
            let row = passes(&name, Port::Ext, packet.clone().truncate(len).build());
            // Nor a TC program on an IPv4 frame without a whole IP header: a socket buffer is never so short.
            cases.push(if !tagged && len < 14 + 20 { row.only_at(Hook::Xdp) } else { row });
        }
    }
    run(&cases);
}

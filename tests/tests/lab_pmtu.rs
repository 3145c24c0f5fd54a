//! Path-MTU discovery (RFC 1191) through the director: a link of 1,400 bytes somewhere behind a router or at the
//! director itself, DF on every packet, and nobody who clamps the MSS. A big transfer arrives only if errors reach the
//! sender: the router's, translated, or the director's own.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use lb_common::counter::Counter;
use lb_tests::lab::{Frame, Host, Lab, LabOptions, Offload, Segment, Tap, addr, wait_for};
use lb_tests::packet::{describe, tcp, verify};
use lb_userspace::datapath::{self, Tables};

const NARROW: u32 = 1400;
const MIB: u64 = 10;

/// A lab with one server, and the agent at a hook.
fn lab(mode: &str, offload: Offload) -> Lab {
    let lab = LabOptions { servers: 1, offload, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    lab.d1().start_agent(&lab.agent_options().mode(mode)).unwrap();
    lab
}

fn counted(lab: &Lab, counter: Counter) -> u64 {
    let tables = Tables::open(&datapath::versioned(&lab.d1().pin_directory())).unwrap();
    tables.counter(counter).unwrap()
}

/// What a host has learned about the way to an address.
fn learned_mtu(host: &Host, to: Ipv4Addr) -> Option<u32> {
    let shown = host.check(&["ip", "route", "get", &to.to_string()]).unwrap();
    let mut words = shown.split_ascii_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next().map(|word| word.parse().unwrap())
}

fn behind_the_client(mode: &str, offload: Offload) {
    let lab = lab(mode, offload);
    let (client, server) = (lab.client(), &lab.servers()[0]);
    lab.put_behind_narrow_link(client.host(), Segment::Client, NARROW).unwrap();
    assert_eq!(learned_mtu(server.host(), client.address()), None);

    let down = client.download(MIB).unwrap();
    assert_eq!(down.bytes, MIB << 20);
    let errors = counted(&lab, Counter::IcmpError);
    println!("{mode}: client behind {NARROW} bytes: {MIB} MiB in {:?}, {errors} ICMP errors translated", down.elapsed);
    // The server, two translations away from the router, knows it now.
    assert_eq!(learned_mtu(server.host(), client.address()), Some(NARROW));
    assert!(errors > 0 && errors < 1000, "{errors} errors");
    assert!(down.elapsed < Duration::from_secs(20), "{:?}", down.elapsed);

    let up = client.upload(MIB).unwrap();
    println!("{mode}: and back in {:?}", up.elapsed);
}

fn behind_the_director(mode: &str, offload: Offload) {
    let lab = lab(mode, offload);
    let (client, server) = (lab.client(), &lab.servers()[0]);
    lab.put_behind_narrow_link(server.host(), Segment::Server, NARROW).unwrap();
    assert_eq!(learned_mtu(client.host(), addr::VIP), None);

    let up = client.upload(MIB).unwrap();
    let errors = counted(&lab, Counter::IcmpError);
    println!("{mode}: server behind {NARROW} bytes: {MIB} MiB in {:?}, {errors} ICMP errors translated", up.elapsed);
    // The client learns it for the VIP: it knows nobody else.
    assert_eq!(learned_mtu(client.host(), addr::VIP), Some(NARROW));
    assert_eq!(learned_mtu(client.host(), server.address()), None);
    assert!(errors > 0 && errors < 1000, "{errors} errors");
    assert!(up.elapsed < Duration::from_secs(20), "{:?}", up.elapsed);

    let down = client.download(MIB).unwrap();
    println!("{mode}: and back in {:?}", down.elapsed);
}

/// The next link itself is narrow: no router but the director can tell. Both directions in one lab.
fn at_the_director(mode: &str, offload: Offload) {
    let lab = lab(mode, offload);
    let (client, server, d1) = (lab.client(), &lab.servers()[0], lab.d1().host());
    let set = |interface: &str, mtu: u32| d1.ip_batch(&format!("link set {interface} mtu {mtu}\n")).unwrap();
    set("ext0", NARROW);
    let down = client.download(MIB).unwrap();
    let told = counted(&lab, Counter::TooBig);
    println!("{mode}: {NARROW} bytes towards the client: {MIB} MiB in {:?}, {told} packets too big", down.elapsed);
    assert_eq!(learned_mtu(server.host(), client.address()), Some(NARROW));
    assert!(told > 0 && told < 1000, "{told} errors");
    assert!(down.elapsed < Duration::from_secs(20), "{:?}", down.elapsed);

    set("ext0", 1500);
    // The server would ask for short packets itself, with what it has learned.
    server.host().check(&["ip", "route", "flush", "cache"]).unwrap();
    set("int0", NARROW);
    let up = client.upload(MIB).unwrap();
    let told = counted(&lab, Counter::TooBig) - told;
    println!("{mode}: {NARROW} bytes towards the server: {MIB} MiB in {:?}, {told} packets too big", up.elapsed);
    assert_eq!(learned_mtu(client.host(), addr::VIP), Some(NARROW));
    assert!(told > 0 && told < 1000, "{told} errors");
    assert!(up.elapsed < Duration::from_secs(20), "{:?}", up.elapsed);
}

#[test]
fn ten_mebibytes_fit_through_a_narrow_link_of_the_director_tc() {
    at_the_director("tc", Offload::On);
}

#[test]
fn ten_mebibytes_fit_through_a_narrow_link_of_the_director_xdp() {
    at_the_director("xdp", Offload::Off);
}

/// A sender that leaves its checksums to a device gets the same answer as any other.
#[test]
fn the_error_about_a_packet_with_an_unfinished_checksum_is_in_order() {
    let lab = lab("tc", Offload::On);
    let client = lab.client();
    let tap = Tap::open(client.host(), "eth0").unwrap();
    let from = SocketAddrV4::new(client.address(), 41000);
    let macs = (addr::link(client.address()), addr::link(lab.d1().address(Segment::Client).unwrap()));
    for (name, options) in [("plain", 0), ("with IP options", 12)] {
        let syn = tcp().from(from).to(addr::SERVICE).macs(macs.0, macs.1).syn().seq(7).ttl(1).partial_checksum();
        let syn = syn.ip_options(&vec![1; options]);
        tap.send(&Frame::from(syn.build()).unfinished()).unwrap();
        let error = wait_for("the ICMP error", Duration::from_secs(5), || {
            let frame = tap.receive(Duration::from_millis(100))?;
            Ok(frame.filter(|frame| frame.bytes.get(23) == Some(&1)))
        })
        .unwrap();
        println!("{name}: {} {:?}", describe(&error.bytes), error.offloads);
        assert_eq!(error.bytes[34..36], [11, 0], "{name}");
        assert!(error.offloads.checksum.is_some(), "{name}: the kernel has forgotten that the checksum is unfinished");
        assert_eq!(verify(&error.finished()), Ok(()), "{name}");
        // It quotes the IP header, ports and sequence number of the packet that it is about.
        let quoted = 42..42 + 20 + options + 8;
        assert_eq!(error.bytes[quoted], syn.ip_bytes()[..20 + options + 8], "{name}");
    }
}

#[test]
fn ten_mebibytes_reach_a_client_behind_a_narrow_link_tc() {
    behind_the_client("tc", Offload::On);
}

#[test]
fn ten_mebibytes_reach_a_client_behind_a_narrow_link_xdp() {
    behind_the_client("xdp", Offload::Off);
}

#[test]
fn ten_mebibytes_reach_a_server_behind_a_narrow_link_tc() {
    behind_the_director("tc", Offload::On);
}

#[test]
fn ten_mebibytes_reach_a_server_behind_a_narrow_link_xdp() {
    behind_the_director("xdp", Offload::Off);
}

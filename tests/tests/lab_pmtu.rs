//! Path-MTU discovery (RFC 1191) through the director: a link of 1,400 bytes somewhere behind a router, DF on every
//! packet, and nobody who clamps the MSS. A big transfer arrives only if the router's errors reach the sender.

use std::net::Ipv4Addr;
use std::time::Duration;

use lb_common::counter::Counter;
use lb_tests::lab::{Host, Lab, LabOptions, Offload, Segment, addr};
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

fn errors_translated(lab: &Lab) -> u64 {
    let tables = Tables::open(&datapath::versioned(&lab.d1().pin_directory())).unwrap();
    tables.counter(Counter::IcmpError).unwrap()
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
    let errors = errors_translated(&lab);
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
    let errors = errors_translated(&lab);
    println!("{mode}: server behind {NARROW} bytes: {MIB} MiB in {:?}, {errors} ICMP errors translated", up.elapsed);
    // The client learns it for the VIP: it knows nobody else.
    assert_eq!(learned_mtu(client.host(), addr::VIP), Some(NARROW));
    assert_eq!(learned_mtu(client.host(), server.address()), None);
    assert!(errors > 0 && errors < 1000, "{errors} errors");
    assert!(up.elapsed < Duration::from_secs(20), "{:?}", up.elapsed);

    let down = client.download(MIB).unwrap();
    println!("{mode}: and back in {:?}", down.elapsed);
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

//! The settings of `[vrrp]` at work: what is tracked and who is told, a firewall in the way, unicast, virtual MACs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_tests::lab::{AgentOptions, Director, EchoServer, EchoSession, Frame, Lab, LabOptions, Tap, addr, wait_for};
use lb_userspace::control::protocol::{Status, VrrpView};
use lb_userspace::vrrp::{
    Version,
    interval::Interval,
    packet::{Auth, ChecksumKind, Sender, VirtualRouter},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);

const VIPS: &str = r#"
[[vip]]
address = "10.80.1.243/24"
interface = "ext0"
vrid = 52
[[vip]]
address = "192.168.80.111/24"
interface = "int0"
vrid = 51
[director.d1]
priority = 101
addresses = { ext0 = "10.80.1.241", int0 = "192.168.80.101" }
[director.d2]
priority = 100
addresses = { ext0 = "10.80.1.242", int0 = "192.168.80.102" }
"#;

fn lab() -> Lab {
    LabOptions { directors: 2, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap()
}

/// Starts both agents with these settings.
fn start(lab: &Lab, vrrp: &str) {
    let options = AgentOptions { extra: format!("[vrrp]\n{vrrp}\n{VIPS}"), ..lab.agent_options() };
    lab.directors().iter().for_each(|director| director.start_agent(&options).unwrap());
}

fn view(director: &Director) -> VrrpView {
    director.ctl::<Status>(&["status"]).unwrap().vrrp.expect("an election")
}

fn is_in(director: &Director, role: &str) -> VrrpView {
    let name = director.host().name();
    let found = wait_for(&format!("{name} as {role}"), LIMIT, || {
        let view = view(director);
        Ok((view.role == role).then_some(view))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {:?}", view(director)))
}

fn one_active(lab: &Lab) -> (&Director, &Director) {
    let [d1, d2] = lab.directors() else { panic!("not two directors") };
    wait_for("an Active beside a Backup", LIMIT, || {
        let roles = [view(d1).role, view(d2).role];
        Ok(match roles.each_ref().map(String::as_str) {
            ["Active", "Backup"] => Some((d1, d2)),
            ["Backup", "Active"] => Some((d2, d1)),
            _ => None,
        })
    })
    .unwrap()
}

fn holds(director: &Director, vip: Ipv4Addr) -> bool {
    director.host().check(&["ip", "-o", "-4", "addr", "show"]).unwrap().contains(&format!(" {vip}/"))
}

fn program(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn told(directory: &Path, host: &str) -> Vec<Value> {
    let text = fs::read_to_string(directory.join(format!("told-{host}"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

/// A firewall that drops what it does not know would make both Active, if adverts had to pass it.
#[test]
fn a_failing_track_moves_the_vips_the_hook_is_told_why_and_a_firewall_is_no_matter() {
    let lab = lab();
    let directory = lab.directory().to_owned();
    let here = directory.display();
    // The same file on both directors; each knows itself by its host name.
    let check = program(directory.join("check"), &format!("#!/bin/sh\ntest -e {here}/well-$(hostname)\n"));
    let hook = program(directory.join("hook"), &format!("#!/bin/sh\ncat >> {here}/told-$(hostname)\n"));
    for director in lab.directors() {
        director.firewall_default_drop().unwrap();
        fs::write(directory.join(format!("well-{}", director.host().name())), "").unwrap();
    }
    let tracks = format!(
        "notify = {hook:?}\n[[track]]\nscript = {check:?}\ninterval = \"100ms\"\ntimeout = \"5s\"\n\
         [[track]]\nprocess = \"lb-agent\""
    );
    start(&lab, &tracks);
    let (active, backup) = one_active(&lab);
    let (active_name, backup_name) = (active.host().name(), backup.host().name());

    fs::remove_file(directory.join(format!("well-{active_name}"))).unwrap();
    is_in(backup, "Active");
    let broken = is_in(active, "Fault");
    assert!(broken.cause.contains("check failed: it ended with exit status: 1"), "{broken:?}");
    assert!(!holds(active, addr::VIP) && holds(backup, addr::VIP) && holds(backup, addr::INTERNAL_VIP));
    fs::write(directory.join(format!("well-{active_name}")), "").unwrap();
    is_in(active, "Backup");
    assert_eq!(view(backup).role, "Active", "nothing moves back");

    let roles = wait_for("the hook", LIMIT, || {
        let changes = [told(&directory, active_name), told(&directory, backup_name)];
        Ok((changes[0].len() >= 4 && changes[1].len() >= 2).then_some(changes))
    });
    let [first, second] = roles.unwrap();
    let words = |changes: &[Value], key: &str| -> Vec<String> {
        changes.iter().map(|change| change[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(words(&first, "role"), ["Backup", "Active", "Fault", "Backup"]);
    assert_eq!(words(&second, "role"), ["Backup", "Active"]);
    assert_eq!(words(&first, "was")[1..], ["Backup", "Active", "Fault"]);
    assert!(words(&first, "cause")[2].contains("exit status: 1"), "{first:?}");
    assert!(words(&first, "node").iter().all(|node| node == active_name));

    // What somebody takes off an Active comes back.
    backup.host().check(&["ip", "addr", "del", "10.80.1.243/24", "dev", "ext0"]).unwrap();
    wait_for("the VIP", LIMIT, || Ok(holds(backup, addr::VIP).then_some(()))).unwrap();
    assert!(backup.agent_log().unwrap().contains("somebody took VIPs off this director: they are back"));
    assert_eq!(view(backup).role, "Active");
}

#[test]
fn unicast_adverts_count_from_the_peer_only() {
    let lab = lab();
    let tap = Tap::open(lab.client().host(), "eth0").unwrap();
    start(&lab, "unicast = true");
    let (active, backup) = one_active(&lab);
    is_in(backup, "Backup");
    // A stranger with all the right words.
    let router = VirtualRouter {
        version: Version::V3,
        vrid: 52,
        auth: Auth::None,
        interval: Interval::new(Version::V3, 10).unwrap(),
        addresses: vec![addr::VIP],
        checksum: ChecksumKind::Message,
    };
    let number = usize::from(backup.host().name() == "d2");
    let target = [Ipv4Addr::new(10, 80, 1, 241), Ipv4Addr::new(10, 80, 1, 242)][number];
    let advert = Sender { router, source: Ipv4Addr::new(10, 80, 1, 1), peer: Some(target) }.encode(254);
    let mut packet = advert;
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    packet[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
    let frame = [&addr::link(target)[..], &[2, 0, 10, 80, 1, 1, 0x08, 0x00], &packet].concat();
    tap.send(&Frame::from(frame)).unwrap();
    let after = wait_for("the counter", LIMIT, || {
        let view = view(backup);
        Ok((view.transports[0].ignored.get("peer") == Some(&1)).then_some(view))
    })
    .unwrap();
    assert_eq!(
        after.transports[0].peer,
        Some([Ipv4Addr::new(10, 80, 1, 241), Ipv4Addr::new(10, 80, 1, 242)][1 - number])
    );

    active.kill_agent().unwrap();
    is_in(backup, "Active");
    assert!(holds(backup, addr::VIP) && holds(backup, addr::INTERNAL_VIP));
    // Nothing was sent to the group, which everybody on the segment hears.
    let mut groups = 0;
    while let Some(frame) = tap.receive(Duration::ZERO).unwrap() {
        groups += usize::from(frame.bytes.starts_with(&[0x01, 0x00, 0x5e, 0x00, 0x00, 0x12]));
    }
    assert_eq!(groups, 0);
}

/// The neighbours never learn that the VIP is elsewhere: its link-layer address moves along.
#[test]
fn a_virtual_mac_moves_with_the_vips_and_connections_to_it_go_on() {
    let lab = lab();
    start(&lab, "virtual_mac = true");
    let (first, second) = one_active(&lab);
    let client = lab.client().host();
    let server = &lab.servers()[0];
    let _echo = EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)).unwrap();
    let reaches = |who: &Director| {
        let vip = addr::VIP.to_string();
        client.check(&["ping", "-c", "1", "-W", "2", &vip]).unwrap_or_else(|error| panic!("{error:#}"));
        let shown = client.check(&["ip", "neigh", "show", "to", &vip]).unwrap();
        assert!(shown.contains("lladdr 00:00:5e:00:01:34 "), "{}: {shown}", who.host().name());
        let table = lab.switch().check(&["bridge", "fdb", "show", "br", "br-client"]).unwrap();
        let port = format!("00:00:5e:00:01:34 dev {}-ext0", who.host().name());
        assert!(table.contains(&port), "{port} is not in\n{table}");
        // Through the packet path, there and back: the server's gateway has a virtual MAC, too.
        client.enter(|| EchoSession::open(addr::SERVICE, 1, LIMIT)).unwrap();
    };
    reaches(first);
    first.kill_agent().unwrap();
    is_in(second, "Active");
    reaches(second);

    // The device and the addresses of the killed agent go when it comes back; its answers went at once.
    first.restart_agent().unwrap();
    assert!(!holds(first, addr::VIP) && !holds(first, addr::INTERNAL_VIP));
    second.stop_agent().unwrap();
    is_in(first, "Active");
    reaches(first);
    let shown = second.host().check(&["ip", "-o", "link", "show", "type", "macvlan"]).unwrap();
    assert!(shown.is_empty(), "a clean stop leaves no device: {shown}");
}

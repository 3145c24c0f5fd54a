//! Two real agents: one is Active and holds both VIPs, whatever happens to the other; a broken packet path and forged
//! adverts are told by name.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use lb_tests::lab::{AgentOptions, Director, Frame, Lab, LabOptions, Tap, addr, wait_for};
use lb_userspace::control::protocol::{FailoverAnswer, Status, VrrpView};
use lb_userspace::vrrp::{
    Version,
    interval::Interval,
    packet::{Auth, ChecksumKind, Sender, VirtualRouter},
};

const LIMIT: Duration = Duration::from_secs(10);
const VRID: u8 = 52;

/// Both VIPs, VRRP 3 ten times a second, d1 the better one.
const VRRP: &str = r#"
[vrrp]
VERSION
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
[director.d2]
priority = 100
"#;

fn lab() -> Lab {
    LabOptions { directors: 2, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap()
}

fn options(lab: &Lab, version: &str) -> AgentOptions {
    AgentOptions { extra: VRRP.replace("VERSION", version), ..lab.agent_options() }
}

fn view(director: &Director) -> Result<VrrpView> {
    let status: Status = director.ctl(&["status"])?;
    status.vrrp.ok_or_else(|| anyhow::anyhow!("no election in the status of {}", director.host().name()))
}

/// The VIPs among the addresses of a director.
fn vips(director: &Director) -> Vec<Ipv4Addr> {
    let shown = director.host().check(&["ip", "-o", "-4", "addr", "show"]).unwrap();
    [addr::VIP, addr::INTERNAL_VIP].into_iter().filter(|vip| shown.contains(&format!(" {vip}/"))).collect()
}

fn both() -> Vec<Ipv4Addr> {
    vec![addr::VIP, addr::INTERNAL_VIP]
}

/// Waits until a director says that it is Active; it holds both VIPs then.
fn becomes_active(director: &Director) -> VrrpView {
    let name = director.host().name().to_owned();
    let view = wait_for(&format!("{name} as Active"), LIMIT, || {
        let view = view(director)?;
        Ok((view.role == "Active").then_some(view))
    })
    .unwrap();
    assert_eq!(vips(director), both(), "{name}");
    assert!(view.answers_arp);
    view
}

/// Waits until either of two directors is Active; answers it, and the other.
fn one_active(lab: &Lab) -> (&Director, &Director) {
    let [d1, d2] = lab.directors() else { panic!("not two directors") };
    wait_for("an Active", LIMIT, || {
        let roles = [view(d1)?.role, view(d2)?.role];
        Ok(match roles.each_ref().map(String::as_str) {
            ["Active", "Backup"] => Some((d1, d2)),
            ["Backup", "Active"] => Some((d2, d1)),
            _ => None,
        })
    })
    .unwrap()
}

/// Every question for a VIP gets one answer, this director's.
fn answers_alone(lab: &Lab, director: &Director) {
    let number = u8::from(director.host().name() == "d2");
    let askers = lab.askers().unwrap();
    assert!(askers.len() >= 2);
    for asker in askers {
        let own = if asker.vip() == addr::VIP { [10, 80, 1, 241 + number] } else { [192, 168, 80, 101 + number] };
        for _ in 0..3 {
            let answers = asker.ask(Duration::from_millis(100)).unwrap();
            assert_eq!(answers, [addr::link(own.into())], "{} asks for {}", asker.name(), asker.vip());
        }
    }
}

#[test]
fn both_vips_are_on_one_director_and_follow_each_other_through_deaths_and_returns() {
    let lab = lab();
    let options = options(&lab, "");
    for director in lab.directors() {
        director.start_agent(&options).unwrap();
    }
    let (active, backup) = one_active(&lab);
    assert_eq!((vips(active), vips(backup)), (both(), vec![]));
    answers_alone(&lab, active);

    // Killed without a word: its addresses stay, but it answers for them no more.
    active.kill_agent().unwrap();
    let view_of_new = becomes_active(backup);
    assert_eq!(view_of_new.cause, "no adverts from anybody");
    assert_eq!(vips(active), both(), "nobody took them off");
    answers_alone(&lab, backup);

    // What it left goes when it comes back, and nothing moves.
    active.restart_agent().unwrap();
    assert_eq!(view(active).unwrap().role, "Backup");
    assert_eq!((vips(active), vips(backup)), (vec![], both()));
    let log = active.agent_log().unwrap();
    for vip in ["10.80.1.243/24 off ext0", "192.168.80.111/24 off int0"] {
        assert!(log.contains(&format!("took {vip}: an agent that ended without a word left it")), "{log}");
    }

    // A clean stop hands over.
    assert!(backup.stop_agent().unwrap().success());
    assert!(vips(backup).is_empty());
    assert_eq!(becomes_active(active).cause, "the peer gave up");

    // What the operator configured himself goes, too, with a word to him.
    backup.host().check(&["ip", "addr", "add", "10.80.1.243/32", "dev", "ext0"]).unwrap();
    backup.restart_agent().unwrap();
    assert!(vips(backup).is_empty());
    assert!(backup.agent_log().unwrap().contains("it is a VIP, and no agent put it there"));

    // On the operator's word, there and back.
    let refused = backup.lbctl(&["failover"]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let answer: FailoverAnswer = active.ctl(&["failover", "--drill"]).unwrap();
    let roles: Vec<_> = answer.steps.iter().map(|step| step.role.as_str()).collect();
    assert_eq!(roles, ["Backup", "Active"], "{answer:?}");
    let (now_active, _) = one_active(&lab);
    assert_eq!(now_active.host().name(), active.host().name());

    // A link that goes down takes both VIPs along, and the cause is known.
    active.host().check(&["ip", "link", "set", "int0", "down"]).unwrap();
    becomes_active(backup);
    let broken = view(active).unwrap();
    assert_eq!((broken.role.as_str(), broken.cause.as_str()), ("Fault", "int0 down"));
    assert!(vips(active).is_empty());
    active.host().check(&["ip", "link", "set", "int0", "up"]).unwrap();
    wait_for("recovery", LIMIT, || Ok((view(active)?.role == "Backup").then_some(()))).unwrap();
}

/// The packet path is what makes a director one.
#[test]
fn the_vips_leave_a_director_whose_packet_path_is_broken_and_the_status_says_how() {
    let lab = lab();
    let options = options(&lab, "");
    for director in lab.directors() {
        director.start_agent(&options).unwrap();
    }
    type Break = fn(&Director, u64);
    let detach: Break = |director, link| {
        director.host().check(&["bpftool", "link", "detach", "id", &link.to_string()]).unwrap();
    };
    let unpin: Break = |director, _| std::fs::remove_file(director.pins().join("conns")).unwrap();
    for (what, breaks, cause) in [
        ("a detached program", detach, "packet path failed: the program on ext0 (tc) was detached"),
        ("a lost map", unpin, "packet path failed: the map conns is gone"),
    ] {
        let (active, backup) = one_active(&lab);
        let link = active.links().unwrap()["link_ext0_tc"].link;
        breaks(active, link);
        becomes_active(backup);
        assert!(vips(active).is_empty(), "{what}");
        let broken = view(active).unwrap();
        assert_eq!(broken.role, "Fault", "{what}");
        assert!(broken.cause.starts_with(cause), "{what}: {broken:?}");
        assert!(broken.faults.iter().any(|fault| fault.starts_with(cause)), "{what}: {broken:?}");
        assert!(active.agent_log().unwrap().contains(cause), "{what}");

        // Started anew, it makes itself another one.
        active.stop_agent().unwrap();
        active.restart_agent().unwrap();
        assert_eq!(view(active).unwrap().role, "Backup", "{what}");
    }
}

/// Everything on the segment may send adverts; what does not belong here changes nothing, and has its counter.
#[test]
fn forged_adverts_change_nothing_and_are_counted_by_cause() {
    let lab = lab();
    let options = options(&lab, "version = 2\nauth = \"1111\"");
    for director in lab.directors() {
        director.start_agent(&options).unwrap();
    }
    let (active, backup) = one_active(&lab);
    let before = [view(active).unwrap(), view(backup).unwrap()];

    let router = VirtualRouter {
        version: Version::V2,
        vrid: VRID,
        auth: Auth::pass("1111").unwrap(),
        interval: Interval::SECOND,
        addresses: vec![addr::VIP],
        checksum: ChecksumKind::Message,
    };
    let source = Ipv4Addr::new(10, 80, 1, 250);
    let good = |router: VirtualRouter| Sender { router, source, peer: None };
    let advert = good(router.clone()).encode(254);
    let edited = |at: usize, value: u8| {
        let mut packet = advert.clone();
        packet[at] = value;
        packet
    };
    let with = |edit: fn(&mut VirtualRouter)| {
        let mut other = router.clone();
        edit(&mut other);
        good(other).encode(254)
    };
    let forged = [
        ("ttl", edited(8, 254)),
        ("length", advert[..24].to_vec()),
        ("version", edited(20, 0x31)),
        ("type", edited(20, 0x22)),
        ("vrid", with(|router| router.vrid = 99)),
        ("address_count", with(|router| router.addresses.push(Ipv4Addr::new(10, 80, 1, 9)))),
        ("address_list", with(|router| router.addresses = vec![Ipv4Addr::new(10, 80, 1, 9)])),
        ("checksum", edited(22, 253)),
        ("auth_type", with(|router| router.auth = Auth::None)),
        ("auth_data", with(|router| router.auth = Auth::pass("1112").unwrap())),
        ("interval", with(|router| router.interval = Interval::new(Version::V2, 200).unwrap())),
        ("owner", good(router.clone()).encode(255)),
    ];
    let tap = Tap::open(lab.client().host(), "eth0").unwrap();
    let mut all: Vec<Vec<u8>> = forged.iter().map(|(_, packet)| packet.clone()).collect();
    // Cut and prolonged to every length but its own: that one would be a true advert, with the true password.
    let lengths = (0..=100).filter(|length| *length != advert.len());
    all.extend(lengths.map(|length| advert.iter().copied().chain([0xff; 100]).take(length).collect()));
    for packet in &all {
        tap.send(&Frame::from(framed(packet))).unwrap();
    }

    for (director, before) in [active, backup].into_iter().zip(&before) {
        let after = wait_for("the counters", LIMIT, || {
            let after = view(director)?;
            let ignored = &after.transports[0].ignored;
            let counted = |name: &&str| ignored.get(*name).copied().unwrap_or_default() > 0;
            Ok(forged.iter().map(|(name, _)| name).all(counted).then_some(after))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", view(director)));
        assert_eq!((&after.role, &after.cause), (&before.role, &before.cause));
        assert!(after.since_ms >= before.since_ms);
        assert_eq!(after.alarms, before.alarms);
    }
    assert_eq!((vips(active), vips(backup)), (both(), vec![]));
}

/// An Ethernet frame to the group, with the header checksum that a raw socket would have got from the kernel.
fn framed(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.len() >= 20 {
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    let mut frame = vec![0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 2, 0, 10, 80, 1, 250, 0x08, 0x00];
    frame.extend(packet);
    frame
}

//! Packets as they were seen on a wire, each check with the smallest change that trips it, and arbitrary bytes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::vrrp::PRIORITY_OWNER;

const D1: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 241);
const D2: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 242);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 243);

/// keepalived 2.2.7, `auth_type PASS`, `auth_pass 1111`, `advert_int 1`, priority 101, as captured.
const KEEPALIVED_V2_PASS: &str = "45c00028 00010000 ff70ce51 0a5001f1 e0000012
                                  21346501 01010a24 0a5001f3 31313131 00000000";
/// The same without authentication, as captured.
const KEEPALIVED_V2_NONE: &str = "45c00028 00010000 ff70ce51 0a5001f1 e0000012
                                  21346501 00016d86 0a5001f3 00000000 00000000";
/// The same with `version 3` and `advert_int 0.1`, as captured: it sums a pseudo-header.
const KEEPALIVED_V3: &str = "45c00020 00010000 ff70ce59 0a5001f1 e0000012 31346501 000a70ad 0a5001f3";
/// The same message with the checksum of RFC 9568, by hand: 3134 + 6501 + 000a + 0a50 + 01f3 = a282, inverted 5d7d.
const RFC_V3: &str = "45c00020 00010000 ff70ce59 0a5001f1 e0000012 31346501 000a5d7d 0a5001f3";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn router(version: Version, auth: Auth, checksum: ChecksumKind) -> VirtualRouter {
    let centis = if version == Version::V2 { 100 } else { 10 };
    let interval = Interval::new(version, centis).unwrap();
    VirtualRouter { version, vrid: 52, auth, interval, addresses: vec![VIP], checksum }
}

fn v2_pass() -> VirtualRouter {
    router(Version::V2, Auth::pass("1111").unwrap(), ChecksumKind::Message)
}

fn v2_none() -> VirtualRouter {
    router(Version::V2, Auth::None, ChecksumKind::Message)
}

fn v3() -> VirtualRouter {
    router(Version::V3, Auth::None, ChecksumKind::Message)
}

fn receiver(router: VirtualRouter) -> Receiver {
    Receiver { router, address: D2, owner: false, accept_owner: false, peers: Vec::new() }
}

/// The checksum as RFC 1071 §4.1 computes it, byte by byte, with end-around carry at every step.
fn oracle(bytes: &[u8]) -> u16 {
    let mut sum: u16 = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let word = u16::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
        let (next, carry) = sum.overflowing_add(word);
        sum = next + u16::from(carry);
    }
    !sum
}

/// Puts the right checksum over the message alone into a changed packet.
fn repair(packet: &mut [u8]) {
    packet[26..28].fill(0);
    let sum = oracle(&packet[20..]);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn packets_of_keepalived_and_of_the_rfc_are_understood() {
    for (name, hex, router, checksum, other_checksum) in [
        ("v2 PASS", KEEPALIVED_V2_PASS, v2_pass(), ChecksumKind::Message, false),
        ("v2 none", KEEPALIVED_V2_NONE, v2_none(), ChecksumKind::Message, false),
        ("v3 keepalived", KEEPALIVED_V3, v3(), ChecksumKind::PseudoHeader, true),
        ("v3 RFC", RFC_V3, v3(), ChecksumKind::Message, false),
    ] {
        let expected = Advert {
            source: D1,
            destination: GROUP,
            priority: 101,
            interval: router.interval,
            checksum,
            notes: Notes { other_checksum, ..Notes::default() },
        };
        assert_eq!(receiver(router).decode(&bytes(hex)), Ok(expected), "{name}");
    }
}

#[test]
fn what_we_send_is_what_keepalived_sends() {
    let pseudo = router(Version::V3, Auth::None, ChecksumKind::PseudoHeader);
    for (name, hex, router) in [
        ("v2 PASS", KEEPALIVED_V2_PASS, v2_pass()),
        ("v2 none", KEEPALIVED_V2_NONE, v2_none()),
        ("v3 keepalived", KEEPALIVED_V3, pseudo),
        ("v3 RFC", RFC_V3, v3()),
    ] {
        let sent = Sender { router, source: D1, peer: None }.encode(101);
        let mut captured = bytes(hex);
        // The kernel fills in the identification and the header's checksum.
        captured[4..6].fill(0);
        captured[10..12].fill(0);
        assert_eq!(sent, captured, "{name}");
    }
}

#[test]
fn a_unicast_peer_is_in_the_header_and_in_the_pseudo_header() {
    let router = router(Version::V3, Auth::None, ChecksumKind::PseudoHeader);
    let packet = Sender { router: router.clone(), source: D1, peer: Some(D2) }.encode(0);
    assert_eq!(packet[16..20], D2.octets());
    let mut covered = [D1.octets(), D2.octets(), [0, 112, 0, 12]].concat();
    covered.extend(&packet[20..]);
    assert_eq!(oracle(&covered), 0);
    let advert = receiver(router).decode(&packet).unwrap();
    assert_eq!((advert.destination, advert.priority, advert.checksum), (D2, 0, ChecksumKind::PseudoHeader));
}

/// A change of a good packet or of the receiver, and what becomes of it.
type Case = (&'static str, fn(&mut Vec<u8>, &mut Receiver), Result<(), DecodeError>);

fn check(good: &str, router: &VirtualRouter, cases: &[Case]) {
    for (name, change, expected) in cases {
        let (mut packet, mut receiver) = (bytes(good), receiver(router.clone()));
        assert!(receiver.decode(&packet).is_ok());
        change(&mut packet, &mut receiver);
        assert_eq!(receiver.decode(&packet).map(|_| ()), *expected, "{name}");
    }
}

/// Cuts or pads a packet and says so in the IP header.
fn resize(packet: &mut Vec<u8>, length: usize) {
    packet.resize(length, 0);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
}

#[test]
fn the_ip_header_must_be_right_in_either_version() {
    let cases: &[Case] = &[
        ("nothing", |p, _| p.clear(), Err(DecodeError::IpHeader)),
        ("half a header", |p, _| p.truncate(19), Err(DecodeError::IpHeader)),
        ("IPv6", |p, _| p[0] = 0x65, Err(DecodeError::IpHeader)),
        ("a header of 16 bytes", |p, _| p[0] = 0x44, Err(DecodeError::IpHeader)),
        ("a header longer than the packet", |p, _| p[0] = 0x4f, Err(DecodeError::IpHeader)),
        ("more announced than there", |p, _| p[3] += 1, Err(DecodeError::IpHeader)),
        ("less announced than the header", |p, _| p[3] = 19, Err(DecodeError::IpHeader)),
        ("TCP", |p, _| p[9] = 6, Err(DecodeError::IpHeader)),
        ("forwarded once", |p, _| p[8] = 254, Err(DecodeError::Ttl)),
        ("TTL 1", |p, _| p[8] = 1, Err(DecodeError::Ttl)),
        ("padding of the link layer", |p, _| p.extend([0; 6]), Ok(())),
        ("no message", |p, _| resize(p, 20), Err(DecodeError::Length)),
        ("half a message header", |p, _| resize(p, 27), Err(DecodeError::Length)),
        ("no address left", |p, _| resize(p, 31), Err(DecodeError::Length)),
        (
            "IP options",
            |p, _| {
                p.splice(20..20, [1, 1, 1, 1]);
                p[0] = 0x46;
                p[3] += 4;
            },
            Ok(()),
        ),
        ("from ourselves", |_, r| r.address = D1, Err(DecodeError::OwnAddress)),
        ("from a peer", |_, r| r.peers = vec![D1], Ok(())),
        ("from a stranger", |_, r| r.peers = vec![D2], Err(DecodeError::Peer)),
        ("of another virtual router", |_, r| r.router.vrid = 51, Err(DecodeError::Vrid)),
    ];
    check(KEEPALIVED_V2_PASS, &v2_pass(), cases);
    check(RFC_V3, &v3(), cases);
}

#[test]
fn version_2_checks_all_that_rfc_3768_wants() {
    let forged = |at: usize, value: u8| {
        let mut packet = bytes(KEEPALIVED_V2_PASS);
        packet[at] = value;
        repair(&mut packet);
        receiver(v2_pass()).decode(&packet).map(|advert| advert.priority)
    };
    for (name, at, value, expected) in [
        ("version 3", 20, 0x31, Err(DecodeError::Version)),
        ("version 1", 20, 0x11, Err(DecodeError::Version)),
        ("type 2", 20, 0x22, Err(DecodeError::Type)),
        ("another VRID", 21, 51, Err(DecodeError::Vrid)),
        ("priority 0", 22, 0, Ok(0)),
        ("priority 254", 22, 254, Ok(254)),
        ("an owner", 22, 255, Err(DecodeError::Owner)),
        ("no address", 23, 0, Err(DecodeError::AddressCount)),
        ("two addresses announced", 23, 2, Err(DecodeError::Length)),
        ("255 addresses announced", 23, 255, Err(DecodeError::Length)),
        ("no authentication", 24, 0, Err(DecodeError::AuthType)),
        ("authentication header", 24, 2, Err(DecodeError::AuthType)),
        ("2 s", 25, 2, Err(DecodeError::Interval)),
        ("0 s", 25, 0, Err(DecodeError::Interval)),
        ("another address", 31, 244, Err(DecodeError::AddressList)),
        ("another password", 32, b'2', Err(DecodeError::AuthData)),
        ("a longer password", 36, b'1', Err(DecodeError::AuthData)),
    ] {
        assert_eq!(forged(at, value), expected, "{name}");
    }
    check(
        KEEPALIVED_V2_PASS,
        &v2_pass(),
        &[
            ("a flipped bit", |p, _| p[22] ^= 1, Err(DecodeError::Checksum)),
            ("a wrong checksum", |p, _| p[26] ^= 1, Err(DecodeError::Checksum)),
            ("the authentication data cut", |p, _| resize(p, 32), Err(DecodeError::Length)),
            ("bytes behind the message", |p, _| resize(p, 41), Err(DecodeError::Length)),
            ("we own the addresses", |_, r| r.owner = true, Err(DecodeError::Owner)),
        ],
    );
    check(
        KEEPALIVED_V2_NONE,
        &v2_none(),
        &[
            ("we want a password", |_, r| r.router = v2_pass(), Err(DecodeError::AuthType)),
            (
                "authentication data that nobody asked for",
                |p, _| {
                    p[39] = 1;
                    repair(p);
                },
                Ok(()),
            ),
            ("the pseudo-header of version 3", |p, _| p[26..28].copy_from_slice(&[0x80, 0xae]), {
                Err(DecodeError::Checksum)
            }),
        ],
    );
}

#[test]
fn version_2_takes_other_addresses_only_from_their_owner() {
    let mut receiver = receiver(v2_none());
    let mut packet = bytes(KEEPALIVED_V2_NONE);
    packet[31] = 244;
    packet[22] = PRIORITY_OWNER;
    repair(&mut packet);
    assert_eq!(receiver.decode(&packet), Err(DecodeError::Owner));
    receiver.accept_owner = true;
    let advert = receiver.decode(&packet).unwrap();
    assert!(advert.priority == 255 && advert.notes.other_addresses);
    packet[22] = 254;
    repair(&mut packet);
    assert_eq!(receiver.decode(&packet), Err(DecodeError::AddressList));
    receiver.router.addresses.push(D1);
    assert_eq!(receiver.decode(&packet), Err(DecodeError::AddressCount));
}

#[test]
fn version_3_checks_all_that_rfc_9568_wants() {
    let forged = |at: usize, value: u8| {
        let mut packet = bytes(RFC_V3);
        packet[at] = value;
        repair(&mut packet);
        receiver(v3()).decode(&packet).map(|advert| (advert.priority, advert.interval.centis(), advert.notes))
    };
    let none = Notes::default();
    let interval = Notes { other_interval: true, ..none };
    for (name, at, value, expected) in [
        ("version 2", 20, 0x21, Err(DecodeError::Version)),
        ("version 4", 20, 0x41, Err(DecodeError::Version)),
        ("type 0", 20, 0x30, Err(DecodeError::Type)),
        ("another VRID", 21, 53, Err(DecodeError::Vrid)),
        ("priority 0", 22, 0, Ok((0, 10, none))),
        ("an owner", 22, 255, Err(DecodeError::Owner)),
        ("no address", 23, 0, Err(DecodeError::AddressCount)),
        ("two addresses announced", 23, 2, Err(DecodeError::Length)),
        ("reserved bits set", 24, 0xf0, Ok((101, 10, none))),
        ("another interval", 25, 20, Ok((101, 20, interval))),
        ("the longest interval", 24, 0x0f, Ok((101, 0xf0a, interval))),
        ("no interval", 25, 0, Err(DecodeError::Interval)),
        ("another address", 31, 244, Ok((101, 10, Notes { other_addresses: true, ..none }))),
    ] {
        assert_eq!(forged(at, value), expected, "{name}");
    }
    check(
        KEEPALIVED_V3,
        &v3(),
        &[
            ("a flipped bit", |p, _| p[22] ^= 1, Err(DecodeError::Checksum)),
            ("another destination than was summed", |p, _| p[19] = 19, Err(DecodeError::Checksum)),
            ("an authentication trailer", |p, _| resize(p, 60), Ok(())),
        ],
    );
}

#[test]
fn an_owner_of_version_3_is_told_and_listens() {
    let mut receiver = receiver(v3());
    receiver.owner = true;
    let notes = receiver.decode(&bytes(RFC_V3)).unwrap().notes;
    assert_eq!(notes, Notes { we_own: true, ..Notes::default() });
}

#[test]
fn addresses_may_come_in_any_order() {
    let mut theirs = v2_pass();
    theirs.addresses = vec![VIP, D1, D2];
    let packet = Sender { router: theirs.clone(), source: D1, peer: None }.encode(100);
    let mut ours = receiver(theirs);
    ours.router.addresses.reverse();
    assert_eq!(ours.decode(&packet).map(|advert| advert.notes), Ok(Notes::default()));
    ours.router.addresses[0] = VIP;
    assert_eq!(ours.decode(&packet), Err(DecodeError::AddressList));
}

#[test]
fn every_outcome_has_a_counter() {
    let mut counters = Counters::default();
    let receiver = receiver(v3());
    for hex in [KEEPALIVED_V3, RFC_V3, KEEPALIVED_V2_NONE] {
        counters.count(&receiver.decode(&bytes(hex)));
    }
    for (at, reason) in DecodeError::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
        counters.count(&Err(*reason));
    }
    assert_eq!((counters.adverts, counters.other_checksum, counters.resigned), (2, 1, 0));
    let counted = |reason: &DecodeError| counters.ignored(*reason);
    assert!(DecodeError::ALL.iter().all(|reason| counted(reason) == 1 + u64::from(*reason == DecodeError::Version)));
}

#[test]
fn passwords_of_one_to_eight_bytes() {
    assert_eq!(Auth::pass("1111"), Some(Auth::Pass(*b"1111\0\0\0\0")));
    assert_eq!(Auth::pass("12345678"), Some(Auth::Pass(*b"12345678")));
    assert!(Auth::pass("").is_none() && Auth::pass("123456789").is_none());
    assert!(!format!("{:?}", Auth::pass("1111")).contains("1111"), "passwords stay out of logs");
}

#[test]
fn forged_lengths_from_0_to_100_are_refused() {
    for good in [KEEPALIVED_V2_PASS, KEEPALIVED_V3] {
        for length in 0..100 {
            for announce in [false, true] {
                let mut packet = bytes(good);
                let whole = packet.len();
                packet.resize(length, 0);
                if announce && length >= 4 {
                    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                }
                for router in [v2_pass(), v3()] {
                    let version = router.version;
                    let taken = receiver(router).decode(&packet).is_ok();
                    // Version 3 and what only the link layer appended are whole messages.
                    let whole_message = length >= whole && (!announce || version == Version::V3 || length == whole);
                    let ours = (good == KEEPALIVED_V2_PASS) == (version == Version::V2);
                    assert_eq!(taken, ours && whole_message, "{length} bytes, {version:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(packet in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&packet);
    }

    #[test]
    fn no_change_of_a_good_packet_panics(
        good in prop::sample::select(&[KEEPALIVED_V2_PASS, KEEPALIVED_V2_NONE, KEEPALIVED_V3, RFC_V3][..]),
        changes in prop::collection::vec((0usize..40, any::<u8>()), 0..4),
        length in 0usize..200,
        repaired: bool,
    ) {
        let mut packet = bytes(good);
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        if repaired {
            repair(&mut packet);
        }
        fuzz(&packet);
        resize(&mut packet, length.max(4));
        fuzz(&packet);
    }

    #[test]
    fn what_is_sent_is_received(
        vrid in 1u8..,
        priority: u8,
        centis in 1u16..4096,
        version in prop::sample::select(&[Version::V2, Version::V3][..]),
        pass in prop::option::of("[ -~]{1,8}"),
        pseudo: bool,
        addresses in prop::collection::btree_set(any::<u32>().prop_map(Ipv4Addr::from), 1..256),
        unicast: bool,
    ) {
        let v2 = version == Version::V2;
        let centis = if v2 { (centis % 255 + 1) * 100 } else { centis };
        let router = VirtualRouter {
            version,
            vrid,
            auth: pass.filter(|_| v2).map_or(Auth::None, |pass| Auth::pass(&pass).unwrap()),
            interval: Interval::new(version, centis).unwrap(),
            addresses: addresses.into_iter().collect(),
            checksum: if pseudo && !v2 { ChecksumKind::PseudoHeader } else { ChecksumKind::Message },
        };
        let sender = Sender { router: router.clone(), source: D1, peer: unicast.then_some(D2) };
        let packet = sender.encode(priority);
        let receiver = Receiver { accept_owner: true, ..receiver(router.clone()) };
        let advert = receiver.decode(&packet);
        let expected = Advert {
            source: D1,
            destination: sender.destination(),
            priority,
            interval: router.interval,
            checksum: router.checksum,
            notes: Notes::default(),
        };
        prop_assert_eq!(advert, Ok(expected));
    }
}

//! The state machine against RFC 9568 §6.4 and RFC 3768 §6.4, row by row, and every MUST of RFC 9568 that applies to
//! IPv4, each with a case in which it must not happen.
//!
//! | RFC 9568 | must | shown by |
//! |---|---|---|
//! | §5.1.1.1, §5.1.1.2, §7.2 | source: primary address; destination: the group | `sent_packets_comply` |
//! | §5.1.1.2 | never forwarded by a router | Linux: 224.0.0.0/24 is link-local |
//! | §5.1.1.3, §7.1 | TTL 255 sent; anything else discarded | `sent_packets_comply`, `received_packets_must_comply` |
//! | §5.2.1, §5.2.2, §7.1 | version 3; unknown types discarded | `received_packets_must_comply` |
//! | §5.2.3 | VRID 1 to 255 | the config's goldens |
//! | §5.2.4 | 255 owns, 1 to 254 backs up, 0 resigns | `an_owner_starts_as_active_…`, `rows`, the config's goldens |
//! | §5.2.5 (erratum 8299) | a count of 0 is ignored | `received_packets_must_comply` |
//! | §5.2.6 | reserved bits: sent as 0, ignored | `sent_packets_comply`, `received_packets_must_comply` |
//! | §5.2.7 (erratum 8301) | centiseconds, never 0 | `sent_packets_comply`, `received_packets_must_comply` |
//! | §5.2.8, §7.1, §7.2 | the checksum is set and verified | `received_packets_must_comply`, `vrrp::packet` |
//! | §6.1, §6.4.2 | timers follow the Active's interval | `rows` |
//! | §6.4.1, §6.4.2, §6.4.3 | each row of the state tables | `rows` |
//! | §6.4.2 | a Backup answers no ARP and does not have the addresses | `lab_pair`, `lab_vrrp`, `prog_foreign` |
//! | §6.4.3, §8.1.2 | the Active answers ARP, alone | `lab_pair`, `lab_vrrp`, `lab_vrrp_settings` (virtual MAC) |
//! | §6.4.3 | with the gratuitous ARPs before anything else | `a_backup_takes_over_when_its_timer_fires_…` |
//! | §7.1 | complete, of a VRID here; else discarded and counted | `received_packets_must_comply`, `lab_vrrp` |
//! | §7.1 | no packet is taken while we own the addresses | deviation: two owners must settle it, see below |
//! | §7.2, §7.3 | frames come from 00:00:5e:00:01:VRID | `lab_vrrp_settings`, with `virtual_mac = true` only |
//! | §8.3.2 | two owners are told apart and reported | `an_owner_preempts_…`, `lab_vrrp` |
//!
//! Off the RFC by default, as keepalived is: addresses live on the physical interface with its MAC (`virtual_mac`
//! follows §7.3), and the Active accepts packets for them without owning them (`Accept_Mode`). By design: frames that
//! neighbours still send to the director that has just yielded are translated, and an owner listens to another one,
//! so that the greater address wins instead of both. IPv6 and the mixed mode of §8.4 do not apply.

#[path = "vrrp_conformance/rig.rs"]
mod rig;
#[path = "vrrp_conformance/rows.rs"]
mod rows;

use std::{net::Ipv4Addr, time::Duration};

use lb_userspace::vrrp::{
    Version,
    machine::{Action, Input, Preempt, Promotion, State, Want},
    packet::{Auth, ChecksumKind, DecodeError, GROUP, Receiver, Sender, VirtualRouter},
};

use rig::{AT_ONCE, DOWN, HIGHER, LOWER, NEVER, OURS, Rig, SKEW, advert, advertise, centis, enter, ms};

#[test]
fn a_backup_takes_over_when_its_timer_fires_and_not_a_moment_sooner() {
    for version in [Version::V2, Version::V3] {
        let mut rig = Rig::in_state(version, 100, NEVER, State::Backup);
        rig.wait(Duration::from_micros(DOWN - 1));
        assert_eq!((rig.actions(), rig.machine.state()), (vec![], State::Backup));
        rig.wait(Duration::from_micros(1));
        assert_eq!(rig.actions(), [advertise(100), Action::Announce, enter(State::Active)]);
        assert_eq!(rig.timer(), Some(Duration::from_secs(1)));
    }
}

#[test]
fn an_active_sends_an_advert_every_interval_and_none_between() {
    for version in [Version::V2, Version::V3] {
        let mut rig = Rig::in_state(version, 100, NEVER, State::Active);
        for _ in 0..3 {
            rig.wait(ms(999));
            assert_eq!(rig.actions(), []);
            rig.wait(ms(1));
            assert_eq!(rig.actions(), [advertise(100)]);
        }
    }
}

#[test]
fn an_owner_starts_as_active_and_everybody_else_as_backup() {
    for version in [Version::V2, Version::V3] {
        for (priority, state) in [(255, State::Active), (254, State::Backup), (1, State::Backup)] {
            let mut rig = Rig::new(version, priority, NEVER, Promotion::Free);
            rig.give(Input::Startup);
            assert_eq!(rig.machine.state(), state, "{priority}");
            let actions = rig.actions();
            let active = vec![advertise(255), Action::Announce, enter(State::Active)];
            assert_eq!(actions, if priority == 255 { active } else { vec![enter(State::Backup)] });
        }
    }
}

#[test]
fn an_owner_preempts_even_if_preemption_is_off() {
    let mut rig = Rig::in_state(Version::V3, 255, NEVER, State::Active);
    rig.give(advert(255, HIGHER, 100));
    assert_eq!(rig.machine.state(), State::Backup, "two owners: the greater address wins");
    rig.give(advert(254, HIGHER, 100));
    rig.wait(rig.machine.down_interval());
    assert_eq!(rig.machine.state(), State::Active);
}

#[test]
fn after_priority_0_the_skew_decides_who_is_first() {
    let fires = |priority: u8| {
        let mut rig = Rig::in_state(Version::V3, priority, NEVER, State::Backup);
        rig.give(advert(0, LOWER, 100));
        rig.timer().unwrap()
    };
    assert!(fires(254) < fires(253) && fires(253) < fires(1));
    assert_eq!(fires(254), Duration::from_micros(7812) + Duration::from_nanos(500));
    // Another Backup was faster: its adverts end the wait.
    let mut rig = Rig::in_state(Version::V3, 100, NEVER, State::Backup);
    rig.give(advert(0, LOWER, 100));
    rig.give(advert(99, LOWER, 100));
    assert_eq!(rig.timer(), Some(Duration::from_micros(DOWN)));
}

#[test]
fn preemption_takes_the_down_interval_after_its_delay() {
    let mut rig = Rig::in_state(Version::V3, 100, Preempt::After(ms(5000)), State::Backup);
    let mut waited = Duration::ZERO;
    while rig.machine.state() == State::Backup && waited < ms(60_000) {
        rig.give(advert(99, LOWER, 100));
        rig.wait(ms(500));
        waited += ms(500);
    }
    // Adverts count up to the one at 4.5 s; then the timer runs out.
    assert_eq!(waited, ms(4500) + ms(4000));
    // One of greater priority begins the delay anew.
    let mut rig = Rig::in_state(Version::V3, 100, Preempt::After(ms(5000)), State::Backup);
    for second in 0..60 {
        rig.give(advert(if second % 4 == 0 { 101 } else { 99 }, LOWER, 100));
        rig.wait(ms(1000));
    }
    assert_eq!(rig.machine.state(), State::Backup);
}

#[test]
fn without_preemption_an_active_of_lower_priority_stays() {
    let mut rig = Rig::in_state(Version::V3, 254, NEVER, State::Backup);
    for _ in 0..100 {
        rig.give(advert(1, LOWER, 100));
        rig.wait(ms(1000));
    }
    assert_eq!(rig.machine.state(), State::Backup);
    rig.wait(rig.machine.down_interval());
    assert_eq!(rig.machine.state(), State::Active, "it is gone");
}

#[test]
fn losing_adverts_are_answered_each_but_not_as_a_storm() {
    let mut rig = Rig::in_state(Version::V3, 100, NEVER, State::Active);
    let mut answers = 0;
    for _ in 0..1000 {
        rig.give(advert(99, LOWER, 1));
        answers += rig.actions().len();
    }
    assert_eq!(answers, 1);
    rig.wait(ms(125));
    rig.give(advert(99, LOWER, 1));
    assert_eq!(rig.actions(), [advertise(100)]);
}

#[test]
fn a_machine_of_a_group_wants_and_waits() {
    for (input, wait, want) in [
        (None, DOWN, Want::Silence),
        (Some(advert(0, LOWER, 100)), SKEW, Want::Resigned),
        (Some(advert(99, LOWER, 100)), DOWN, Want::Preempt),
    ] {
        let mut rig = Rig::new(Version::V3, 100, AT_ONCE, Promotion::Held);
        rig.give(Input::Startup);
        rig.actions();
        rig.wait(ms(1));
        input.into_iter().for_each(|input| rig.give(input));
        let wait = if want == Want::Resigned { wait } else { wait - 1000 };
        rig.wait(Duration::from_micros(wait - 1));
        assert_eq!(rig.machine.wants(), None);
        rig.wait(Duration::from_micros(1));
        assert_eq!((rig.machine.wants(), rig.machine.state(), rig.actions()), (Some(want), State::Backup, vec![]));
        assert_eq!(rig.timer(), None, "it has said so once");
        // Somebody is there after all.
        rig.give(advert(100, LOWER, 100));
        assert_eq!((rig.machine.wants(), rig.timer()), (None, Some(Duration::from_micros(DOWN))));
        rig.give(Input::Promote);
        assert_eq!(rig.machine.state(), State::Active);
    }
}

#[test]
fn a_group_can_forbid_preemption_at_any_time() {
    let mut rig = Rig::new(Version::V3, 100, AT_ONCE, Promotion::Held);
    rig.give(Input::Startup);
    for _ in 0..4 {
        rig.wait(ms(900));
        rig.give(advert(99, LOWER, 100));
    }
    rig.wait(ms(10));
    assert_eq!(rig.machine.wants(), Some(Want::Preempt));
    rig.machine.allow_preempt(false);
    assert_eq!(rig.machine.wants(), None);
    rig.give(advert(99, LOWER, 100));
    assert_eq!(rig.timer(), Some(Duration::from_micros(DOWN)), "it listens again");
    // An owner in a group waits for the group, too.
    let mut rig = Rig::new(Version::V3, 255, AT_ONCE, Promotion::Held);
    rig.give(Input::Startup);
    assert_eq!((rig.machine.state(), rig.machine.wants()), (State::Backup, Some(Want::Owner)));
}

fn router() -> VirtualRouter {
    VirtualRouter {
        version: Version::V3,
        vrid: 52,
        auth: Auth::None,
        interval: centis(10),
        addresses: vec![Ipv4Addr::new(10, 80, 1, 243)],
        checksum: ChecksumKind::Message,
    }
}

/// RFC 9568's MUSTs about received packets: a packet that complies, and the smallest change that does not.
#[test]
fn received_packets_must_comply() {
    let receiver = Receiver { router: router(), address: OURS, owner: false, accept_owner: true, peers: Vec::new() };
    let sender = Sender { router: router(), source: LOWER, peer: None };
    let good = sender.encode(100);
    assert!(receiver.decode(&good).is_ok());
    // (rule, byte of the packet, value, what becomes of it)
    for (rule, at, value, expected) in [
        ("§5.1.1.3: discard if the TTL is not 255", 8, 254, Err(DecodeError::Ttl)),
        ("§5.2.2, §7.1: discard an unknown type", 20, 0x32, Err(DecodeError::Type)),
        ("§5.2.5, erratum 8299: ignore a count of 0", 23, 0, Err(DecodeError::AddressCount)),
        ("§5.2.6: ignore the reserved bits", 24, 0xf0, Ok(())),
        ("§7.1: the version is 3", 20, 0x21, Err(DecodeError::Version)),
        ("§7.1: the packet is complete", 23, 2, Err(DecodeError::Length)),
        ("§7.1: the VRID is configured", 21, 51, Err(DecodeError::Vrid)),
        ("§7.1, erratum 8301: the interval is not 0", 25, 0, Err(DecodeError::Interval)),
    ] {
        let mut packet = good.clone();
        packet[at] = value;
        let words = |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum() };
        packet[26..28].fill(0);
        let sum = words(&packet[20..]);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(receiver.decode(&packet).map(|_| ()), expected, "{rule}");
    }
    let mut packet = good;
    packet[22] ^= 1;
    assert_eq!(receiver.decode(&packet), Err(DecodeError::Checksum), "§5.2.8, §7.1: verify the checksum");
}

/// RFC 9568's MUSTs about sent packets.
#[test]
fn sent_packets_comply() {
    for (peer, destination) in [(None, GROUP), (Some(LOWER), LOWER)] {
        let packet = Sender { router: router(), source: OURS, peer }.encode(101);
        assert_eq!(packet[8], 255, "§5.1.1.3: the TTL is 255");
        assert_eq!(packet[9], 112, "§7.2: the protocol is VRRP");
        assert_eq!(packet[12..16], OURS.octets(), "§7.2: the source is the primary address");
        assert_eq!(packet[16..20], destination.octets(), "§7.2: the destination is the group");
        assert_eq!(packet[20..24], [0x31, 52, 101, 1], "§7.2: version, type, VRID, priority, count");
        assert_eq!(packet[24] >> 4, 0, "§5.2.6: the reserved bits are zero");
        assert_eq!(u16::from_be_bytes([packet[24], packet[25]]), 10, "§5.2.7: the interval in centiseconds");
    }
}

//! What two directors tell each other about the backends: each backend's verdict, seen from there. Owns the words and
//! their bytes; how they travel is the sync's business, what they mean is [`super::pool`]'s.
//!
//! The policy: **the own verdict counts**, always. The Active steers by what it sees itself, because its packets take the
//! same way as its checks. A difference that lasts is called what it is, a fault of the network, on both directors; it
//! takes no backend out and puts none back. A peer that says nothing is no difference.
//!
//! A message is a sequence of records: VIP, port, backend's address, port, verdict; big endian, 13 bytes each.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::pool::{Input, Pool};

/// Length of a record in bytes.
pub const RECORD: usize = 13;

/// How one director sees one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The service, by the VIP and port that it listens on: names and places may differ between two configs.
    pub service: SocketAddrV4,
    /// The backend.
    pub backend: SocketAddrV4,
    /// It is up.
    pub up: bool,
}

/// The own verdicts about the backends of a service that are checked.
pub fn say(service: SocketAddrV4, pool: &Pool) -> impl Iterator<Item = Verdict> + '_ {
    let checked =
        move |(address, up): (SocketAddrV4, Option<bool>)| Some(Verdict { service, backend: address, up: up? });
    pool.verdicts().filter_map(checked)
}

/// What a service's pool is to be told of the peer's verdicts; `None`: the peer is gone, or says nothing.
#[must_use]
pub fn hear(service: SocketAddrV4, pool: &Pool, verdicts: Option<&[Verdict]>) -> Vec<Input> {
    let of = |backend| {
        let same = |verdict: &&Verdict| (verdict.service, verdict.backend) == (service, backend);
        verdicts?.iter().rfind(same).map(|verdict| verdict.up)
    };
    pool.verdicts().enumerate().map(|(backend, (address, _))| Input::Peer { backend, up: of(address) }).collect()
}

/// The bytes of a message.
#[must_use]
pub fn encode(verdicts: &[Verdict]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD * verdicts.len());
    for Verdict { service, backend, up } in verdicts {
        for address in [service, backend] {
            bytes.extend(address.ip().octets());
            bytes.extend(address.port().to_be_bytes());
        }
        bytes.push((*up).into());
    }
    bytes
}

/// Reads a message; `None` if it is none. What it says about backends that nobody knows does no harm.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<Verdict>> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    let address = |ip: [u8; 4], port: [u8; 2]| SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes(port));
    let verdict = |&[a, b, c, d, p, q, e, f, g, h, r, s, up]: &[u8; RECORD]| {
        let up = match up {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Verdict { service: address([a, b, c, d], [p, q]), backend: address([e, f, g, h], [r, s]), up })
    };
    if rest.is_empty() { records.iter().map(verdict).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use lb_common::service::OnDown;
    use proptest::prelude::*;

    use super::*;
    use crate::health::{
        Health,
        pool::{Agreement, MemberPlan, PoolPlan, Tier},
    };

    const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 80, 1, 243), 3306);

    fn server(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 80, last), 3306)
    }

    fn pool(now: Instant) -> Pool {
        let member = |last, checked| MemberPlan {
            address: server(last),
            weight: 1,
            tier: Tier::Primary,
            checked,
            slow_start: Duration::ZERO,
            drain_deadline: None,
        };
        let members = vec![member(167, true), member(136, true), member(99, false)];
        let disagree_after = Duration::from_secs(3);
        Pool::new(PoolPlan { weighted: false, on_down: OnDown::Rst, disagree_after, members }, &[], now)
    }

    fn up(pool: &mut Pool, backend: usize, now: Instant) {
        let health = Health { up: true, full: false, trouble: None, cause: "passes".into() };
        pool.handle(Input::Health { backend, health }, now);
    }

    #[test]
    fn two_directors_that_see_a_server_differently_both_say_so_and_each_steers_by_its_own_eyes() {
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let start = Instant::now();
        let (mut here, mut there) = (pool(start), pool(start));
        for backend in [0, 1] {
            up(&mut here, backend, start);
        }
        up(&mut there, 1, start);
        let tell = |from: &Pool, to: &mut Pool, now| {
            let message = encode(&say(VIP, from).collect::<Vec<_>>());
            for input in hear(VIP, to, Some(&decode(&message).unwrap())) {
                to.handle(input, now);
            }
        };
        for seconds in [0, 1, 4] {
            let now = start + Duration::from_secs(seconds);
            tell(&here, &mut there, now);
            tell(&there, &mut here, now);
        }
        let now = start + Duration::from_secs(4);
        let seen = |pool: &Pool| pool.view(now).iter().map(|member| member.agreement).collect::<Vec<_>>();
        assert_eq!(seen(&here), [Agreement::DownThereOnly, Agreement::Same, Agreement::Unknown]);
        assert_eq!(seen(&there), [Agreement::DownHereOnly, Agreement::Same, Agreement::Unknown]);
        let serve = |pool: &Pool| pool.shares().backends.iter().map(|share| !share.down).collect::<Vec<_>>();
        assert_eq!((serve(&here), serve(&there)), (vec![true, true, true], vec![false, true, true]));
        // A peer that falls silent is no difference.
        for input in hear(VIP, &here, None) {
            here.handle(input, now);
        }
        assert_eq!(seen(&here), [Agreement::Unknown; 3]);
    }

    proptest! {
        /// Whoever holds the key may be wrong, or of another version.
        #[test]
        fn any_bytes_are_a_message_that_comes_back_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..4 * RECORD)) {
            if let Some(verdicts) = decode(&bytes) {
                prop_assert_eq!(encode(&verdicts), bytes);
            } else {
                prop_assert!(bytes.len() % RECORD != 0 || bytes.chunks(RECORD).any(|record| record[RECORD - 1] > 1));
            }
        }

        #[test]
        fn what_is_said_of_any_backends_comes_back(said in proptest::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<[u8; 4]>(), any::<u16>(), any::<bool>()), 0..20)) {
            let at = |ip: [u8; 4], port| SocketAddrV4::new(ip.into(), port);
            let said: Vec<_> =
                said.into_iter().map(|(a, p, b, q, up)| Verdict { service: at(a, p), backend: at(b, q), up }).collect();
            prop_assert_eq!(decode(&encode(&said)), Some(said));
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_no_part_of_one_is() {
        let said = [
            Verdict { service: VIP, backend: server(167), up: true },
            Verdict { service: VIP, backend: server(136), up: false },
        ];
        let bytes = encode(&said);
        assert_eq!((bytes.len(), decode(&bytes)), (2 * RECORD, Some(said.into())));
        assert_eq!(decode(&[]), Some(Vec::new()));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(&[2; RECORD]), None, "a verdict is yes or no");
        // Of another service, or of a backend that is not here.
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let pool = pool(Instant::now());
        let foreign = [Verdict { service: server(1), ..said[0] }, Verdict { backend: server(1), ..said[0] }];
        assert!(hear(VIP, &pool, Some(&foreign)).iter().all(|input| matches!(input, Input::Peer { up: None, .. })));
    }
}

use std::{collections::HashMap, net::SocketAddrV4};

use lb_common::tcp::flag::{ACK, FIN, SYN};

use super::*;
use crate::sync::{Conn, Half, Tenths, time::Tick};

fn key(n: u32) -> Key {
    let [_, a, b, c] = n.to_be_bytes();
    Key {
        client: SocketAddrV4::new([10, a, b, c].into(), 40_000 + (n % 1000) as u16),
        vip: SocketAddrV4::new([10, 80, 1, 243].into(), 3306),
    }
}

fn conn(n: u32) -> Conn {
    let half = Half { seen: SYN | ACK, ack: n, seq: n + 1, idle: Tenths(0) };
    let backend = SocketAddrV4::new([192, 168, 80, 100 + (n % 50) as u8].into(), 3306);
    Conn { key: key(n), backend, client_port: 40_000, forward: half, reverse: half, age: Tenths(0) }
}

fn add(index: &mut Index, n: u32) -> Id {
    let id = index.insert(key(n));
    index.change(id, |slot| {
        slot.fill(&conn(n), Tick::NEVER.after(Tenths(1000)));
        slot.born = u64::from(n);
        slot.bits.set(Bits::LIVE);
    });
    id
}

#[test]
fn it_agrees_with_a_map_and_the_digest_depends_on_contents_alone() {
    let (mut index, mut model) = (Index::new(7), HashMap::new());
    let mut chance = 1_u64;
    for _ in 0..200_000 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = (chance >> 40) as u32 % 5000;
        match (index.find(&key(n)), model.contains_key(&n)) {
            (None, false) => {
                model.insert(n, add(&mut index, n));
            }
            (Some(id), true) => {
                assert_eq!((id, index.get(id).key), (model[&n], key(n)));
                index.free(id);
                model.remove(&n);
            }
            (found, expected) => panic!("{n}: {found:?}, {expected}"),
        }
        assert_eq!((index.live(), index.used()), (model.len(), model.len()));
    }
    // Another secret, another order, no history: the same digests.
    let mut other = Index::new(8);
    let mut numbers: Vec<u32> = model.keys().copied().collect();
    numbers.sort_unstable();
    numbers.iter().for_each(|n| {
        add(&mut other, *n);
    });
    assert_eq!(index.digest(), other.digest());
    for bucket in 0..BUCKETS as u16 {
        assert_eq!(index.bucket_digest(bucket), other.bucket_digest(bucket));
        assert_eq!(index.bucket(bucket).count(), other.bucket(bucket).count());
    }
    numbers.iter().for_each(|n| index.free(model[n]));
    assert_eq!((index.digest(), index.live()), (0, 0));
}

#[test]
fn the_digest_changes_with_what_both_must_agree_on_and_with_nothing_else() {
    let mut index = Index::new(7);
    let id = add(&mut index, 1);
    let before = index.digest();
    index.change(id, |slot| {
        slot.forward.ack += 9;
        slot.reverse.last = slot.reverse.last.after(Tenths(5));
        slot.created = slot.created.after(Tenths(5));
        slot.bits.set(Bits::HAS);
    });
    assert_eq!(index.digest(), before);
    let changes: [fn(&mut Slot); 5] = [
        |slot| slot.reverse_seen |= FIN,
        |slot| slot.born += 1,
        |slot| slot.client_port += 1,
        |slot| slot.backend.set_port(3307),
        |slot| slot.bits.clear(Bits::LIVE),
    ];
    for change in changes {
        let before = index.digest();
        index.change(id, change);
        assert_ne!(index.digest(), before);
    }
    assert_eq!((index.digest(), index.bucket_digest(0)), (0, 0));
}

#[test]
fn a_million_conns_take_less_than_80_bytes_each_and_no_bucket_is_heavy() {
    let mut index = Index::new(7);
    let count = 1_000_000;
    (0..count).for_each(|n| {
        add(&mut index, n);
    });
    let each = index.bytes() as f64 / f64::from(count);
    assert!(each < 80.0, "{each} bytes");
    let heaviest = (0..BUCKETS as u16).map(|bucket| index.bucket(bucket).count()).max().unwrap();
    assert!(heaviest < 360, "{heaviest} conns in a bucket; 244 is the mean");
}

#[test]
fn a_peer_is_forgotten_at_once_and_the_place_in_the_queue_is_not() {
    let mut index = Index::new(7);
    let ids: Vec<Id> = (0..5000).map(|n| add(&mut index, n)).collect();
    for id in &ids {
        index.touch(*id).bits.set(Bits::TOLD.and(Bits::HAS).and(Bits::THEIRS).and(Bits::QUEUED));
    }
    index.forget_knowledge();
    assert!(!index.bits(ids[4999]).has(Bits::HAS) && index.bits(ids[4999]).has(Bits::TOLD));
    assert!(!index.get(ids[4999]).bits.has(Bits::HAS) && index.get(ids[4999]).bits.has(Bits::THEIRS));
    index.forget_peer();
    assert!(!index.bits(ids[0]).has(Bits::TOLD.and(Bits::THEIRS)));
    assert!(index.get(ids[0]).bits.has(Bits::QUEUED) && index.get(ids[0]).is_live());
    index.free(ids[0]);
    let again = add(&mut index, 9999);
    assert_eq!(again, ids[0]);
    assert!(index.get(again).bits.has(Bits::QUEUED), "the number is in the queue still");
}

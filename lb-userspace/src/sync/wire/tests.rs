use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::tcp::flag::{ACK, FIN, SYN};
use proptest::prelude::*;

use super::{
    bytes::{Reader, Writer},
    record::Record,
    *,
};
use crate::sync::{Conn, Half, Key, Psk, Tenths, notice::Part};

fn address(n: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 80, 1, n), port)
}

fn conn() -> ConnRecord {
    let half = |n| Half { seen: SYN | ACK, ack: n, seq: n + 1, idle: Tenths(n + 2) };
    ConnRecord {
        conn: Conn {
            key: Key { client: address(1, 40_000), vip: address(243, 3306) },
            backend: address(167, 3307),
            client_port: 40_001,
            forward: half(100),
            reverse: Half { seen: SYN | ACK | FIN, ..half(200) },
            age: Tenths(77),
        },
        born: 0x0102_0304_0506_0708,
        you_had: true,
        mine: false,
    }
}

fn gone() -> GoneRecord {
    GoneRecord { key: conn().conn.key, why: Why::Aged, age: Tenths(5), idle: Tenths(6), born: 99 }
}

fn bytes(limit: usize, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(&mut Writer::new(&mut bytes, limit));
    assert!(bytes.len() <= limit);
    bytes
}

/// All items of a frame, as the writers made them.
fn all_items() -> Vec<u8> {
    bytes(1400, |to| {
        write::ack(&Ack { received: 1, sent: 2, floor: 3, time: 4, refused: 5, equal: 6 }, to);
        write::stream(7, to);
        let mut some = vec![conn(), conn()];
        assert_eq!(write::conns(to, || some.pop()), 2);
        let mut some = vec![gone()];
        assert_eq!(write::gone(to, || some.pop()), 1);
        let mut some = vec![conn()];
        assert_eq!(write::activity(to, || some.pop()), 1);
        let mut some = vec![gone().key];
        assert_eq!(write::pull(to, || some.pop()), 1);
        write::missing(50, [(3, 2), (40, 1)].into_iter(), to);
        write::beat(&beat(), to);
        write::mark(&mark(), to);
        let mut some = vec![20_u64, 10];
        assert_eq!(write::digests(5, || some.pop(), to), 2);
        let mut some = vec![8, 7];
        assert_eq!(write::repair(|| some.pop(), to), 2);
        write::notice(&part(), to);
        write::bye(to);
    })
}

fn beat() -> Beat {
    Beat {
        role: 1,
        priority: 101,
        address: Ipv4Addr::new(10, 80, 1, 241),
        settled: true,
        conns: 11,
        bulk_done: 12,
        bulk_total: 13,
        bulk_end: 14,
        fingerprint: 15,
    }
}

fn part() -> Part<'static> {
    Part { version: 3, of: 2, at: 1, bytes: b"what it says" }
}

fn mark() -> Mark {
    Mark { id: 1, sent: 2, received: 3, conns: 4, digest: 5, urgent: true }
}

fn check(items: Items<'_>) {
    let mut seen = Vec::new();
    for item in items {
        match item.unwrap() {
            Item::Ack(ack) => {
                assert_eq!(ack, Ack { received: 1, sent: 2, floor: 3, time: 4, refused: 5, equal: 6 });
                seen.push("ack");
            }
            Item::Stream(number) => {
                assert_eq!(number, 7);
                seen.push("stream");
            }
            Item::Conns(records) => {
                assert_eq!(records.collect::<Vec<_>>(), [Some(conn()), Some(conn())]);
                seen.push("conns");
            }
            Item::Gone(records) => {
                assert_eq!(records.collect::<Vec<_>>(), [Some(gone())]);
                seen.push("gone");
            }
            Item::Activity(records) => {
                assert_eq!(records.collect::<Vec<_>>(), [Some(conn())]);
                seen.push("activity");
            }
            Item::Pull(keys) => {
                assert_eq!(keys.collect::<Vec<_>>(), [Some(gone().key)]);
                seen.push("pull");
            }
            Item::Missing(missing) => {
                assert_eq!((missing.upto, missing.ranges().collect::<Vec<_>>()), (50, vec![(3, 2), (40, 1)]));
                seen.push("missing");
            }
            Item::Beat(found) => {
                assert_eq!(found, beat());
                seen.push("beat");
            }
            Item::Mark(found) => {
                assert_eq!(found, mark());
                seen.push("mark");
            }
            Item::Digests(digests) => {
                assert_eq!(digests.collect::<Vec<_>>(), [(5, 10), (6, 20)]);
                seen.push("digests");
            }
            Item::Repair(buckets) => {
                assert_eq!(buckets.collect::<Vec<_>>(), [7, 8]);
                seen.push("repair");
            }
            Item::Notice(found) => {
                assert_eq!(found, part());
                seen.push("notice");
            }
            Item::Bye => seen.push("bye"),
            Item::Unknown => {}
        }
    }
    let all = ["ack", "stream", "conns", "gone", "activity", "pull", "missing", "beat", "mark", "digests", "repair"];
    assert_eq!(seen[..11], all);
    assert_eq!(seen[11..], ["notice", "bye"]);
}

#[test]
fn every_item_comes_back_as_it_was_written() {
    let frame = all_items();
    assert!(Items::new(&frame).are_sound());
    check(Items::new(&frame));
}

/// What a director of a later minor version may send: items of other types, longer items, longer records.
#[test]
fn a_later_minor_version_is_understood_as_far_as_it_is_known() {
    let frame = all_items();
    let mut later = Vec::new();
    let mut rest = Reader(&frame);
    let mut to = Writer::new(&mut later, 9000);
    while let Some((kind, body)) = rest.item() {
        // An item that nobody knows, before each that everybody knows.
        to.item(200, |to| to.raw(b"from the future"));
        let records = [2, 3, 4, 11].contains(&kind);
        let open_ended = [6, 9, 10, 12].contains(&kind);
        to.item(kind, |to| {
            if records {
                // Records with fields behind those known.
                let size = usize::from(body.0[0]);
                to.u8(body.0[0] + 5);
                for record in body.0[1..].chunks(size) {
                    to.raw(record);
                    to.raw(b"extra");
                }
            } else {
                to.raw(body.0);
                if !open_ended {
                    to.raw(b"more");
                }
            }
        });
    }
    assert!(Items::new(&later).are_sound());
    check(Items::new(&later));
}

#[test]
fn a_record_of_another_transport_protocol_is_passed_over() {
    let mut frame = bytes(1400, |to| {
        let mut some = vec![conn(), conn(), conn()];
        write::conns(to, || some.pop());
    });
    // Type, length, size of a record, then the first byte of the second record: its protocol.
    frame[3 + 1 + ConnRecord::SIZE] = 132;
    let Some(Ok(Item::Conns(records))) = Items::new(&frame).next() else { panic!() };
    assert_eq!(records.collect::<Vec<_>>(), [Some(conn()), None, Some(conn())]);
}

#[test]
fn every_cut_of_a_frame_is_refused_or_ends_between_two_items() {
    let frame = all_items();
    let mut ends = vec![0];
    let mut rest = Reader(&frame);
    while rest.item().is_some() {
        ends.push(frame.len() - rest.0.len());
    }
    for end in 0..frame.len() {
        assert_eq!(Items::new(&frame[..end]).are_sound(), ends.contains(&end), "{end}");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let one = 3 + 1 + ConnRecord::SIZE;
    for (limit, expected) in [(one - 1, 0), (one, 1), (one + ConnRecord::SIZE - 1, 1), (one + ConnRecord::SIZE, 2)] {
        let mut asked = 0;
        let frame = bytes(limit, |to| {
            let count = write::conns(to, || {
                asked += 1;
                Some(conn())
            });
            assert_eq!(count, expected);
        });
        // Who is asked for a record is sure to be rid of it.
        assert_eq!((asked, frame.is_empty()), (expected, expected == 0));
    }
    let frame = bytes(3 + 8 + 2 * 8 + 5, |to| write::missing(90, [(1, 1), (5, 2), (10, 3)].into_iter(), to));
    let Some(Ok(Item::Missing(missing))) = Items::new(&frame).next() else { panic!() };
    // The third range is not named, so nothing is said about it.
    assert_eq!((missing.upto, missing.ranges().collect::<Vec<_>>()), (9, vec![(1, 1), (5, 2)]));
}

#[test]
fn a_greeting_comes_back_and_skips_what_it_does_not_know() {
    let cipher = Psk::new([1; 32]).greeting(3, &[9; 16]);
    let header = Header { kind: Kind::Greeting, node: 3, key: 4, insecure: true, session: 0, number: 5 };
    let greeting =
        Greeting { challenge: [1; 16], echo: [2; 16], minor: 7, fingerprint: 8, timeouts: [1, 2, 3, 4, 5, 6] };
    let mut frame = Vec::new();
    greeting.write(&header, &[9; 16], &cipher, &mut frame);
    assert_eq!(frame.len(), GREETING);
    assert_eq!(Header::read(&frame), Ok(header));
    assert_eq!(Greeting::epoch(&frame), Some([9; 16]));
    assert_eq!(Greeting::epoch(&frame[1..]), None);
    assert_eq!(Greeting::open(&header, &cipher, &mut frame.clone()), Ok(Some(greeting)));
    for at in 0..frame.len() {
        let mut damaged = frame.clone();
        damaged[at] ^= 0x80;
        assert_eq!(Greeting::open(&header, &cipher, &mut damaged), Ok(None), "byte {at}");
    }
}

#[test]
fn the_header_says_what_is_not_for_us() {
    let header = Header { kind: Kind::Session, node: 3, key: 4, insecure: false, session: 6, number: 5 };
    let frame = bytes(HEADER, |to| header.write(to));
    assert_eq!((frame.len(), Header::read(&frame)), (HEADER, Ok(header)));
    for (at, value, foreign) in [(0, 9, Foreign::NotOurs), (2, 9, Foreign::Version(9)), (3, 9, Foreign::Kind)] {
        let mut other = frame.clone();
        other[at] = value;
        assert_eq!(Header::read(&other), Err(foreign));
    }
    assert_eq!(Header::read(&frame[..HEADER - 1]), Err(Foreign::NotOurs));
}

proptest! {
    /// Only the peer's own mistakes come here, but they must not hurt either.
    #[test]
    fn no_bytes_make_the_decoder_panic(frame in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Header::read(&frame);
        for item in Items::new(&frame) {
            match item {
                Ok(Item::Conns(records) | Item::Activity(records)) => records.for_each(drop),
                Ok(Item::Gone(records)) => records.for_each(drop),
                Ok(Item::Pull(keys)) => keys.for_each(drop),
                Ok(Item::Missing(missing)) => missing.ranges().for_each(drop),
                Ok(Item::Digests(digests)) => digests.for_each(drop),
                Ok(Item::Repair(buckets)) => buckets.for_each(drop),
                _ => {}
            }
        }
    }

    /// Damaged frames that were once sound reach deeper.
    #[test]
    fn no_damage_makes_the_decoder_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut frame = all_items();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        for item in Items::new(&frame).flatten() {
            match item {
                Item::Conns(records) | Item::Activity(records) => records.for_each(drop),
                Item::Gone(records) => records.for_each(drop),
                Item::Missing(missing) => missing.ranges().for_each(drop),
                _ => {}
            }
        }
    }
}

/// Frames for the fuzzer to begin with: one of each item, and the usual damage.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let all = all_items();
    let mut seeds = vec![("empty".to_owned(), Vec::new()), ("all".to_owned(), all.clone())];
    seeds.push(("cut".to_owned(), all[..all.len() - 3].to_vec()));
    let mut later = all.clone();
    later[0] = 200;
    seeds.push(("unknown-item".to_owned(), later));
    let mut long = all.clone();
    long[1] = 0xff;
    seeds.push(("longer-than-the-frame".to_owned(), long));
    let header = Header { kind: Kind::Session, node: 1, key: 2, insecure: false, session: 3, number: 4 };
    let mut frame = Vec::new();
    header.write(&mut Writer::new(&mut frame, 2000));
    frame.extend_from_slice(&all);
    seeds.push(("frame".to_owned(), frame));
    let parts = |parts: &[(u32, u8, u8, usize)]| {
        bytes(4000, |to| {
            for &(version, of, at, length) in parts {
                write::notice(&Part { version, of, at, bytes: &[7; 1000][..length] }, to);
            }
        })
    };
    for (name, said) in [
        ("notice", parts(&[(1, 2, 1, 9), (1, 2, 0, 384), (2, 1, 0, 0), (1, 2, 0, 384)])),
        ("notice-contradicts-itself", parts(&[(1, 2, 0, 384), (1, 3, 1, 384), (1, 1, 0, 5), (1, 2, 1, 1)])),
        ("notice-too-many-parts", parts(&[(1, 65, 64, 3)])),
        ("notice-beyond-its-end", parts(&[(1, 2, 2, 384)])),
        ("notice-long-part", parts(&[(u32::MAX, 1, 0, 385)])),
    ] {
        seeds.push((name.to_owned(), said));
    }
    seeds
}

#[test]
fn a_part_that_no_notice_has_makes_the_frame_unsound() {
    let sound = |of, at, length: usize| {
        let frame = bytes(1400, |to| write::notice(&Part { version: 1, of, at, bytes: &[7; 1000][..length] }, to));
        Items::new(&frame).are_sound()
    };
    assert!(sound(1, 0, 0) && sound(64, 0, 384) && sound(64, 63, 384));
    assert!(!sound(0, 0, 0) && !sound(65, 64, 3) && !sound(2, 2, 384) && !sound(1, 0, 385) && !sound(2, 0, 383));
}

/// `BLESS=1` writes the seeds anew; findings of the fuzzer are added by hand.
#[test]
fn the_corpus_of_the_fuzzer_and_its_neighbours_are_decoded_without_panic() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/sync");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in seeds() {
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    }
    let files: Vec<_> = std::fs::read_dir(&directory).expect("the corpus").map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= seeds().len(), "seeds are missing: BLESS=1 writes them");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        fuzz(&bytes);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80] {
                let mut changed = bytes.clone();
                changed[at] = value;
                fuzz(&changed);
            }
            fuzz(&bytes[..at]);
        }
    }
}

//! The two entries of each conn brought together, out of a look through the table that shows them in any order.
//!
//! Pure. As in the sweep's join, entries are noted by parts and sorted within each, because at a million conns a map
//! costs a cache miss or two per entry. The parts are those of the core's index: it is told of neighbours together.

use std::net::SocketAddrV4;

use lb_common::conn::{Conn as Entry, Direction, FlowKey};

use super::convert::{Now, address, key as key_of};
use crate::sync::{BUCKETS, Conn, Half, Input, Key, bucket_of};

/// Parts; of two million entries, one takes 2,000.
const PARTS: usize = 1024;

/// What the core wants to know of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noted {
    key: Key,
    backend: SocketAddrV4,
    client_port: u16,
    dir: Direction,
    seen: u8,
    last_seen: u32,
    ack: u32,
    seq: u32,
    created: u32,
}

const _: () = assert!(size_of::<Noted>() == 40);

impl Noted {
    fn new(flow: &FlowKey, entry: &Entry) -> Self {
        let other = entry.other_key();
        let (forward, reverse) = match entry.dir {
            Direction::Forward => (flow, &other),
            Direction::Reverse => (&other, flow),
        };
        Self {
            key: key_of(forward),
            backend: address(reverse.src, reverse.sport),
            client_port: reverse.dport,
            dir: entry.dir,
            seen: entry.seen,
            last_seen: entry.last_seen,
            ack: entry.ack,
            seq: entry.seq,
            created: entry.created,
        }
    }

    /// They are of one conn, and not of two that had the key one after the other while the look came by.
    fn belongs_to(&self, other: &Self) -> bool {
        (self.backend, self.client_port, self.created) == (other.backend, other.client_port, other.created)
            && self.dir != other.dir
    }

    fn half(&self, now: Now) -> Half {
        Half { seen: self.seen, ack: self.ack, seq: self.seq, idle: now.age(self.last_seen) }
    }
}

/// What a look has seen of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// Both entries of a conn, the forward one first.
    Both(&'a Noted, &'a Noted),
    /// Anything else.
    Half(Key),
}

impl Found<'_> {
    /// As the core is told.
    pub(super) fn input(self, now: Now) -> Input<'static> {
        match self {
            Self::Both(forward, reverse) => Input::Seen(Conn {
                key: forward.key,
                backend: forward.backend,
                client_port: forward.client_port,
                forward: forward.half(now),
                reverse: reverse.half(now),
                age: now.age(forward.created),
            }),
            Self::Half(key) => Input::SeenHalf(key),
        }
    }
}

/// The entries of a look.
#[derive(Debug)]
pub(super) struct Join {
    parts: Vec<Vec<Noted>>,
}

impl Default for Join {
    fn default() -> Self {
        Self { parts: vec![Vec::new(); PARTS] }
    }
}

impl Join {
    /// Notes an entry.
    pub(super) fn note(&mut self, flow: &FlowKey, entry: &Entry) {
        let noted = Noted::new(flow, entry);
        if let Some(part) = self.parts.get_mut(bucket_of(&noted.key) / (BUCKETS / PARTS)) {
            part.push(noted);
        }
    }

    /// Tells of the conns of about `entries` entries; `false`: that was all.
    pub(super) fn work(&mut self, entries: usize, mut tell: impl FnMut(Found<'_>)) -> bool {
        let mut done = 0;
        while done < entries
            && let Some(mut part) = self.parts.pop()
        {
            done += part.len();
            part.sort_unstable_by_key(|noted| (noted.key, noted.dir as u8));
            for found in part.chunk_by(|a, b| a.key == b.key) {
                match found {
                    [forward, reverse] if forward.belongs_to(reverse) => tell(Found::Both(forward, reverse)),
                    [some, ..] => tell(Found::Half(some.key)),
                    [] => {}
                }
            }
        }
        !self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        addr::Ipv4,
        conn::Origin,
        tcp::flag::{ACK, SYN},
    };

    use super::*;
    use crate::datapath::Ticks;

    const NOW: Now = Now { jiffies: 100_000, ticks: Ticks { hz: 100 } };
    const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);

    /// Both entries of the n-th conn, with another port of the client towards the backend.
    fn conn(n: u16, created: u32) -> [(FlowKey, Entry); 2] {
        let client = Ipv4::new([10, 80, 1, (n % 7) as u8]);
        let forward = Entry {
            src: client,
            dst: Ipv4::new([192, 168, 80, (n % 3) as u8]),
            sport: n ^ 1,
            dport: 3306,
            backend: 1,
            dir: Direction::Forward,
            seen: SYN | ACK,
            macs: Default::default(),
            ifindex: 0,
            hop_gen: 0,
            last_seen: NOW.jiffies - 500,
            ack: 10,
            seq: 20,
            created,
            origin: Origin::Local,
            once: 0,
            mtu: 1500,
            bytes: 0,
        };
        let reverse = Entry {
            src: VIP,
            dst: client,
            sport: 3306,
            dport: n,
            dir: Direction::Reverse,
            seen: SYN,
            last_seen: NOW.jiffies - 300,
            ack: 30,
            ..forward
        };
        [(FlowKey::tcp(client, n, VIP, 3306), forward), (forward.other_key(), reverse)]
    }

    /// What is told of these, sorted.
    fn told(entries: &[(FlowKey, Entry)]) -> (Vec<Conn>, Vec<Key>) {
        let mut join = Join::default();
        entries.iter().for_each(|(flow, entry)| join.note(flow, entry));
        let (mut conns, mut halves, mut steps) = (Vec::new(), Vec::new(), 1);
        let mut tell = |found: Found<'_>| match found.input(NOW) {
            Input::Seen(conn) => conns.push(conn),
            Input::SeenHalf(key) => halves.push(key),
            other => panic!("{other:?}"),
        };
        while join.work(8, &mut tell) {
            steps += 1;
        }
        assert!(steps > entries.len() / 16, "{} entries in {steps} steps", entries.len());
        conns.sort_unstable_by_key(|conn| conn.key);
        (conns, halves)
    }

    #[test]
    fn entries_find_each_other_in_any_order() {
        let mut entries: Vec<_> = (1..=300).flat_map(|n| conn(n, 1000)).collect();
        let (conns, halves) = told(&entries);
        assert_eq!((conns.len(), halves.len()), (300, 0));
        for (flow, forward) in entries.iter().filter(|(_, entry)| entry.dir == Direction::Forward) {
            let conn = conns.iter().find(|conn| conn.key == key_of(flow)).expect("every conn is told");
            assert_eq!(conn.backend, address(forward.dst, 3306));
            assert_eq!(conn.client_port, forward.sport);
            assert_eq!((conn.forward.seen, conn.forward.ack, conn.forward.idle.0), (SYN | ACK, 10, 50));
            assert_eq!((conn.reverse.seen, conn.reverse.ack, conn.reverse.idle.0), (SYN, 30, 30));
            assert_eq!(conn.age.0, 9900);
        }
        for rotation in [1, 7, 299, 300] {
            entries.rotate_left(rotation);
            assert_eq!(told(&entries), (conns.clone(), Vec::new()));
        }
    }

    #[test]
    fn what_is_not_both_entries_of_one_conn_is_half_of_one() {
        let [forward, reverse] = conn(7, 1000);
        let [later, other] = conn(7, 1001);
        let elsewhere = (other.0, Entry { dport: 7, ..other.1 });
        for entries in [
            vec![forward],
            vec![reverse],
            // The key was taken by another conn while the look came by.
            vec![forward, other],
            vec![later, reverse],
            vec![forward, later, other],
            vec![forward, reverse, elsewhere],
            vec![forward, forward],
        ] {
            assert_eq!(told(&entries), (Vec::new(), vec![key_of(&forward.0)]), "{entries:?}");
        }
    }
}

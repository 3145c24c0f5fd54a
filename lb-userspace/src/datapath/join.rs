//! The two entries of each conn brought together, out of a scan that shows them in any order.
//!
//! Pure. Entries are noted by partitions, then sorted within each: at a million conns a hash map costs a cache miss or
//! two per entry, and this almost none. One partition is one piece of work, so that nothing blocks for long.

use lb_common::{
    MapType,
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey},
    retire::Request,
    tcp::State,
};

use super::{
    expiry::{Deadlines, Half},
    tally::Summary,
};

/// Partitions; of two million entries, one takes 8,000.
const PARTITIONS: usize = 256;

/// One entry, in half a cache line: its own key and the other's follow from these fields in either direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    forward: FlowKey,
    /// The rest of the reverse key: its destination is the forward key's source.
    reverse_src: Ipv4,
    reverse_sport: u16,
    reverse_dport: u16,
    last_seen: u32,
    backend: u16,
    seen: u8,
    dir: Direction,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn new(key: &FlowKey, conn: &Conn) -> Self {
        let other = conn.other_key();
        let (forward, reverse) = match conn.dir {
            Direction::Forward => (*key, other),
            Direction::Reverse => (other, *key),
        };
        Self {
            forward,
            reverse_src: reverse.src,
            reverse_sport: reverse.sport,
            reverse_dport: reverse.dport,
            last_seen: conn.last_seen,
            backend: conn.backend,
            seen: conn.seen,
            dir: conn.dir,
        }
    }

    fn reverse(&self) -> FlowKey {
        FlowKey::tcp(self.reverse_src, self.reverse_sport, self.forward.src, self.reverse_dport)
    }

    /// The key of this entry and that of the other.
    pub(super) fn keys(&self) -> (FlowKey, FlowKey) {
        match self.dir {
            Direction::Forward => (self.forward, self.reverse()),
            Direction::Reverse => (self.reverse(), self.forward),
        }
    }

    const fn half(&self) -> Half {
        Half { last_seen: self.last_seen, seen: self.seen }
    }

    /// Sorts the entries of a conn together.
    fn order(&self) -> u128 {
        self.forward.bytes().try_into().map_or(0, u128::from_ne_bytes)
    }
}

/// A conn that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) request: Request,
    /// The key of the other entry.
    pub(super) other: FlowKey,
    /// `None`: an entry without its other entry.
    pub(super) state: Option<State>,
}

/// The entries of a scan, and what follows from them.
#[derive(Debug)]
pub(super) struct Join {
    deadlines: Deadlines,
    /// Backends, by their ids, that are dead and whose conns are not to be kept.
    dead: Vec<bool>,
    partitions: Vec<Vec<Entry>>,
    /// Entries whose other entry the scan did not show.
    pub(super) single: Vec<Entry>,
    /// What is over, not removed yet.
    pub(super) over: Vec<Over>,
    /// Conns with both entries.
    pub(super) pairs: u64,
}

impl Join {
    pub(super) fn new(deadlines: Deadlines, dead: Vec<bool>) -> Self {
        let partitions = vec![Vec::new(); PARTITIONS];
        Self { deadlines, dead, partitions, single: Vec::new(), over: Vec::new(), pairs: 0 }
    }

    /// Notes an entry of the scan.
    pub(super) fn note(&mut self, key: &FlowKey, conn: &Conn, summary: &mut Summary) {
        summary.backend(conn.backend).entries += 1;
        let entry = Entry::new(key, conn);
        let mixed = entry.forward.src.word() ^ (u32::from(entry.forward.sport) << 16 | u32::from(entry.forward.dport));
        // Fibonacci hashing: the upper bits of the product depend on all bits of the factor.
        let partition = mixed.wrapping_mul(0x9e37_79b1) >> (u32::BITS - PARTITIONS.ilog2());
        self.partitions[partition as usize].push(entry);
    }

    /// Joins partitions until about `entries` entries are done; `false`: none is left.
    pub(super) fn work(&mut self, entries: usize, summary: &mut Summary) -> bool {
        let mut done = 0;
        while done < entries
            && let Some(mut partition) = self.partitions.pop()
        {
            done += partition.len();
            partition.sort_unstable_by_key(Entry::order);
            for conn in partition.chunk_by(|a, b| a.forward == b.forward) {
                // An entry that was removed and made anew during the scan may show twice: the newer one counts.
                let newest = |dir| {
                    let own = conn.iter().filter(|entry| entry.dir == dir);
                    own.max_by_key(|entry| entry.last_seen.wrapping_sub(self.deadlines.origin()))
                };
                match (newest(Direction::Forward), newest(Direction::Reverse)) {
                    (Some(forward), Some(reverse)) => {
                        self.pair(forward, forward.half(), reverse.half(), summary);
                    }
                    (one, other) => self.single.extend(one.or(other)),
                }
            }
        }
        !self.partitions.is_empty()
    }

    /// Takes up to `count` single entries out.
    pub(super) fn singles(&mut self, count: usize) -> Vec<Entry> {
        self.single.split_off(self.single.len().saturating_sub(count))
    }

    /// Decides about a single entry after another look: `own` is the entry now, `other` the other one, if there is one.
    pub(super) fn settle(&mut self, entry: &Entry, own: Half, other: Option<Half>, summary: &mut Summary) {
        match other {
            Some(other) => {
                let (forward, reverse) = if entry.dir == Direction::Forward { (own, other) } else { (other, own) };
                self.pair(entry, forward, reverse, summary);
            }
            None if self.deadlines.expired_alone(own) => {
                let (key, other) = entry.keys();
                let request = Request { key, forward_seen: own.last_seen, reverse_seen: 0 };
                self.over.push(Over { request, other, state: None });
            }
            None => {}
        }
    }

    /// `entry` is either entry of the conn.
    fn pair(&mut self, entry: &Entry, forward: Half, reverse: Half, summary: &mut Summary) {
        self.pairs += 1;
        let dead = self.dead.get(usize::from(entry.backend)).copied().unwrap_or_default();
        if let Some(state) = self.deadlines.expired(forward, reverse, dead) {
            let request =
                Request { key: entry.forward, forward_seen: forward.last_seen, reverse_seen: reverse.last_seen };
            self.over.push(Over { request, other: entry.reverse(), state: Some(state) });
            return;
        }
        let tally = summary.backend(entry.backend);
        if State::of(forward.seen, reverse.seen).is_active() {
            tally.active += 1;
        } else {
            tally.inactive += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{clock::Ticks, expiry::Timeouts, tally::Tally};
    use lb_common::{
        addr::Ipv4,
        conn::Origin,
        tcp::flag::{ACK, FIN, RST, SYN},
    };

    const NOW: u32 = 1_000_000;
    const CLIENT: Ipv4 = Ipv4::new([10, 80, 1, 1]);
    const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);
    const BACKEND: Ipv4 = Ipv4::new([192, 168, 80, 167]);

    /// Both entries of a conn; another source port towards the backend, so that nothing can be guessed.
    fn conn(port: u16, backend: u16, seen: [u8; 2], seconds_ago: [u32; 2]) -> [(FlowKey, Conn); 2] {
        let forward = Conn {
            src: CLIENT,
            dst: BACKEND,
            sport: port ^ 1,
            dport: 3306,
            backend,
            dir: Direction::Forward,
            seen: seen[0],
            macs: Default::default(),
            ifindex: 0,
            hop_gen: 0,
            last_seen: NOW - seconds_ago[0] * 100,
            ack: 0,
            seq: 0,
            created: 0,
            origin: Origin::Local,
            once: 0,
            mtu: 1500,
            bytes: 0,
        };
        let reverse = Conn {
            src: VIP,
            sport: 3306,
            dst: CLIENT,
            dport: port,
            dir: Direction::Reverse,
            seen: seen[1],
            last_seen: NOW - seconds_ago[1] * 100,
            ..forward
        };
        [(FlowKey::tcp(CLIENT, port, VIP, 3306), forward), (forward.other_key(), reverse)]
    }

    fn join(entries: &[(FlowKey, Conn)]) -> (Join, Summary) {
        let deadlines = Deadlines::new(NOW, Ticks { hz: 100 }, &Timeouts::default());
        // Backend 5 is dead.
        let mut join = Join::new(deadlines, vec![false, false, false, false, false, true]);
        let mut summary = Summary::default();
        entries.iter().for_each(|(key, conn)| join.note(key, conn, &mut summary));
        while join.work(1, &mut summary) {}
        (join, summary)
    }

    #[test]
    fn entries_find_each_other_in_any_order_and_count_for_their_backend() {
        let open = [SYN | ACK, SYN | ACK];
        let mut entries: Vec<_> = (1..=50).flat_map(|port| conn(port, 1, open, [5, 5])).collect();
        entries.extend((51..=60).flat_map(|port| conn(port, 3, [SYN | ACK | FIN, SYN | ACK], [5, 5])));
        for rotation in [0, 1, 7, 59] {
            entries.rotate_left(rotation);
            let (join, summary) = join(&entries);
            assert!(join.single.is_empty() && join.over.is_empty());
            assert_eq!(join.pairs, 60);
            assert_eq!(summary.backends[1], Tally { active: 50, inactive: 0, entries: 100 });
            assert_eq!(summary.backends[3], Tally { active: 0, inactive: 10, entries: 20 });
            assert_eq!(summary.entries(), [0, 100, 0, 20]);
        }
    }

    #[test]
    fn what_is_over_is_named_by_its_forward_entry_with_what_was_seen() {
        let dead = conn(7, 1, [SYN | ACK, SYN | ACK | RST], [11, 12]);
        let alive = conn(8, 1, [SYN | ACK, SYN | ACK | RST], [11, 9]);
        let (join, summary) = join(&[dead[1], alive[0], alive[1], dead[0]]);
        assert_eq!(join.over.len(), 1);
        let over = join.over[0];
        assert_eq!((over.request.key, over.other, over.state), (dead[0].0, dead[1].0, Some(State::Close)));
        assert_eq!((over.request.forward_seen, over.request.reverse_seen), (NOW - 1100, NOW - 1200));
        assert_eq!(summary.backends[1], Tally { active: 0, inactive: 1, entries: 4 });
    }

    #[test]
    fn an_entry_shown_twice_is_one_entry_and_the_newer_counts() {
        let [forward, reverse] = conn(7, 1, [SYN | ACK, SYN | ACK | RST], [11, 11]);
        let (half, _) = join(&[forward, forward]);
        assert_eq!((half.pairs, half.single.len()), (0, 1));
        let newer = (forward.0, Conn { last_seen: NOW - 900, ..forward.1 });
        for entries in [[forward, newer, reverse], [newer, reverse, forward]] {
            let (whole, _) = join(&entries);
            assert_eq!((whole.pairs, whole.single.len(), whole.over.len()), (1, 0, 0));
        }
    }

    #[test]
    fn a_single_entry_knows_both_keys_and_gets_a_second_look() {
        let [forward, reverse] = conn(7, 1, [SYN | ACK, SYN | ACK], [11, 11]);
        for (entry, other) in [(forward, reverse), (reverse, forward)] {
            let (mut join, mut summary) = join(&[entry]);
            let single = join.singles(10);
            assert_eq!(single.len(), 1);
            assert_eq!(single[0].keys(), (entry.0, other.0));
            join.settle(&single[0], Half::from(&entry.1), Some(Half::from(&other.1)), &mut summary);
            assert_eq!((join.pairs, join.over.len()), (1, 0));
            join.settle(&single[0], Half::from(&entry.1), None, &mut summary);
            let request = Request { key: entry.0, forward_seen: NOW - 1100, reverse_seen: 0 };
            assert_eq!(join.over, [Over { request, other: other.0, state: None }]);
        }
    }

    #[test]
    fn conns_of_a_dead_backend_are_over_as_soon_as_reset_ones() {
        let open = [SYN | ACK, SYN | ACK];
        let silent = conn(7, 5, open, [12, 11]);
        let heard = conn(8, 5, open, [30, 9]);
        let elsewhere = conn(9, 3, open, [12, 11]);
        let (join, _) = join(&[silent, heard, elsewhere].concat());
        let over: Vec<_> = join.over.iter().map(|over| (over.request.key, over.state)).collect();
        assert_eq!(over, [(silent[0].0, Some(State::Established))]);
    }
}

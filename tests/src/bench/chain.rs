//! Conns whose translation is the next one's flow.
//!
//! The kernel runs a program again on the packet that the last run left. If the translation of flow `i` is the 5-tuple
//! of flow `i + 1`, every run meets another flow at another place in memory, and the program under test needs no
//! change for it. A chain of one conn, translated to itself, is the hot flow.

use lb_common::{
    addr::{Ipv4, MacPair},
    conn::{Conn, Direction, FlowKey, Origin},
    tcp::flag,
};

use super::sandbox::{NEIGHBOUR_MAC, PORT, PORT_MAC};
use crate::chance::Chance;

/// Where every flow of a chain goes.
const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);
const MYSQL: u16 = 3306;
/// `control.hop_gen` of every table here: the entries' next hops are current.
pub(super) const HOP_GEN: u32 = 1;
/// The backend of every conn.
pub(super) const BACKEND: u16 = 1;

/// A ring of conns in random order.
pub(super) struct Chain {
    /// The flows in the order in which forward packets meet them; reverse packets meet them the other way round.
    order: Vec<u32>,
    /// Flow → position in `order`.
    place: Vec<u32>,
}

impl Chain {
    /// A ring of `count` conns.
    pub(super) fn new(count: u32) -> Self {
        let order = shuffled(count);
        let mut place = vec![0; order.len()];
        for (position, &flow) in (0..).zip(&order) {
            place[flow as usize] = position;
        }
        Self { order, place }
    }

    /// Number of conns.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The 5-tuple of the packets that `dir` meets at `step`, counted from anywhere.
    pub(super) fn key(&self, dir: Direction, step: usize) -> FlowKey {
        let len = self.order.len();
        match dir {
            Direction::Forward => forward(self.order[step % len]),
            Direction::Reverse => forward(self.order[len - 1 - step % len]).swapped(),
        }
    }

    /// Both entries of every conn, conn by conn, in the order of the flows: in memory, neighbours in the chain are
    /// nowhere near each other.
    pub(super) fn entries(&self) -> impl Iterator<Item = [(FlowKey, Conn); 2]> {
        (0..self.order.len()).map(|flow| {
            let step = self.place[flow] as usize;
            let own = forward(flow as u32);
            let next = self.key(Direction::Forward, step + 1);
            // The reverse entry that belongs to it is keyed by the answer to the translated packet, and translates
            // to the answer to the original one.
            [(own, entry(next, Direction::Forward)), (next.swapped(), entry(own.swapped(), Direction::Reverse))]
        })
    }
}

/// The numbers below `count`, in a random order that is the same in every run of the benchmark.
pub(super) fn shuffled(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    // Fisher and Yates.
    let mut random = Chance::new(0x6c62_272e_07bb_0142);
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

fn forward(flow: u32) -> FlowKey {
    let [_, b, c, d] = flow.to_be_bytes();
    FlowKey::tcp(Ipv4::new([10, b, c, d]), 32768 + (flow.wrapping_mul(0x9e37_79b1) >> 18) as u16, VIP, MYSQL)
}

/// An established entry with a next hop: out by the port that packets come in by.
fn entry(to: FlowKey, dir: Direction) -> Conn {
    Conn {
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        backend: BACKEND,
        dir,
        seen: flag::SYN | flag::ACK,
        macs: MacPair { dst: NEIGHBOUR_MAC, src: PORT_MAC },
        ifindex: PORT,
        hop_gen: HOP_GEN,
        last_seen: 0,
        ack: 1,
        seq: 1,
        created: 0,
        origin: Origin::Local,
        once: 0,
        mtu: 1500,
        bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_walk_meets_every_flow_once_and_comes_back() {
        for count in [1, 2, 1000] {
            let chain = Chain::new(count);
            let table: HashMap<FlowKey, Conn> = chain.entries().flatten().collect();
            assert_eq!(table.len(), 2 * count as usize);
            for dir in [Direction::Forward, Direction::Reverse] {
                for step in 0..count as usize {
                    let conn = table[&chain.key(dir, step)];
                    let translated = FlowKey::tcp(conn.src, conn.sport, conn.dst, conn.dport);
                    assert_eq!((translated, conn.dir), (chain.key(dir, step + 1), dir), "{count}, step {step}");
                }
                assert_eq!(chain.key(dir, 0), chain.key(dir, count as usize));
            }
        }
    }

    #[test]
    fn both_entries_of_a_conn_name_each_other() {
        for [(forward, conn), (reverse, answer)] in Chain::new(100).entries() {
            assert_eq!((conn.other_key(), answer.other_key()), (reverse, forward));
        }
    }
}

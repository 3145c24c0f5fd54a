//! What the large kernel tables will take, from their sizes alone: the preallocated hash of `kernel/bpf/hashtab.c` for
//! conns, the rings and the event buffer. Services, backends and counters together stay below them by far.

use lb_common::MapType as _;
use lb_common::abi::{EVENTS_BYTES, RING_SLOTS, map};
use lb_common::conn::{Conn, FlowKey};
use lb_common::service::RingSlot;

use crate::datapath::TableSizes;

/// `struct htab_elem` of the kernel: list links, hash, LRU node.
const ELEMENT_HEADER: u64 = 48;
/// `struct bucket`: list head and lock.
const BUCKET: u64 = 16;
/// A conn has a forward and a reverse entry.
const ENTRIES_PER_CONN: u64 = 2;

/// The kernel memory of each large table in bytes: taken when the agent first starts, never grown.
///
/// One conn costs at most 320 bytes in `conns` or `half_open`.
#[must_use]
pub fn table_memory(sizes: &TableSizes) -> Vec<(&'static str, u64)> {
    let conns = |count: u32| hash_memory(ENTRIES_PER_CONN * u64::from(count), FlowKey::SIZE as u64, Conn::SIZE as u64);
    let slots = u64::from(RING_SLOTS) * u64::from(sizes.services);
    vec![
        (map::CONNS, conns(sizes.conns)),
        (map::HALF_OPEN, conns(sizes.half_open)),
        (map::RINGS, slots * (RingSlot::SIZE as u64).next_multiple_of(8)),
        (map::EVENTS, u64::from(EVENTS_BYTES)),
    ]
}

fn hash_memory(max_entries: u64, key: u64, value: u64) -> u64 {
    let element = ELEMENT_HEADER + key.next_multiple_of(8) + value.next_multiple_of(8);
    max_entries * element + max_entries.next_power_of_two() * BUCKET
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(conns: u32, half_open: u32) -> Vec<(&'static str, u64)> {
        table_memory(&TableSizes { conns, half_open, ..TableSizes::default() })
    }

    #[test]
    fn the_sums_are_those_of_the_kernel() {
        // 200,000 elements of 128 bytes and 2^18 buckets; 131,072 elements and 2^17 buckets.
        // Linux 6.18 accounts 1,168 and 896 bytes more for the first two (bpftool's memlock): per-CPU parts and the map
        // itself. 64 rings of 4096 slots, each rounded up to 8 bytes as `array_map_alloc` does.
        assert_eq!(
            of(100_000, 65_536),
            [
                ("conns", 25_600_000 + 4_194_304),
                ("half_open", 16_777_216 + 2_097_152),
                ("rings", 64 * 4096 * 8),
                ("events", 4 << 20),
            ]
        );
        assert_eq!(hash_memory(1, 9, 1), 48 + 16 + 8 + 16);
    }

    proptest! {
        #[test]
        fn a_conn_never_costs_more_than_320_bytes(conns in 1u32..=16_777_216, near_power in 0u32..=24, off in -1i64..=1) {
            let edge = u32::try_from(((1i64 << near_power) + off).clamp(1, 16_777_216)).unwrap();
            for conns in [conns, edge] {
                for (name, bytes) in of(conns, conns).into_iter().take(2) {
                    prop_assert!(bytes <= 320 * u64::from(conns), "{} for {}: {}", name, conns, bytes);
                    prop_assert!(bytes > 256 * u64::from(conns));
                }
            }
        }
    }
}

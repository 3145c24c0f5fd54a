//! Rings: how the weights of a service's backends become an order of ids, and a Maglev table.
//!
//! Pure. wrr follows the smooth weighted round robin of nginx (`ngx_http_upstream_round_robin.c`): exact shares, spread
//! as evenly as possible. mh follows "Maglev" (NSDI 2016, section 3.4) with IPVS's weights (`ip_vs_mh.c`); its hash is
//! of the backend's address and port, so that both directors build the same table whatever their ids.

use lb_common::{abi::RING_SLOTS, addr::Ipv4, service::Scheduler};

/// Slots of one half of a service's region: a ring is at most this long.
pub const HALF: usize = RING_SLOTS as usize / 2;

/// The largest prime that fits a half: the size of a Maglev table.
pub const MAGLEV_SLOTS: usize = 2039;
const _: () = assert!(MAGLEV_SLOTS <= HALF);

/// A backend that takes new conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id, which goes into the ring.
    pub id: u16,
    /// Its address.
    pub addr: Ipv4,
    /// Its port.
    pub port: u16,
    /// Its weight, not 0.
    pub weight: u16,
}

/// The ring of backend ids for `scheduler`; at most [`HALF`] slots, empty without candidates.
///
/// Candidates of weight 0 are left out. rr counts every weight as 1; lc and wlc hold each backend once, because the
/// packet path walks the whole ring and reads the weights from the backends.
#[must_use]
pub fn ring(scheduler: Scheduler, candidates: &[Candidate]) -> Vec<u16> {
    let mut some: Vec<Candidate> = candidates.iter().filter(|candidate| candidate.weight > 0).copied().collect();
    some.truncate(HALF);
    match scheduler {
        Scheduler::Rr | Scheduler::Lc | Scheduler::Wlc => some.iter().map(|candidate| candidate.id).collect(),
        Scheduler::Wrr | Scheduler::Sh => {
            let weights: Vec<u32> = some.iter().map(|candidate| u32::from(candidate.weight)).collect();
            interleave(&shares(&weights, HALF)).into_iter().map(|at| some[at].id).collect()
        }
        Scheduler::Mh => maglev(&some),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How many of at most `limit` slots each weight gets: exact if their reduced sum fits, else by largest remainder.
///
/// Every weight gets at least one slot, so `weights` is no longer than `limit`.
fn shares(weights: &[u32], limit: usize) -> Vec<u32> {
    let Some(divisor) = weights.iter().copied().reduce(gcd).filter(|divisor| *divisor > 0) else { return Vec::new() };
    let reduced: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
    let sum: u64 = reduced.iter().map(|weight| u64::from(*weight)).sum();
    if sum <= limit as u64 {
        return reduced;
    }
    // One slot for each first; the rest in proportion.
    let spare = (limit - weights.len()) as u64;
    let mut slots: Vec<u32> = reduced.iter().map(|weight| 1 + (u64::from(*weight) * spare / sum) as u32).collect();
    let given: u64 = slots.iter().map(|count| u64::from(*count)).sum();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|at| std::cmp::Reverse(u64::from(reduced[*at]) * spare % sum));
    for at in by_remainder.into_iter().take(limit - given as usize) {
        slots[at] += 1;
    }
    slots
}

/// The indices `0..counts.len()`, each as often as its count says, spread smoothly.
fn interleave(counts: &[u32]) -> Vec<usize> {
    let total: i64 = counts.iter().map(|count| i64::from(*count)).sum();
    let mut credit = vec![0_i64; counts.len()];
    let mut order = Vec::with_capacity(total as usize);
    for _ in 0..total {
        for (credit, count) in credit.iter_mut().zip(counts) {
            *credit += i64::from(*count);
        }
        // The first of the richest, so that equal backends come in the order of the config.
        let Some(richest) = (0..counts.len()).rev().max_by_key(|at| credit[*at]) else { break };
        credit[richest] -= total;
        order.push(richest);
    }
    order
}

/// 64 well-mixed bits of a word (the finaliser of SplitMix64).
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn maglev(candidates: &[Candidate]) -> Vec<u16> {
    const SIZE: u64 = MAGLEV_SLOTS as u64;
    let Some(heaviest) = candidates.iter().map(|candidate| candidate.weight).max() else { return Vec::new() };
    let divisor = candidates.iter().map(|candidate| u32::from(candidate.weight)).reduce(gcd).unwrap_or(1);
    // A backend fills a slot whenever its credit reaches that of the heaviest: shares follow the weights.
    let full = u64::from(u32::from(heaviest) / divisor);
    let mut permutations: Vec<(u64, u64)> = candidates
        .iter()
        .map(|candidate| {
            let name = (u64::from(u32::from_be_bytes(candidate.addr.octets)) << 16) | u64::from(candidate.port);
            (mix(name) % SIZE, mix(!name) % (SIZE - 1) + 1)
        })
        .collect();
    // The order of turns must not depend on the order of the config.
    let mut turns: Vec<usize> = (0..candidates.len()).collect();
    turns.sort_by_key(|at| (candidates[*at].addr.octets, candidates[*at].port));
    let mut credit = vec![0_u64; candidates.len()];
    let mut table: Vec<Option<u16>> = vec![None; MAGLEV_SLOTS];
    let mut filled = 0;
    loop {
        for &at in &turns {
            credit[at] += u64::from(u32::from(candidates[at].weight) / divisor);
            if credit[at] < full {
                continue;
            }
            credit[at] -= full;
            let (position, skip) = &mut permutations[at];
            // The size is prime, so the steps visit every slot: a free one comes.
            while table[*position as usize].is_some() {
                *position = (*position + *skip) % SIZE;
            }
            table[*position as usize] = Some(candidates[at].id);
            filled += 1;
            if filled == MAGLEV_SLOTS {
                return table.into_iter().flatten().collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        let candidate = |(at, weight): (usize, &u16)| Candidate {
            id: at as u16,
            addr: Ipv4::new([192, 168, (at / 250) as u8, (at % 250) as u8]),
            port: 3306,
            weight: *weight,
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn counts(ring: &[u16]) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for id in ring {
            *counts.entry(*id).or_default() += 1;
        }
        counts
    }

    #[test]
    fn weights_three_and_one_interleave_smoothly() {
        assert_eq!(ring(Scheduler::Wrr, &candidates(&[3, 1])), [0, 0, 1, 0]);
        assert_eq!(ring(Scheduler::Wrr, &candidates(&[5, 1, 1])), [0, 0, 1, 0, 2, 0, 0]);
        // Equal weights, whatever they are, need one round.
        assert_eq!(ring(Scheduler::Wrr, &candidates(&[300, 300])), [0, 1]);
    }

    #[test]
    fn rr_ignores_weights_but_zero() {
        assert_eq!(ring(Scheduler::Rr, &candidates(&[7, 0, 1])), [0, 2]);
        assert_eq!(ring(Scheduler::Rr, &candidates(&[0, 0])), Vec::<u16>::new());
    }

    #[test]
    fn a_long_ring_is_scaled_and_nobody_is_lost() {
        let ring = ring(Scheduler::Wrr, &candidates(&[65_535, 32_768, 1]));
        let counts = counts(&ring);
        assert_eq!(ring.len(), HALF);
        assert_eq!(counts[&2], 1);
        let ratio = counts[&0] as f64 / counts[&1] as f64;
        assert!((ratio - 2.0).abs() < 0.01, "{counts:?}");
    }

    #[test]
    fn maglev_shares_follow_the_weights() {
        let counts = counts(&ring(Scheduler::Mh, &candidates(&[3, 1, 0, 2])));
        assert_eq!(counts.values().sum::<usize>(), MAGLEV_SLOTS);
        assert!(!counts.contains_key(&2));
        for (id, weight) in [(0_u16, 3.0), (1, 1.0), (3, 2.0)] {
            let expected = MAGLEV_SLOTS as f64 * weight / 6.0;
            assert!((counts[&id] as f64 - expected).abs() <= 2.0, "{counts:?}");
        }
    }

    #[test]
    fn maglev_moves_few_clients_when_a_backend_leaves() {
        let all = candidates(&[1; 10]);
        let before = ring(Scheduler::Mh, &all);
        let after = ring(Scheduler::Mh, &all[..9]);
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 9 && old != new).count();
        let kept = before.iter().filter(|id| **id != 9).count();
        assert!(moved * 5 < kept, "{moved} of {kept} slots of living backends moved");
        assert!(!after.contains(&9));
    }

    #[test]
    fn maglev_does_not_depend_on_ids_or_order() {
        let mut other = candidates(&[2, 1, 1]);
        let address = |ring: Vec<u16>, set: &[Candidate]| -> Vec<Ipv4> {
            ring.iter().map(|id| set.iter().find(|candidate| candidate.id == *id).unwrap().addr).collect()
        };
        let first = address(ring(Scheduler::Mh, &other), &other);
        other.reverse();
        for (id, candidate) in other.iter_mut().enumerate() {
            candidate.id = 40 + id as u16;
        }
        assert_eq!(first, address(ring(Scheduler::Mh, &other), &other));
    }

    /// Random weights from a fixed seed: shares that fit are exact, and no stretch of a ring is off by more than one
    /// turn per backend.
    #[test]
    fn shares_are_exact_for_any_weights() {
        let mut state = 1_u64;
        let mut next = |limit: u64| {
            state = state.wrapping_add(1);
            mix(state) % limit
        };
        for _ in 0..300 {
            let weights: Vec<u16> = (0..1 + next(12)).map(|_| next(100) as u16).collect();
            let set = candidates(&weights);
            let ring = ring(Scheduler::Wrr, &set);
            let counts = counts(&ring);
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (id, weight) in weights.iter().enumerate() {
                let got = counts.get(&(id as u16)).copied().unwrap_or(0) as u64;
                assert_eq!(got * sum, u64::from(*weight) * ring.len() as u64, "{weights:?}");
            }
            let mut seen = vec![0_u64; weights.len()];
            for (at, id) in ring.iter().enumerate() {
                seen[usize::from(*id)] += 1;
                for (id, weight) in weights.iter().enumerate() {
                    let ideal = (at as f64 + 1.0) * f64::from(*weight) / sum as f64;
                    let off = (seen[id] as f64 - ideal).abs();
                    assert!(off <= weights.len() as f64 / 2.0 + 1.0, "{weights:?}: {off} at {at}");
                }
            }
        }
    }
}

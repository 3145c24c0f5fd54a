//! Which numbers of a session's frames were seen: a frame counts once (RFC 6479 in spirit).

/// Frames that may be late.
pub(super) const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The last [`WINDOW`] numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    highest: u64,
    seen: [u64; WORDS],
}

impl Replay {
    /// The number is new enough, and was not seen.
    pub(super) const fn is_new(&self, number: u64) -> bool {
        if number > self.highest {
            return true;
        }
        number != 0 && self.highest - number < WINDOW && self.seen[word(number)] & bit(number) == 0
    }

    /// Notes a number that [`Replay::is_new`] and whose frame is authentic.
    pub(super) fn note(&mut self, number: u64) {
        if number > self.highest {
            let steps = (number - self.highest).min(WINDOW);
            for passed in (number - steps + 1)..=number {
                self.seen[word(passed)] &= !bit(passed);
            }
            self.highest = number;
        }
        self.seen[word(number)] |= bit(number);
    }
}

const fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

const fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_once_and_not_when_it_is_too_old() {
        let mut replay = Replay::default();
        assert!(!replay.is_new(0), "numbers begin with 1");
        for number in [1, 3, 2, 1024, 2000, 1500, 5000] {
            assert!(replay.is_new(number), "{number}");
            replay.note(number);
            assert!(!replay.is_new(number), "{number} again");
        }
        assert!(!replay.is_new(5000 - WINDOW) && replay.is_new(5000 - WINDOW + 1));
    }

    #[test]
    fn it_agrees_with_a_set_of_numbers_in_any_order() {
        let (mut replay, mut set, mut highest) = (Replay::default(), std::collections::BTreeSet::new(), 0);
        let mut chance = 1_u64;
        for step in 0..200_000_u64 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (step + (chance >> 33) % 1200).saturating_sub(1100).max(1);
            let new = !set.contains(&number) && highest < number + WINDOW;
            assert_eq!(replay.is_new(number), new, "{number} after {highest}");
            if new {
                replay.note(number);
                set.insert(number);
                highest = highest.max(number);
            }
        }
    }
}

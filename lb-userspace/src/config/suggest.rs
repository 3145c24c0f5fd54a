//! "Did you mean": the nearest of a few words by edit distance (optimal string alignment: insert, delete, replace, swap
//! two neighbours).

/// The word nearest to `given`, if one is near enough to be what was meant: a third of the letters may be wrong.
pub(super) fn nearest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(40).map(fold).collect();
    let mut best: Option<(usize, &str)> = None;
    for word in words {
        let letters: Vec<char> = word.chars().map(fold).collect();
        let allowed = (given.len().max(letters.len()) / 3).max(1);
        if given.len().abs_diff(letters.len()) > allowed {
            continue;
        }
        let distance = edit_distance(&given, &letters);
        if distance <= allowed && distance < letters.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// Case and the kind of dash are no difference worth a distance.
fn fold(c: char) -> char {
    if c == '-' { '_' } else { c.to_ascii_lowercase() }
}

fn edit_distance(a: &[char], b: &[char]) -> usize {
    // Three rows of the matrix are enough; the swap looks two rows back.
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replace = last[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 6] = ["address", "weight", "scheduler", "half_open", "rr", "wrr"];

    #[test]
    fn typing_errors_find_their_word() {
        for (given, meant) in [
            ("adress", Some("address")),
            ("wieght", Some("weight")),
            ("Scheduler", Some("scheduler")),
            ("half-open", Some("half_open")),
            ("wr", Some("rr")),
            ("wrrr", Some("wrr")),
            ("backend", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, WORDS.into_iter()), meant, "{given}");
        }
    }

    proptest! {
        #[test]
        fn one_typing_error_costs_one(word in "[a-z]{2,12}", at in 0usize..12, c in "[a-z]") {
            let right: Vec<char> = word.chars().collect();
            let at = at % (right.len() - 1);
            let c = c.chars().next().unwrap();
            let mut inserted = right.clone();
            inserted.insert(at, c);
            let mut swapped = right.clone();
            swapped.swap(at, at + 1);
            prop_assert_eq!(edit_distance(&inserted, &right), 1);
            prop_assert_eq!(edit_distance(&right, &inserted), 1);
            prop_assert!(edit_distance(&swapped, &right) <= 1);
            prop_assert_eq!(edit_distance(&right, &right), 0);
        }
    }
}

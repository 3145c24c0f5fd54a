//! Durations as people write them: `10s`, `500ms`, `8h1m`. One or more whole numbers, each with a unit of ms, s, m, h
//! or d, from the large unit to the small.

use std::fmt::Write as _;
use std::time::Duration;

use super::code::Code;
use super::problem::Problem;
use crate::printable::quote;

/// Longest duration in the configuration: 30 days.
pub const MAX_DURATION: Duration = Duration::from_secs(30 * 86_400);

/// Units from large to small with their lengths in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Writes a duration so that the configuration reads the same value back; parts below a millisecond are cut.
///
/// ```
/// use std::time::Duration;
/// use lb_userspace::config::format_duration;
/// assert_eq!(format_duration(Duration::from_secs(28_860)), "8h1m");
/// assert_eq!(format_duration(Duration::ZERO), "0s");
/// ```
#[must_use]
pub fn format_duration(value: Duration) -> String {
    let mut rest = value.as_millis();
    let mut out = String::new();
    for (unit, length) in UNITS {
        let count = rest / u128::from(length);
        rest %= u128::from(length);
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{count}{unit}");
        }
    }
    if out.is_empty() { String::from("0s") } else { out }
}

/// Reads a duration between 1 ms and [`MAX_DURATION`].
pub(super) fn parse_duration(text: &str) -> Result<Duration, Problem> {
    let bad = |message: String, help: &str| Problem::new(Code::BadDuration, message, help);
    if text.is_empty() {
        return Err(bad("the duration is empty".into(), "write a number with a unit, like `60s` or `8h1m`"));
    }
    if let Some(at) = text.find(char::is_whitespace) {
        return Err(bad("a blank inside a duration".into(), "write it without blanks, like `8h1m`").at(at..at + 1));
    }
    if text.starts_with('-') {
        return Err(Problem::new(Code::DurationRange, "a duration below zero", "remove the minus sign"));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(
            format!("the duration {} has no unit", quote(text)),
            &format!("add one of ms, s, m, h, d: `{}s` for seconds", quote(text).trim_matches('`')),
        ));
    }
    let mut total: u64 = 0;
    let mut last_unit: Option<usize> = None;
    let mut at = 0;
    while at < text.len() {
        let digits = span_of(text, at, |b| b.is_ascii_digit());
        let unit_end = span_of(text, digits, |b| !b.is_ascii_digit());
        let (number, unit) = (&text[at..digits], &text[digits..unit_end]);
        if number.is_empty() {
            let message = format!("{} is not a duration", quote(text));
            return Err(bad(message, "write a number with a unit, like `60s` or `8h1m`"));
        }
        if unit.starts_with(['.', ',']) {
            return Err(bad("a fraction in a duration".into(), "use a smaller unit: `1500ms` instead of `1.5s`")
                .at(digits..digits + 1));
        }
        if unit.is_empty() {
            let message = format!("{} at the end of the duration has no unit", quote(number));
            return Err(bad(message, "add one of ms, s, m, h, d behind every number").at(at..digits));
        }
        let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) else {
            let help = match unit {
                "sec" | "secs" | "second" | "seconds" | "S" => "seconds are written `s`",
                "min" | "mins" | "minute" | "minutes" => "minutes are written `m`",
                "hr" | "hour" | "hours" | "H" => "hours are written `h`",
                "day" | "days" | "D" => "days are written `d`",
                "us" | "µs" | "ns" => "the smallest unit is a millisecond, `ms`",
                "w" | "week" | "weeks" => "the largest unit is a day: a week is `7d`",
                _ => "the units are ms, s, m, h and d",
            };
            return Err(bad(format!("unknown unit {}", quote(unit)), help).at(digits..unit_end));
        };
        if last_unit.is_some_and(|last| index <= last) {
            let help = "every unit once, from days down to milliseconds, like `8h1m`";
            return Err(bad("the units are out of order".into(), help).at(at..unit_end));
        }
        last_unit = Some(index);
        let length = UNITS[index].1;
        let sum = number.parse::<u64>().ok().and_then(|n| n.checked_mul(length)).and_then(|n| total.checked_add(n));
        let Some(sum) = sum else { return Err(too_long(text)) };
        total = sum;
        at = unit_end;
    }
    let value = Duration::from_millis(total);
    if value.is_zero() {
        let help = "give it at least 1ms; remove the line to use the default";
        return Err(Problem::new(Code::DurationRange, "a duration of zero", help));
    }
    if value > MAX_DURATION {
        return Err(too_long(text));
    }
    Ok(value)
}

/// Reads a duration that may be zero.
pub(super) fn parse_delay(text: &str) -> Result<Duration, Problem> {
    if matches!(text, "0s" | "0ms") { Ok(Duration::ZERO) } else { parse_duration(text) }
}

fn too_long(text: &str) -> Problem {
    let message = format!("{} is longer than 30 days", quote(text));
    Problem::new(Code::DurationRange, message, "the longest duration is `30d`")
}

/// The end of the run of bytes from `at` that `belongs` accepts. Digits are ASCII, so runs end on character boundaries.
fn span_of(text: &str, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    at + text.as_bytes()[at..].iter().take_while(|b| belongs(**b)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_write_them_this_way() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("8h1m", 28_860_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("30d", 2_592_000_000),
            ("1ms", 1),
            ("0h5m", 300_000),
            ("090s", 90_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refusals_say_which_part_and_what_to_write() {
        for (text, code, part, help) in [
            ("", Code::BadDuration, None, "like `60s`"),
            ("60", Code::BadDuration, None, "`60s` for seconds"),
            ("1m30", Code::BadDuration, Some(2..4), "behind every number"),
            ("1.5s", Code::BadDuration, Some(1..2), "1500ms"),
            ("8h 1m", Code::BadDuration, Some(2..3), "without blanks"),
            ("1m8h", Code::BadDuration, Some(2..4), "from days down"),
            ("1s1s", Code::BadDuration, Some(2..4), "every unit once"),
            ("10sec", Code::BadDuration, Some(2..5), "written `s`"),
            ("10µs", Code::BadDuration, Some(2..5), "millisecond"),
            ("abc", Code::BadDuration, None, "like `60s`"),
            ("auto", Code::BadDuration, None, "like `60s`"),
            ("+5s", Code::BadDuration, None, "like `60s`"),
            ("-5s", Code::DurationRange, None, "minus"),
            ("0s", Code::DurationRange, None, "at least 1ms"),
            ("0d0ms", Code::DurationRange, None, "at least 1ms"),
            ("31d", Code::DurationRange, None, "30d"),
            ("30d1ms", Code::DurationRange, None, "30d"),
            ("99999999999999999999d", Code::DurationRange, None, "30d"),
            ("18446744073709551615ms", Code::DurationRange, None, "30d"),
            ("18446744073709551615h1m", Code::DurationRange, None, "30d"),
        ] {
            let problem = parse_duration(text).expect_err(text);
            assert_eq!((problem.code, &problem.part), (code, &part), "{text}: {problem:?}");
            assert!(problem.help.contains(help), "{text}: {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 1..=MAX_DURATION.as_millis() as u64) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }

        #[test]
        fn no_text_panics_and_the_blame_is_a_part_of_it(text in "([0-9a-zµ. -]{0,4}|[0-9]{0,22}(ms|s|m|h|d)){0,6}") {
            match parse_duration(&text) {
                Ok(value) => prop_assert!(!value.is_zero() && value <= MAX_DURATION),
                Err(problem) => if let Some(part) = problem.part {
                    prop_assert!(text.get(part).is_some());
                },
            }
        }
    }
}

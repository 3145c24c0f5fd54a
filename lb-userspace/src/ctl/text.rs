//! Numbers and times as people write and read them, and plain columns.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use crate::control::protocol::LeftView;

/// Reads `90`, `90s`, `500ms` or `8h1m`: units ms s m h d, a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| format!("expected a time such as 90, 90s, 500ms or 8h1m, not '{text}'"))
}

fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let part = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?);
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// A length of time in its two largest units: `42s`, `3m5s`, `8h1m`, `12d4h`.
pub(super) fn duration(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let two = |a: u64, a_unit: char, b: u64, b_unit: char| match b {
        0 => format!("{a}{a_unit}"),
        _ => format!("{a}{a_unit}{b}{b_unit}"),
    };
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => two(m, 'm', s, 's'),
        (0, _, _) => two(h, 'h', m, 'm'),
        _ => two(d, 'd', h, 'h'),
    }
}

/// What is left of a backend: `10 conns left, the oldest 2h3m old, 7 idle for a minute or longer`.
pub(super) fn left(left: &LeftView) -> String {
    let LeftView { conns, oldest_seconds, idle } = *left;
    let conns = if conns == 1 { "1 conn left".to_owned() } else { format!("{conns} conns left") };
    format!("{conns}, the oldest {} old, {idle} idle for a minute or longer", duration(oldest_seconds))
}

/// A size of memory: `512 B`, `12.5 KiB`, `3.0 GiB`.
pub(super) fn memory(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How full something is, rounded down, so that `100%` means full.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{}%", u128::from(part) * 100 / u128::from(whole)) }
}

/// Which edge of a column its cells keep to.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// Prints columns as wide as they need to be; the titles are the first row.
pub(super) fn columns<const N: usize>(out: &mut impl Write, align: [Align; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut width = [0; N];
    for row in rows {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for ((cell, width), align) in row.iter().zip(width).zip(align) {
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = match align {
                Align::Left => write!(line, "{gap}{cell:<width$}"),
                Align::Right => write!(line, "{gap}{cell:>width$}"),
            };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_units() {
        for (text, millis) in
            [("90", 90_000), ("0", 0), ("500ms", 500), ("8h1m", 28_860_000), ("1d2h3m4s5ms", 93_784_005)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5y", "-1", "1.5s", "1h5", "99999999999999999999s", "9999999999999999999d", "5 s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_in_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (185, "3m5s"), (28_860, "8h1m"), (3600, "1h"), (1_051_200, "12d4h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn memory_and_fill_are_rounded_as_people_expect() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12_800, "12.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(memory(bytes), text);
        }
        assert_eq!([percent(0, 0), percent(1, 3), percent(999, 1000), percent(7, 7)], ["-", "33%", "99%", "100%"]);
    }
}

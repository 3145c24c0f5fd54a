//! Byte offsets → lines, columns and excerpts that are safe to print on a terminal. It owns the position arithmetic
//! and knows nothing of TOML or of what went wrong.

use std::ops::Range;

use super::secrets;
use crate::printable::is_printable;

/// Longest excerpt in characters; longer lines are cut around the caret.
const EXCERPT_WIDTH: usize = 100;
/// Characters kept before the caret in a cut line.
const EXCERPT_LEAD: usize = 40;

/// A place in the file, with the text to show for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The source line: tabs widened, control characters replaced, long lines cut with `…`.
    pub excerpt: String,
    /// Where the marked part begins in `excerpt`, in characters from 0.
    pub caret: usize,
    /// Length of the marked part in characters, at least 1.
    pub caret_len: usize,
}

/// The text of a configuration with an index of its lines.
pub(super) struct Source<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    /// What may be shown to nobody.
    secrets: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // A byte order mark is no column of the first line.
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let line_starts = std::iter::once(first).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts, secrets: secrets::find(text) }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The line that holds byte `offset`, counted from 0.
    pub(super) fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    /// The byte that line `index` begins with.
    pub(super) fn line_start(&self, index: usize) -> Option<usize> {
        self.line_starts.get(index).copied()
    }

    /// The text of line `index` without its line end; empty when there is no such line.
    pub(super) fn line(&self, index: usize) -> &'a str {
        let start = self.line_starts.get(index).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(index + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }

    /// Where `span` begins. A span behind the last text is moved to the end of that text, so that there is a line to show.
    pub(super) fn locate(&self, span: &Range<usize>) -> Location {
        let begin = span.start.min(self.text.trim_end().len());
        let index = self.line_index(begin);
        let line = self.line(index);
        let line_start = self.line_starts.get(index).copied().unwrap_or(0);
        let from = floor_boundary(line, begin.saturating_sub(line_start));
        let to = floor_boundary(line, span.end.saturating_sub(line_start)).max(from);
        let column = line[..from].chars().count();
        let marked = line[from..to].chars().count();
        let masked;
        let shown =
            if self.secrets.iter().any(|secret| secret.start < line_start + line.len() && line_start < secret.end) {
                masked = secrets::mask(line, line_start, &self.secrets);
                masked.as_str()
            } else {
                line
            };
        let (excerpt, caret, caret_len) = excerpt(shown, column, marked);
        Location { line: index + 1, column: column + 1, excerpt, caret, caret_len }
    }
}

impl Source<'_> {
    /// A message about this text, without the secrets in it.
    pub(super) fn redact(&self, message: String) -> String {
        if self.secrets.is_empty() { message } else { secrets::redact(message, self.text, &self.secrets) }
    }
}

/// The largest character boundary of `text` that is not above `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Cuts and cleans `line` so that `marked` characters from `column` stay visible; returns the caret's place in it.
fn excerpt(line: &str, column: usize, marked: usize) -> (String, usize, usize) {
    // Only as much as decides whether the line must be cut: lines may be a mebibyte long.
    let short = line.chars().nth(EXCERPT_WIDTH).is_none();
    let skip = if short || column <= EXCERPT_LEAD { 0 } else { column - EXCERPT_LEAD };
    let mut out = String::new();
    let mut width = 0;
    let mut push = |c: char| {
        let before = width;
        match c {
            '\t' => {
                out.push_str("    ");
                width += 4;
            }
            c => {
                out.push(if is_printable(c) { c } else { '\u{fffd}' });
                width += 1;
            }
        }
        before
    };
    if skip > 0 {
        push('…');
    }
    let (mut caret, mut caret_end) = (None, None);
    let mut rest = line.chars().enumerate().skip(skip);
    for (at, c) in rest.by_ref().take(EXCERPT_WIDTH) {
        let before = push(c);
        if at == column {
            caret = Some(before);
        }
        if at == column + marked {
            caret_end = Some(before);
        }
    }
    let cut = rest.next().is_some();
    let end = caret_end.unwrap_or(width);
    let caret = caret.unwrap_or(width);
    if cut {
        out.push('…');
    }
    (out, caret, end.saturating_sub(caret).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> (usize, usize, String, String) {
        let location = Source::new(text).locate(&span);
        let marked = location.excerpt.chars().skip(location.caret).take(location.caret_len).collect();
        (location.line, location.column, location.excerpt, marked)
    }

    #[test]
    fn columns_count_characters_and_start_at_one() {
        assert_eq!(at("a = 1\r\nüb = 2\r\n", 7..10), (2, 1, "üb = 2".into(), "üb".into()));
        assert_eq!(at("ü = 1", 5..6), (1, 5, "ü = 1".into(), "1".into()));
        assert_eq!(at("\u{feff}a = 1", 3..4), (1, 1, "a = 1".into(), "a".into()));
    }

    #[test]
    fn a_span_behind_the_text_shows_the_last_line() {
        assert_eq!(at("a = 1\n\n\n", 8..8), (1, 6, "a = 1".into(), "".into()));
        assert_eq!(at("", 0..0), (1, 1, "".into(), "".into()));
        assert_eq!(at("a", 90..99), (1, 2, "a".into(), "".into()));
    }

    #[test]
    fn a_span_over_several_lines_marks_the_first() {
        assert_eq!(at("a = [\n 1\n]", 4..10), (1, 5, "a = [".into(), "[".into()));
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}NEEDLE{}", "x".repeat(5000), "y".repeat(5000));
        let (_, column, excerpt, marked) = at(&text, 5000..5006);
        assert_eq!((column, marked.as_str()), (5001, "NEEDLE"));
        assert!(excerpt.chars().count() <= EXCERPT_WIDTH + 2, "{excerpt}");
        assert!(excerpt.starts_with('…') && excerpt.ends_with('…'), "{excerpt}");
    }

    #[test]
    fn nothing_from_the_file_steers_the_terminal() {
        let (_, _, excerpt, marked) = at("\ta\u{1b}[2Jb\u{202e}", 1..2);
        assert_eq!(excerpt, "    a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(marked, "a");
    }
}

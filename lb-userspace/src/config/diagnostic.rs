//! What is wrong with a file, for people and for programs. [`Sink`] collects problems by byte range while the file is
//! read; [`Diagnostics`] is the sorted and located result, and its `Display` is what `check` prints.

use std::ops::Range;
use std::{error, fmt};

use super::code::{Code, Severity};
use super::source::{Location, Source};

/// As many diagnostics are kept and shown; beyond that the file is not a configuration.
pub(super) const MAX_KEPT: usize = 100;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code; it decides the severity.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where; none when the file could not be read at all.
    pub location: Option<Location>,
    /// A related place, like "first used at lb.toml:9:8".
    pub note: Option<String>,
    /// What to do about it.
    pub help: String,
}

/// All problems of one file, by position. As an error it holds at least one problem that is not a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    source_name: String,
    items: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// The one diagnostic of a file that could not be read.
    pub(super) fn of_file(source_name: &str, code: Code, message: String, help: &str) -> Self {
        let item = Diagnostic { code, message, location: None, note: None, help: help.to_owned() };
        Self { source_name: source_name.to_owned(), items: vec![item], errors: 1, warnings: 0 }
    }

    /// The file's name as the caller gave it.
    #[must_use]
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// The problems by position: all of them, or the first hundred with errors preferred.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// How many errors were found, kept or not.
    #[must_use]
    pub const fn error_count(&self) -> usize {
        self.errors
    }

    /// How many warnings were found, kept or not.
    #[must_use]
    pub const fn warning_count(&self) -> usize {
        self.warnings
    }

    /// True when neither an error nor a warning was found.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    /// One diagnostic as a block of lines.
    fn write_block(&self, item: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { code, message, location, note, help } = item;
        let name = &self.source_name;
        let severity = code.severity();
        let mut gutter = 1;
        if let Some(Location { line, column, excerpt, caret, caret_len }) = location {
            gutter = line.to_string().len();
            writeln!(f, "{name}:{line}:{column}: {severity}[{code}]: {message}")?;
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{line} | {excerpt}")?;
            writeln!(f, "{:gutter$} | {:caret$}{:^<caret_len$}", "", "", "")?;
        } else {
            writeln!(f, "{name}: {severity}[{code}]: {message}")?;
        }
        if let Some(note) = note {
            writeln!(f, "{:gutter$} = note: {note}", "")?;
        }
        writeln!(f, "{:gutter$} = help: {help}", "")
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            self.write_block(item, f)?;
            writeln!(f)?;
        }
        let hidden = self.errors + self.warnings - self.items.len();
        if hidden > 0 {
            writeln!(f, "… and {hidden} more")?;
        }
        let mut counts = Vec::new();
        if self.errors > 0 {
            counts.push(counted(self.errors, "error"));
        }
        if self.warnings > 0 {
            counts.push(counted(self.warnings, "warning"));
        }
        if !counts.is_empty() {
            write!(f, "{}: {}", self.source_name, counts.join(", "))?;
        }
        Ok(())
    }
}

impl error::Error for Diagnostics {}

/// `1 error`, `2 errors`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A problem as the reader reports it: places are byte ranges still.
struct Raw {
    code: Code,
    span: Range<usize>,
    message: String,
    help: String,
    note: Option<(&'static str, Range<usize>)>,
}

/// Collects problems in any order.
#[derive(Default)]
pub(super) struct Sink {
    raw: Vec<Raw>,
}

impl Sink {
    pub(super) fn report(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.raw.push(Raw { code, span, message: message.into(), help: help.into(), note: None });
    }

    /// Adds a related place to the problem reported last: "`text` at FILE:LINE:COLUMN".
    pub(super) fn note(&mut self, text: &'static str, place: Range<usize>) {
        if let Some(last) = self.raw.last_mut() {
            last.note = Some((text, place));
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.raw.iter().any(|raw| raw.code.severity() == Severity::Error)
    }

    /// Drops what `keep` refuses; it is given the code and the place.
    pub(super) fn retain(&mut self, keep: impl Fn(Code, &Range<usize>) -> bool) {
        self.raw.retain(|raw| keep(raw.code, &raw.span));
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.raw.extend(other.raw);
    }

    /// Sorts, counts and locates everything.
    pub(super) fn into_diagnostics(mut self, source_name: &str, source: &Source<'_>) -> Diagnostics {
        let errors = self.raw.iter().filter(|raw| raw.code.severity() == Severity::Error).count();
        let warnings = self.raw.len() - errors;
        if self.raw.len() > MAX_KEPT {
            self.raw.sort_by_key(|raw| (raw.code.severity(), raw.span.start));
            self.raw.truncate(MAX_KEPT);
        }
        self.raw.sort_by_key(|raw| (raw.span.start, raw.code));
        let items = self.raw.into_iter().map(|raw| Diagnostic {
            code: raw.code,
            message: source.redact(raw.message),
            location: Some(source.locate(&raw.span)),
            note: raw.note.map(|(text, place)| {
                let Location { line, column, .. } = source.locate(&place);
                format!("{text} at {source_name}:{line}:{column}")
            }),
            help: source.redact(raw.help),
        });
        Diagnostics { source_name: source_name.to_owned(), items: items.collect(), errors, warnings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_place_code_source_caret_note_and_remedy() {
        let mut sink = Sink::default();
        sink.report(Code::AllDrained, 0..1, "later in the list, earlier in the file", "do this");
        sink.report(Code::UnknownKey, 10..16, "unknown key `adress`", "did you mean `address`?");
        sink.note("first used", 0..1);
        let text = "a = 1\nx = adress\n";
        let shown = sink.into_diagnostics("lb.toml", &Source::new(text)).to_string();
        let expected = "\
lb.toml:1:1: warning[C060]: later in the list, earlier in the file
  |
1 | a = 1
  | ^
  = help: do this

lb.toml:2:5: error[C012]: unknown key `adress`
  |
2 | x = adress
  |     ^^^^^^
  = note: first used at lb.toml:1:1
  = help: did you mean `address`?

lb.toml: 1 error, 1 warning";
        assert_eq!(shown, expected);
    }

    #[test]
    fn beyond_a_hundred_errors_come_first_and_the_rest_is_counted() {
        let text = "x\n".repeat(300);
        let mut sink = Sink::default();
        for line in 0..299 {
            sink.report(Code::AllDrained, line * 2..line * 2 + 1, "w", "h");
        }
        sink.report(Code::UnknownKey, 598..599, "the only error", "h");
        let found = sink.into_diagnostics("lb.toml", &Source::new(&text));
        assert_eq!((found.error_count(), found.warning_count(), found.iter().count()), (1, 299, 100));
        assert!(found.iter().any(|item| item.message == "the only error"));
        assert!(found.to_string().ends_with("… and 200 more\nlb.toml: 1 error, 299 warnings"));
    }
}

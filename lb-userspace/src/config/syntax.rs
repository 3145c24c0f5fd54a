//! Syntax errors of the `toml` crate in the words and the shape of all other diagnostics, each with a remedy for what
//! people do: forget quotes, write `:` or braces, leave a header open. The parser recovers after an error; [`Damage`]
//! says how far what it recovered can be believed.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::Error;

use super::code::Code;
use super::diagnostic::{MAX_KEPT, Sink};
use super::source::Source;
use crate::printable::quote;

/// What syntax errors did to the rest of the file.
pub(super) struct Damage {
    /// Lines (from 0) with a syntax error: nothing else is said about them.
    lines: BTreeSet<usize>,
    /// Keys or headers were lost, so what seems missing, unknown or repeated may not be.
    structure: bool,
}

impl Damage {
    /// Whether a problem found in the recovered tree can be believed.
    pub(super) fn spares(&self, code: Code, span: &Range<usize>, source: &Source<'_>) -> bool {
        !self.lines.contains(&source.line_index(span.start)) && (!self.structure || code.is_about_one_value())
    }
}

/// Reports `errors`, one for each line.
pub(super) fn report(mut errors: Vec<Error>, source: &Source<'_>, sink: &mut Sink) -> Damage {
    errors.sort_by_key(|error| place(error, source).start);
    let mut damage = Damage { lines: BTreeSet::new(), structure: false };
    for error in &errors {
        let span = place(error, source);
        let index = source.line_index(span.start);
        damage.structure |= !is_local(error.message());
        if damage.lines.insert(index) {
            if damage.lines.len() <= MAX_KEPT {
                report_one(error.message(), span, source, sink);
            } else {
                // It is counted, not shown; searching where it was given first would take quadratic time.
                sink.report(Code::Syntax, span, error.message(), "");
            }
        }
    }
    damage
}

/// Where the error is; behind the text for one without a place.
fn place(error: &Error, source: &Source<'_>) -> Range<usize> {
    let end = source.text().trim_end().len();
    let span = error.span().unwrap_or(end..end);
    span.start.min(end)..span.end
}

/// True when the parser lost at most one value.
fn is_local(message: &str) -> bool {
    const LOCAL: [&str; 8] = [
        "duplicate key",
        "string values must be quoted",
        "invalid float",
        "invalid integer",
        "unexpected leading zero",
        "integers with a radix",
        "invalid basic string",
        "missing escaped value",
    ];
    LOCAL.iter().any(|start| message.starts_with(start))
}

fn report_one(message: &str, span: Range<usize>, source: &Source<'_>, sink: &mut Sink) {
    let index = source.line_index(span.start);
    let line = source.line(index).trim();
    if message.starts_with("duplicate key") {
        return duplicate(span, index, source, sink);
    }
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let is = |starts: &[&str]| starts.iter().any(|start| what.starts_with(start));
    let mut span = span;
    let (message, help) = if line.contains(['“', '”', '„', '‘', '’']) {
        ("typographic quotes".into(), "use the straight quotes `\"` around text".into())
    } else if is(&["string values must be quoted", "invalid float", "invalid integer", "unexpected leading zero"])
        || is(&["invalid date", "invalid time", "invalid value"])
    {
        if let Some(value) = value_of(source, index) {
            span = value;
        }
        bare_value(line)
    } else if line.ends_with('{') || line.starts_with('}') {
        (
            "braces around a section".into(),
            "sections begin with [name] or [[name]] and end where the next begins".into(),
        )
    } else if line.contains(':') && !line.contains('=') {
        ("`:` behind a key".into(), "put `=` between key and value".into())
    } else if is(&["key with no value"]) {
        let help = "write `key = value`; text stands in quotes; comments begin with `#`";
        ("a key without a value".into(), help.into())
    } else if is(&["unclosed table", "unclosed array table"]) {
        ("the section header is not closed".into(), "write [name] or [[name]], with nothing else inside".into())
    } else if is(&["invalid basic string", "invalid literal string"]) {
        ("the text is not closed".into(), "add the closing quote at the end of the value".into())
    } else if is(&["missing escaped value"]) {
        ("an unknown escape in a string".into(), "write `\\\\` for a backslash, or use single quotes".into())
    } else if is(&["unexpected key or value"]) {
        ("more text behind the value".into(), "write one key on a line; comments begin with `#`".into())
    } else if is(&["invalid unquoted key", "unquoted keys cannot be empty"]) {
        ("not a key".into(), "keys are made of letters, digits, `_` and `-`, and end at `=`".into())
    } else if is(&["unclosed array", "missing comma", "unclosed inline table"]) {
        (what.to_owned(), "check the brackets and the commas of this value".into())
    } else if expected.is_empty() || expected == "nothing" {
        (what.to_owned(), "compare the line with the example configuration".into())
    } else {
        (what.to_owned(), format!("expected {expected}"))
    };
    sink.report(Code::Syntax, span, message, help);
}

/// The place of the value on line `index`, without comment; none if there is no value.
fn value_of(source: &Source<'_>, index: usize) -> Option<Range<usize>> {
    let line = source.line(index);
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next().unwrap_or_default();
    let start = source.line_start(index)? + key.len() + 1 + (value.len() - value.trim_start().len());
    (!value.trim().is_empty()).then(|| start..start + value.trim().len())
}

/// Message and remedy for a value that is no TOML value, mostly text without quotes.
fn bare_value(line: &str) -> (String, String) {
    let Some((key, value)) = line.split_once('=') else {
        return ("not a value".into(), "text stands in quotes".into());
    };
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or_default().trim());
    if value.is_empty() {
        let message = format!("{} has no value", quote(key));
        return (message, "put the value behind `=`, or remove the line to use the default".into());
    }
    if value.contains(['=', '"', '\'', '[', '{', ',']) {
        return ("not a value".into(), "write one key on a line; text stands in quotes".into());
    }
    let message = format!("{} is neither text in quotes nor a number", quote(value));
    if value.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return (message, "write the number without leading zeros".into());
    }
    let (key, value) = (quote(key), quote(value));
    (message, format!("put quotes around it: `{} = \"{}\"`", key.trim_matches('`'), value.trim_matches('`')))
}

/// Reports a key or header that is there twice, with the place of the first if it can be found.
fn duplicate(span: Range<usize>, index: usize, source: &Source<'_>, sink: &mut Sink) {
    let line = source.line(index);
    if let Some((name, many)) = header(line) {
        let before =
            (0..index).rev().find_map(|i| header(source.line(i)).filter(|(n, _)| *n == name).map(|h| (i, h.1)));
        let title = quote(line.split('#').next().unwrap_or(line).trim());
        match before {
            Some((first, true)) if !many => {
                let message = format!("{title} with single brackets, after [[{name}]]");
                let help = format!("write [[{name}]]: there can be several");
                sink.report(Code::WrongBrackets, span, message, help);
                note_line(first, source, sink);
            }
            first => {
                let help = "put all its keys under one header";
                sink.report(Code::DuplicateKey, span, format!("the section {title} is given twice"), help);
                if let Some((first, _)) = first {
                    note_line(first, source, sink);
                }
            }
        }
        return;
    }
    let key = source.text().get(span.clone()).unwrap_or_default();
    let message = format!("the key {} is given twice in this section", quote(key));
    sink.report(Code::DuplicateKey, span, message, "remove one of the two lines");
    let section = (0..index).rev().take_while(|&i| header(source.line(i)).is_none());
    let same = |line: &str| line.split_once('=').is_some_and(|(before, _)| before.trim() == key);
    if let Some(first) = section.filter(|&i| same(source.line(i))).last() {
        note_line(first, source, sink);
    }
}

fn note_line(index: usize, source: &Source<'_>, sink: &mut Sink) {
    let line = source.line(index);
    if let Some(start) = source.line_start(index) {
        let start = start + line.len() - line.trim_start().len();
        sink.note("first given", start..start);
    }
}

/// The name in a section header and whether it has double brackets.
fn header(line: &str) -> Option<(&str, bool)> {
    let inside = line.trim_start().strip_prefix('[')?;
    let (inside, many) = match inside.strip_prefix('[') {
        Some(inside) => (inside, true),
        None => (inside, false),
    };
    Some((inside.split(']').next().unwrap_or(inside).trim(), many))
}

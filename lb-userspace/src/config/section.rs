//! The walker: one TOML table with the place it was written. It takes keys by name and type, reports what does not fit
//! and at the end what is left over. It knows the schema's names, not their meaning.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::code::Code;
use super::diagnostic::Sink;
use super::model::MaxConn;
use super::problem::Problem;
use super::schema::{Kind, Remedy, Room};
use super::words::parse_auto;
use crate::printable::quote;

/// A table being read.
pub(super) struct Section<'a> {
    room: &'static Room,
    header: Range<usize>,
    table: &'a DeTable<'a>,
    taken: Vec<&'static str>,
    missing: Vec<Missing>,
}

/// A key that should be there. It is reported at the end, when it is known that it was not misspelled.
struct Missing {
    name: &'static str,
    code: Code,
    span: Range<usize>,
    message: String,
    help: String,
}

/// A value with its place; the key's place where the value has none of its own.
struct Found<'a> {
    value: &'a DeValue<'a>,
    span: Range<usize>,
}

impl<'a> Section<'a> {
    /// `header` is where a missing key is reported.
    pub(super) fn new(room: &'static Room, header: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { room, header, table, taken: Vec::new(), missing: Vec::new() }
    }

    pub(super) fn header(&self) -> Range<usize> {
        self.header.clone()
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.table.contains_key(name)
    }

    /// A string that `parse` understands, if it is there and right; every other case but absence is reported.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
        sink: &mut Sink,
    ) -> Option<Spanned<T>> {
        let Found { value, span } = self.take(name)?;
        let DeValue::String(text) = value else {
            self.wrong_type(name, "a string", value, span, sink);
            return None;
        };
        checked(parse(text), span, text, sink)
    }

    /// As [`Section::parsed`], and absence is reported too.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
        sink: &mut Sink,
    ) -> Option<Spanned<T>> {
        self.must_have(name);
        self.parsed(name, parse, sink)
    }

    /// Reports that a key is absent, if it is.
    pub(super) fn must_have(&mut self, name: &'static str) {
        if !self.has(name) {
            let example = self.example(name);
            let message = format!("{} has no `{name}`", self.room.title());
            let help = format!("add a line like `{name} = {example}`");
            self.missing(name, Code::MissingKey, self.header(), &message, &help);
        }
    }

    /// Says that `name` is not there and must be, unless a key turns out to be its misspelling.
    pub(super) fn missing(&mut self, name: &'static str, code: Code, span: Range<usize>, message: &str, help: &str) {
        self.missing.push(Missing { name, code, span, message: message.to_owned(), help: help.to_owned() });
    }

    /// An integer within `range`; `code` and `help` are for one outside.
    pub(super) fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
        code: Code,
        help: &str,
        sink: &mut Sink,
    ) -> Option<Spanned<u32>> {
        let Found { value, span } = self.take(name)?;
        let DeValue::Integer(number) = value else {
            self.wrong_type(name, "an integer", value, span, sink);
            return None;
        };
        let number_value = i128::from_str_radix(number.as_str(), number.radix()).ok();
        match number_value.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(number) => Some(Spanned::new(span, number)),
            None => {
                let given = quote(&number.to_string());
                let message = format!("`{name}` is {given}, outside {} to {}", range.start(), range.end());
                sink.report(code, span, message, help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, name: &'static str, sink: &mut Sink) -> Option<Spanned<bool>> {
        let Found { value, span } = self.take(name)?;
        let DeValue::Boolean(value) = value else {
            self.wrong_type(name, "true or false", value, span, sink);
            return None;
        };
        Some(Spanned::new(span, *value))
    }

    /// A count from 1 on, or the word `auto`.
    pub(super) fn count_or_auto(&mut self, name: &'static str, sink: &mut Sink) -> Option<Spanned<MaxConn>> {
        if let Some(DeValue::String(_)) = self.table.get(name).map(Spanned::get_ref) {
            return self.parsed(name, parse_auto, sink);
        }
        let help = "give the most conns, from 1 on, or \"auto\"; remove the line for no limit";
        let count = self.integer(name, 1..=u32::MAX, Code::CheckRange, help, sink)?;
        Some(Spanned::new(count.span(), MaxConn::Some(count.into_inner())))
    }

    /// The section `[name]`, if it is there.
    pub(super) fn section(&mut self, name: &'static str, room: &'static Room, sink: &mut Sink) -> Option<Section<'a>> {
        let Found { value, span } = self.take(name)?;
        match value {
            DeValue::Table(table) => Some(Section::new(room, span, table)),
            DeValue::Array(items) if !items.is_empty() && items.iter().all(|item| item.get_ref().is_table()) => {
                let (right, wrong) = (self.room.child_title(name, false), self.room.child_title(name, true));
                let message = format!("{wrong} with double brackets");
                sink.report(Code::WrongBrackets, span, message, format!("write {right}: there is only one"));
                let first = items.first()?;
                Some(Section::new(room, first.span(), first.get_ref().as_table()?))
            }
            _ => {
                self.wrong_type(name, "a section", value, span, sink);
                None
            }
        }
    }

    /// All sections `[[name]]`. None when something else stands there, which is reported.
    pub(super) fn sections(
        &mut self,
        name: &'static str,
        room: &'static Room,
        sink: &mut Sink,
    ) -> Option<Vec<Section<'a>>> {
        let Some(Found { value, span }) = self.take(name) else { return Some(Vec::new()) };
        match value {
            DeValue::Array(items) => {
                let mut sections = Vec::with_capacity(items.len());
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => sections.push(Section::new(room, item.span(), table)),
                        other => self.wrong_type(name, "a section", other, item.span(), sink),
                    }
                }
                (!sections.is_empty() || items.is_empty()).then_some(sections)
            }
            DeValue::Table(table) => {
                let (right, wrong) = (self.room.child_title(name, true), self.room.child_title(name, false));
                let message = format!("{wrong} with single brackets");
                sink.report(Code::WrongBrackets, span.clone(), message, format!("write {right}: there can be several"));
                Some(vec![Section::new(room, span, table)])
            }
            _ => {
                self.wrong_type(name, "a section", value, span, sink);
                None
            }
        }
    }

    /// All sections `[name.X]` with a name that `parse` understands. None when something else stands there.
    pub(super) fn named<T>(
        &mut self,
        name: &'static str,
        room: &'static Room,
        parse: impl Fn(&str) -> Result<T, Problem>,
        sink: &mut Sink,
    ) -> Option<Vec<(Spanned<T>, Section<'a>)>> {
        let Some(Found { value, span }) = self.take(name) else { return Some(Vec::new()) };
        let DeValue::Table(table) = value else {
            let message = format!("`{name}`: expected a section for each name");
            sink.report(Code::WrongType, span, message, format!("write {} on a line of its own", room.title()));
            return None;
        };
        let mut sections = Vec::with_capacity(table.len());
        for (key, value) in table {
            let DeValue::Table(inner) = value.get_ref() else {
                let message = format!("{} {} needs a name of its own", quote(key.get_ref()), room.place());
                sink.report(Code::WrongType, key.span(), message, format!("write it below {}", room.title()));
                continue;
            };
            let span = if value.span().is_empty() { key.span() } else { value.span() };
            if let Some(parsed) = checked(parse(key.get_ref()), key.span(), key.get_ref(), sink) {
                sections.push((parsed, Section::new(room, span, inner)));
            }
        }
        Some(sections)
    }

    /// The strings of `name = { x = "…" }` with what `parse` makes of each.
    pub(super) fn entries<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
        sink: &mut Sink,
    ) -> Vec<(Spanned<String>, Spanned<T>)> {
        let Some(Found { value, span }) = self.take(name) else { return Vec::new() };
        let DeValue::Table(table) = value else {
            self.wrong_type(name, "a table", value, span, sink);
            return Vec::new();
        };
        let mut found = Vec::with_capacity(table.len());
        for (key, value) in table {
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(name, "strings in it", value.get_ref(), value.span(), sink);
                continue;
            };
            if let Some(parsed) = checked(parse(text), value.span(), text, sink) {
                found.push((Spanned::new(key.span(), key.get_ref().to_string()), parsed));
            }
        }
        found
    }

    /// Reports every key that was not taken, and what is missing.
    pub(super) fn finish(self, sink: &mut Sink) {
        let mut meant = Vec::new();
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if self.taken.contains(&name) {
                continue;
            }
            let (is_section, many) = match value.get_ref() {
                DeValue::Table(_) => (true, false),
                DeValue::Array(items) => {
                    (!items.is_empty() && items.iter().all(|item| item.get_ref().is_table()), true)
                }
                _ => (false, false),
            };
            let Remedy { help, meant: key_meant } = self.room.remedy_for_unknown(name, is_section);
            meant.extend(key_meant);
            if is_section {
                let title = self.room.child_title(quote(name).trim_matches('`'), many);
                sink.report(Code::UnknownSection, key.span(), format!("unknown section {title}"), help);
            } else {
                let message = format!("unknown key {} {}", quote(name), self.room.place());
                sink.report(Code::UnknownKey, key.span(), message, help);
            }
        }
        for Missing { name, code, span, message, help } in self.missing {
            if !meant.contains(&name) {
                sink.report(code, span, message, help);
            }
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Found<'a>> {
        debug_assert!(self.room.keys.iter().any(|key| key.name == name), "`{name}` is not in the schema");
        self.taken.push(name);
        let (key, value) = self.table.get_key_value(name)?;
        let span = if value.span().is_empty() { key.span() } else { value.span() };
        Some(Found { value: value.get_ref(), span })
    }

    fn example(&self, name: &str) -> &'static str {
        self.room.keys.iter().find(|key| key.name == name).map_or("", |key| key.example)
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &DeValue<'_>, span: Range<usize>, sink: &mut Sink) {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let help = match self.room.keys.iter().find(|key| key.name == name).map(|key| key.kind) {
            Some(Kind::Sections) => format!("write {} on a line of its own", self.room.child_title(name, true)),
            Some(Kind::Section) => format!("write {} on a line of its own", self.room.child_title(name, false)),
            _ => format!("write it like `{name} = {}`", self.example(name)),
        };
        sink.report(Code::WrongType, span, format!("`{name}`: expected {expected}, found {found}"), help);
    }
}

/// What a parser made of the string at `span`; its refusal is reported.
fn checked<T>(parsed: Result<T, Problem>, span: Range<usize>, text: &str, sink: &mut Sink) -> Option<Spanned<T>> {
    match parsed {
        Ok(value) => Some(Spanned::new(span, value)),
        Err(Problem { code, message, help, part }) => {
            sink.report(code, part_of(span, text, part), message, help);
            None
        }
    }
}

/// The place of `part` of a string whose literal is at `span`. Exact for a literal without escapes, else all of it.
fn part_of(span: Range<usize>, text: &str, part: Option<Range<usize>>) -> Range<usize> {
    match part {
        Some(part) if span.len() == text.len() + 2 => span.start + 1 + part.start..span.start + 1 + part.end,
        _ => span,
    }
}

//! What a parser of one value says when it refuses: the common currency between the value parsers and the walker.

use std::ops::Range;

use super::code::Code;

/// Why a string is not the value that was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: String,
    /// The bytes of the string that are to blame; none for all of it.
    pub(super) part: Option<Range<usize>>,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), part: None }
    }

    /// Blames only `part` of the string.
    pub(super) fn at(self, part: Range<usize>) -> Self {
        Self { part: Some(part), ..self }
    }
}

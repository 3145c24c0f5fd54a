//! The configuration file: TOML text → checked, typed [`Config`], or everything that is wrong with it at once.
//!
//! A straight line of files: `load` (bytes) → `syntax` (TOML errors) → `read` with `section` and `schema` (keys and
//! values) → `validate` (relations) → `model` (the result). Nothing here looks at the running system; a file that
//! passes may still name an interface that this host does not have.

use std::path::Path;

use toml::de::DeTable;

mod address;
mod check;
mod code;
mod diagnostic;
mod duration;
mod load;
mod memory;
mod model;
mod names;
mod problem;
mod read;
mod report;
mod schema;
mod secrets;
mod section;
mod source;
mod suggest;
mod sync;
mod syntax;
mod validate;
mod vrrp;
mod words;

pub use crate::datapath::{Mode, TableSizes, Timeouts};
pub use code::{Code, Severity};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use duration::{MAX_DURATION, format_duration};
pub use lb_common::service::{Refusal, Scheduler};
pub use memory::table_memory;
pub use model::{AgentSettings, Backend, Config, Interface, MaxConn, Service};
pub use report::check_report;
pub use source::Location;
pub use sync::{SYNC_PORT, Sync, SyncPeer};
pub use vrrp::{Director, Track, Tracked, Vip, Vrrp};

use diagnostic::Sink;
use source::Source;

/// The outcome of a check: the configuration unless there was an error, and all diagnostics in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Present exactly when `diagnostics` holds no error.
    pub config: Option<Config>,
    /// Errors and warnings by position.
    pub diagnostics: Diagnostics,
}

impl Checked {
    /// The configuration alone, or the diagnostics as an error. Warnings of a good file are dropped.
    ///
    /// # Errors
    /// All diagnostics, when at least one is an error.
    pub fn into_result(self) -> Result<Config, Diagnostics> {
        self.config.ok_or(self.diagnostics)
    }
}

impl Config {
    /// Reads and checks the file at `path`. Use [`check_file`] to see the warnings of a good file.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        check_file(path).into_result()
    }

    /// Checks `text`; `source_name` is what diagnostics call it. Use [`check_text`] to see the warnings of a good text.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        check_text(source_name, text).into_result()
    }
}

/// Reads and checks the file at `path`.
#[must_use]
pub fn check_file(path: &Path) -> Checked {
    match load::read_text(path) {
        Ok(text) => check_text(&path.display().to_string(), &text),
        Err(diagnostics) => Checked { config: None, diagnostics },
    }
}

/// Checks `text`; `source_name` is what diagnostics call it.
#[must_use]
pub fn check_text(source_name: &str, text: &str) -> Checked {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let help = "write at least schema_version, one [[interface]] and one [[service]] with a [[service.backend]]";
        let diagnostics = Diagnostics::of_file(source_name, Code::Empty, "the file is empty".into(), help);
        return Checked { config: None, diagnostics };
    }
    let source = Source::new(text);
    let end = text.trim_end().len();
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut found = Sink::default();
    let draft = read::read(root.get_ref(), end..end, &mut found);
    if let Some(draft) = &draft {
        validate::validate(draft, &mut found);
    }
    let mut sink = Sink::default();
    if !errors.is_empty() {
        let damage = syntax::report(errors, &source, &mut sink);
        found.retain(|code, span| damage.spares(code, span, &source));
    }
    sink.absorb(found);
    let config = if sink.has_errors() { None } else { draft.and_then(read::Draft::build) };
    Checked { config, diagnostics: sink.into_diagnostics(source_name, &source) }
}

//! From the TOML tree to a plan of checks: keys, defaults, and what does not go together.

use std::{ops::Range, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{
    super::{
        code::Code,
        diagnostic::Sink,
        duration::parse_duration,
        names::parse_file,
        section::Section,
        words::{parse_level, parse_tls},
    },
    values::{Word, parse_condition, parse_interval, parse_sql, parse_tls_name, parse_user},
};
use crate::health::{Cadence, Condition, Level, Plan, Tls, condition::OwnSql};

/// The lag that a replica may have, unless the file says otherwise.
const MAX_LAG: Duration = Duration::from_secs(30);
const ROUNDS: std::ops::RangeInclusive<u32> = 1..=100;
const JITTER: std::ops::RangeInclusive<u32> = 0..=50;

/// What could be read, with the places that relations are reported at.
pub(in super::super) struct CheckDraft {
    header: Range<usize>,
    /// None when it is not there; none inside when it was reported.
    level: Option<Option<Spanned<Level>>>,
    user: Option<Spanned<String>>,
    has_user: bool,
    password_file: Option<Spanned<PathBuf>>,
    tls: Option<Spanned<Tls>>,
    tls_ca: Option<Spanned<PathBuf>>,
    tls_name: Option<Spanned<String>>,
    condition: Option<Spanned<Vec<Word>>>,
    max_lag: Option<Spanned<Duration>>,
    sql: Option<Spanned<String>>,
    expect: Option<Spanned<String>>,
    cadence: Cadence,
    relogin: Option<Duration>,
}

/// Reads `[service.check]`.
pub(in super::super) fn read(mut section: Section<'_>, sink: &mut Sink) -> CheckDraft {
    let header = section.header();
    let level = section.has("level").then(|| section.parsed("level", parse_level, sink));
    let has_user = section.has("user");
    let user = section.parsed("user", parse_user, sink);
    let password_file = section.parsed("password_file", parse_file, sink);
    let tls = section.parsed("tls", parse_tls, sink);
    let tls_ca = section.parsed("tls_ca", parse_file, sink);
    let tls_name = section.parsed("tls_name", parse_tls_name, sink);
    let condition = section.parsed("condition", parse_condition, sink);
    let max_lag = section.parsed("max_lag", parse_duration, sink);
    let sql = section.parsed("sql", parse_sql, sink);
    let expect = section.parsed("expect", |text| Ok(text.to_owned()), sink);
    let mut cadence = Cadence::default();
    let mut time = |name, to: &mut Duration| {
        if let Some(value) = section.parsed(name, parse_interval, sink) {
            *to = value.into_inner();
        }
    };
    time("inter", &mut cadence.inter);
    // Whoever checks seldom wants the verdict as fast as before, and whoever checks often not slower than that.
    cadence.fastinter = cadence.fastinter.min(cadence.inter);
    cadence.downinter = cadence.inter;
    time("fastinter", &mut cadence.fastinter);
    time("downinter", &mut cadence.downinter);
    time("timeout", &mut cadence.timeout);
    let relogin = section.parsed("relogin", parse_interval, sink).map(Spanned::into_inner);
    let mut number = |name, range, help: &str, to: &mut u32| {
        if let Some(value) = section.integer(name, range, Code::CheckRange, help, sink) {
            *to = value.into_inner();
        }
    };
    number("rise", ROUNDS, "give the passes in a row that bring a backend up", &mut cadence.rise);
    number("fall", ROUNDS, "give the failures in a row that take a backend out", &mut cadence.fall);
    number("jitter", JITTER, "give the percent by which intervals may be shorter", &mut cadence.jitter);
    section.finish(sink);
    CheckDraft {
        header,
        level,
        user,
        has_user,
        password_file,
        tls,
        tls_ca,
        tls_name,
        condition,
        max_lag,
        sql,
        expect,
        cadence,
        relogin,
    }
}

/// Reports what does not go together.
pub(in super::super) fn validate(draft: &CheckDraft, sink: &mut Sink) {
    let asks = draft.condition.is_some() || draft.sql.is_some();
    match draft.level.as_ref().map(|level| level.as_ref()) {
        None if !draft.has_user && !asks => {
            let message = "checks without a check user only see that the server answers";
            let help = "add `user` and `password_file`; `lbctl check-user --sql` prints how to create the user";
            sink.report(Code::GreetingOnly, draft.header.clone(), message, help);
        }
        Some(Some(level)) if *level.get_ref() >= Level::Auth && !draft.has_user => {
            let message = format!("level {} needs a check user", level.get_ref());
            let help = "add `user` and `password_file`; `lbctl check-user --sql` prints how to create the user";
            sink.report(Code::CheckConflict, level.span(), message, help);
        }
        Some(Some(level)) if *level.get_ref() < Level::Query && asks => {
            let message = format!("level {} asks nothing, so the condition is never looked at", level.get_ref());
            sink.report(Code::CheckConflict, level.span(), message, "write `level = \"query\"`, or remove the line");
        }
        None if asks && !draft.has_user => {
            let help = "add `user` and `password_file`; `lbctl check-user --sql` prints how to create the user";
            sink.report(Code::CheckConflict, draft.header.clone(), "a condition needs a check user", help);
        }
        _ => {}
    }
    if let (Some(file), false) = (&draft.password_file, draft.has_user) {
        let help = "add `user`: the password is whose?";
        sink.report(Code::CheckConflict, file.span(), "a password without a user", help);
    }
    let verifies = draft.tls.as_ref().filter(|tls| *tls.get_ref() == Tls::Verify);
    if let (Some(tls), None) = (verifies, &draft.tls_ca) {
        let help = "add `tls_ca` with the file of the authority that signed the servers' certificates";
        sink.report(Code::CheckConflict, tls.span(), "nothing to verify certificates with", help);
    }
    let idle = |sink: &mut Sink, at: Range<usize>, key: &str, without: &str| {
        let message = format!("`{key}` does nothing without {without}");
        sink.report(Code::WithoutEffect, at, message, format!("add {without}, or remove `{key}`"));
    };
    if verifies.is_none() {
        let keys = [
            ("tls_ca", draft.tls_ca.as_ref().map(Spanned::span)),
            ("tls_name", draft.tls_name.as_ref().map(Spanned::span)),
        ];
        for (key, at) in keys {
            if let Some(at) = at {
                idle(sink, at, key, "`tls = \"verify\"`");
            }
        }
    }
    let replica = draft.condition.as_ref().is_some_and(|words| words.get_ref().contains(&Word::Replica));
    if let (Some(lag), false) = (&draft.max_lag, replica) {
        idle(sink, lag.span(), "max_lag", "`condition = \"replica\"`");
    }
    if let (Some(expect), None) = (&draft.expect, &draft.sql) {
        idle(sink, expect.span(), "expect", "`sql`");
    }
}

impl CheckDraft {
    /// The checks log in, so that the server can be asked something.
    pub(in super::super) fn logs_in(&self) -> bool {
        let level = self.level.as_ref().and_then(Option::as_ref);
        self.has_user && level.is_none_or(|level| *level.get_ref() >= Level::Auth)
    }

    /// The plan, when nothing in it was reported as an error.
    pub(in super::super) fn build(self) -> Option<Plan> {
        let words = self.condition.map(Spanned::into_inner).unwrap_or_default();
        let has = |word| words.contains(&word);
        let lag = self.max_lag.map_or(MAX_LAG, Spanned::into_inner);
        let expect = self.expect.map(Spanned::into_inner);
        let condition = Condition {
            writable: has(Word::Writable),
            replica: has(Word::Replica).then_some(lag),
            galera: has(Word::Galera),
            group_replication: has(Word::GroupReplication),
            own: self.sql.map(|sql| OwnSql { sql: sql.into_inner(), expect }),
        };
        let level = match self.level {
            Some(level) => level?.into_inner(),
            None if !condition.is_empty() => Level::Query,
            None if self.has_user => Level::Auth,
            None => Level::Greeting,
        };
        let defaults = Plan::default();
        Some(Plan {
            level,
            cadence: self.cadence,
            user: self.user.map(Spanned::into_inner),
            password_file: self.password_file.map(Spanned::into_inner),
            tls: self.tls.map_or(defaults.tls, Spanned::into_inner),
            tls_ca: self.tls_ca.map(Spanned::into_inner),
            tls_name: self.tls_name.map(Spanned::into_inner),
            condition,
            relogin: self.relogin.unwrap_or(defaults.relogin),
        })
    }
}

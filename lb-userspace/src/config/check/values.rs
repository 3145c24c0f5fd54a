//! Single values of `[service.check]`.

use std::time::Duration;

use rustls::pki_types::ServerName;

use super::super::{code::Code, duration::parse_duration, problem::Problem, suggest::nearest};
use crate::printable::quote;

/// The shortest interval: below it checks would be load.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3600);
/// MySQL allows 32, MariaDB 128 characters.
const MAX_USER: usize = 128;
const MAX_SQL: usize = 4096;

/// A word of `condition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Writable,
    Replica,
    Galera,
    GroupReplication,
}

const WORDS: [(&str, Word); 4] = [
    ("writable", Word::Writable),
    ("replica", Word::Replica),
    ("galera", Word::Galera),
    ("group_replication", Word::GroupReplication),
];

/// What people call them elsewhere.
const SYNONYMS: [(&str, &str); 8] = [
    ("writer", "writable"),
    ("primary", "writable"),
    ("master", "writable"),
    ("slave", "replica"),
    ("replication", "replica"),
    ("pxc", "galera"),
    ("wsrep", "galera"),
    ("gr", "group_replication"),
];

/// Reads `condition`: one word, or several with commas between.
pub(super) fn parse_condition(text: &str) -> Result<Vec<Word>, Problem> {
    let all = || WORDS.iter().map(|(name, _)| *name);
    let mut found = Vec::new();
    let mut at = 0;
    for part in text.split(',') {
        let word = part.trim();
        let start = at + part.len() - part.trim_start().len();
        at += part.len() + 1;
        let Some((_, meant)) = WORDS.iter().find(|(name, _)| *name == word) else {
            let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
            let list = all().collect::<Vec<_>>().join(", ");
            let help = match synonym.or_else(|| nearest(word, all())) {
                Some(near) => format!("did you mean `{near}`? The words are {list}"),
                None => format!("use one or more of {list}, with commas between; your own statement goes to `sql`"),
            };
            let problem = Problem::new(Code::UnknownWord, format!("{} is not a condition", quote(word)), help);
            return Err(if word.is_empty() { problem } else { problem.at(start..start + word.len()) });
        };
        found.push(*meant);
    }
    Ok(found)
}

/// Reads an interval or a limit of the checks.
pub(super) fn parse_interval(text: &str) -> Result<Duration, Problem> {
    let value = parse_duration(text)?;
    if (SHORTEST..=LONGEST).contains(&value) {
        return Ok(value);
    }
    let message = format!("{} is outside 50ms to 1h", quote(text));
    Err(Problem::new(Code::CheckRange, message, "checks run every second by default, `inter = \"1s\"`"))
}

/// Reads the check user.
pub(super) fn parse_user(text: &str) -> Result<String, Problem> {
    let bad = |message: &str, help: &str| Err(Problem::new(Code::BadText, message, help));
    match text {
        "" => bad("the user is empty", "remove the line for a check without a login, or name the check user"),
        "root" | "mysql.sys" | "mysql.session" => {
            bad("an administrator as the check user", "create a user that may do nothing: `lbctl check-user --sql`")
        }
        _ if text.contains('@') => bad("a host in the user", "write the name alone; the server knows the hosts"),
        _ if text.chars().any(char::is_control) => bad("a control character in the user", "write the plain name"),
        _ if text.chars().count() > MAX_USER => bad("the user is too long", "MySQL allows 32 characters"),
        _ => Ok(text.to_owned()),
    }
}

/// Reads the operator's own statement.
pub(super) fn parse_sql(text: &str) -> Result<String, Problem> {
    let bad = |message: &str, help: &str| Err(Problem::new(Code::BadText, message, help));
    let statement = text.trim().trim_end_matches(';').trim_end();
    if statement.is_empty() {
        return bad("the statement is empty", "write one that answers a row, like `SELECT 1`");
    }
    if statement.len() > MAX_SQL {
        return bad("the statement is longer than 4096 bytes", "put it into a view or a procedure on the server");
    }
    let verb = statement.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_uppercase();
    if !["SELECT", "SHOW", "CALL", "WITH", "TABLE", "VALUES"].contains(&verb.as_str()) {
        return bad("a statement that answers no rows", "a check reads: SELECT, SHOW or CALL");
    }
    Ok(statement.to_owned())
}

/// Reads the name in the server's certificate.
pub(super) fn parse_tls_name(text: &str) -> Result<String, Problem> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            let message = format!("{} is no name of a host", quote(text));
            Err(Problem::new(
                Code::BadText,
                message,
                "give the name in the servers' certificates, like `db.example.org`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_words_with_commas() {
        assert_eq!(parse_condition("writable"), Ok(vec![Word::Writable]));
        assert_eq!(parse_condition(" galera ,writable"), Ok(vec![Word::Galera, Word::Writable]));
        for (text, part, help) in [
            ("writable, slave", Some(10..15), "did you mean `replica`?"),
            ("writeable", Some(0..9), "did you mean `writable`?"),
            ("", None, "use one or more of"),
            ("writable,", None, "use one or more of"),
        ] {
            let problem = parse_condition(text).expect_err(text);
            assert_eq!(problem.part, part, "{text}");
            assert!(problem.help.starts_with(help), "{text}: {problem:?}");
        }
    }

    #[test]
    fn statements_read() {
        assert_eq!(parse_sql(" select 1; "), Ok("select 1".into()));
        for text in ["", ";", "DELETE FROM t", "-- x"] {
            assert!(parse_sql(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_have_limits() {
        assert_eq!(parse_interval("50ms"), Ok(SHORTEST));
        for text in ["49ms", "2h", "1"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}

//! What one check found: the verdict rules for everything a MySQL server, or whatever listens there, may answer.
//!
//! Error numbers: MySQL's `share/messages_to_clients.txt`, MariaDB's `sql/share/errmsg-utf8.txt`. Texts of servers are
//! hostile: they are cut and cleaned before anybody sees them.

use std::fmt;

use super::plan::Facts;
use crate::printable::clean;

/// How far a check had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// TCP handshake.
    Connect,
    /// The server speaks first.
    Greeting,
    /// TLS handshake.
    Tls,
    /// Credentials.
    Login,
    /// COM_PING on the check's connection.
    Ping,
    /// A statement on it.
    Query,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "TCP handshake",
            Self::Greeting => "greeting",
            Self::Tls => "TLS handshake",
            Self::Login => "login",
            Self::Ping => "ping",
            Self::Query => "query",
        })
    }
}

/// Why a check failed: the server cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing listens on the port.
    Refused,
    /// The network says that there is no way.
    Unreachable(String),
    /// The connection was reset.
    Reset(Phase),
    /// The server closed the connection without a word.
    Closed(Phase),
    /// No answer in time.
    Timeout(Phase),
    /// Not MySQL's protocol.
    Garbage {
        /// Where.
        phase: Phase,
        /// What was wrong with it.
        what: &'static str,
    },
    /// No TLS connection could be made.
    Tls(String),
    /// The server answered with an error that means that it cannot serve.
    Server {
        /// Its number.
        code: u16,
        /// Its text.
        text: String,
    },
    /// The server works, but is not in the state that the service needs.
    Condition(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused: nothing listens on the port"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Reset(phase) => write!(f, "connection reset during {phase}"),
            Self::Closed(phase) => write!(f, "connection closed by the server during {phase}"),
            Self::Timeout(Phase::Connect) => f.write_str("no answer to the TCP handshake"),
            Self::Timeout(Phase::Greeting) => f.write_str("wedged: accepts TCP, does not greet"),
            Self::Timeout(phase) => write!(f, "wedged: no answer in time during {phase}"),
            Self::Garbage { phase, what } => write!(f, "not MySQL's protocol during {phase}: {what}"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Server { code: 1047, text } => write!(f, "not ready (Galera?): ERROR 1047: {text}"),
            Self::Server { code, text } => write!(f, "ERROR {code}: {text}"),
            Self::Condition(what) => f.write_str(what),
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server serves.
    Pass(Option<Facts>),
    /// It does not.
    Fail(Fault),
    /// ERROR 1040: it serves whom it has, and takes no more.
    Full,
    /// ERROR 1129: it refuses this host because of earlier broken connections. Says nothing about its clients.
    Blocked(String),
    /// The check user, or its statement, does not work there. Says nothing about the server's clients.
    CheckUser(String),
    /// This director could not even ask: no local port, no descriptor, forbidden. Says nothing about the server.
    Unmade(String),
}

impl Outcome {
    /// One word for tables.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "fail",
            Self::Full => "full",
            Self::Blocked(_) => "blocked",
            Self::CheckUser(_) => "check-user",
            Self::Unmade(_) => "unmade",
        }
    }

    /// What there is to say; empty for a pass.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Pass(_) => String::new(),
            Self::Fail(fault) => fault.to_string(),
            Self::Full => "too many connections (ERROR 1040)".into(),
            Self::Blocked(text) | Self::CheckUser(text) | Self::Unmade(text) => text.clone(),
        }
    }

    /// The verdict about an error packet.
    #[must_use]
    pub fn of_error(code: u16, text: &[u8]) -> Self {
        let text = clean(text);
        match code {
            1040 => Self::Full,
            1129 => Self::Blocked(format!(
                "ERROR 1129: {text}; remedy on the server: FLUSH HOSTS, or TRUNCATE TABLE performance_schema.host_cache"
            )),
            code if is_about_the_check(code) => Self::CheckUser(format!("ERROR {code}: {text}")),
            code => Self::Fail(Fault::Server { code, text }),
        }
    }
}

/// Errors that the check user, its host or its statement is to blame for.
const fn is_about_the_check(code: u16) -> bool {
    matches!(
        code,
        // Access to a database, to the server, from this host, to a table, column, privilege.
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1370 | 1698
        // Too many connections, or a limit, of this user.
        | 1203 | 1226
        // Old or unknown ways to log in; TLS demanded; password expired; account locked (MySQL, MariaDB).
        | 1251 | 1275 | 1524 | 3159 | 1820 | 1862 | 3118 | 4151
        // The statement: syntax, no database, table, column, function or variable of that name.
        | 1046 | 1049 | 1054 | 1064 | 1146 | 1193 | 1305
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_verdict() {
        for (code, word) in [
            (1040, "full"),
            (1129, "blocked"),
            (1045, "check-user"),
            (1203, "check-user"),
            (1226, "check-user"),
            (1130, "check-user"),
            (3159, "check-user"),
            (1047, "fail"),
            (1053, "fail"),
            (3032, "fail"),
            (0, "fail"),
            (65_535, "fail"),
        ] {
            assert_eq!(Outcome::of_error(code, b"x").word(), word, "{code}");
        }
        assert!(Outcome::of_error(1129, b"Host is blocked").text().contains("FLUSH HOSTS"));
    }
}

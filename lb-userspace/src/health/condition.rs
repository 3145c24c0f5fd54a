//! What a server must be to serve, beyond being alive: statements, and how their answers are judged.
//!
//! Galera: `wsrep_ready`, `wsrep_cluster_status`, `wsrep_local_state` (4 is Synced). Group replication:
//! `performance_schema.replication_group_members`. Replication: SHOW REPLICA STATUS; MariaDB and MySQL before 8.0.22
//! know it as SHOW SLAVE STATUS.

use std::{fmt, time::Duration};

use super::mysql::rows::{Rows, Value};
use crate::printable::clean;

/// The conditions of a service; all must hold. None set: being able to answer `SELECT 1` will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The server accepts writes.
    pub writable: bool,
    /// It replicates, and lags by no more than this.
    pub replica: Option<Duration>,
    /// It is a synced member of a primary Galera component.
    pub galera: bool,
    /// It is an online member of a group with a majority.
    pub group_replication: bool,
    /// The operator's own statement.
    pub own: Option<OwnSql>,
}

/// A statement, and what it must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSql {
    /// One statement.
    pub sql: String,
    /// What the first column of the first row must be; none: there must be a row.
    pub expect: Option<String>,
}

/// What kind of server it is, from the version in its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// MariaDB; otherwise MySQL or Percona Server.
    pub mariadb: bool,
    /// Major, minor and patch version; zeros when it says nothing.
    pub version: (u32, u32, u32),
}

impl Flavour {
    /// From texts such as `9.7.1`, `10.11.19-MariaDB-0+deb12u1`, `5.5.5-10.6.1-MariaDB`.
    #[must_use]
    pub fn of(version: &str) -> Self {
        let mariadb = version.to_ascii_lowercase().contains("mariadb");
        // MariaDB 10 once hid behind the number of a MySQL that replicas accept.
        let version = version.strip_prefix("5.5.5-").filter(|_| mariadb).unwrap_or(version);
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { mariadb, version: (next(), next(), next()) }
    }
}

/// One statement of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The statement.
    pub sql: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Alive,
    Writable,
    Replica(Duration),
    Galera,
    GaleraMode,
    GroupReplication,
    Own(Option<String>),
}

impl Condition {
    /// The statements to ask, in this order.
    #[must_use]
    pub fn questions(&self, flavour: Flavour) -> Vec<Question> {
        let mut questions = Vec::new();
        let mut ask = |kind, sql: &str| questions.push(Question { sql: sql.to_owned(), kind });
        if self.galera {
            ask(
                Kind::Galera,
                "SHOW GLOBAL STATUS WHERE Variable_name IN \
                 ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state', 'wsrep_local_state_comment')",
            );
            ask(
                Kind::GaleraMode,
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_reject_queries', 'pxc_maint_mode')",
            );
        }
        if self.group_replication {
            ask(
                Kind::GroupReplication,
                "SELECT MEMBER_STATE, MEMBER_ID = @@server_uuid FROM performance_schema.replication_group_members",
            );
        }
        if let Some(lag) = self.replica {
            let sql = match flavour {
                Flavour { mariadb: true, .. } => "SHOW ALL SLAVES STATUS",
                Flavour { version, .. } if version >= (8, 0, 22) => "SHOW REPLICA STATUS",
                _ => "SHOW SLAVE STATUS",
            };
            ask(Kind::Replica(lag), sql);
        }
        if self.writable {
            ask(Kind::Writable, "SELECT @@global.read_only, @@global.innodb_read_only");
        }
        if let Some(own) = &self.own {
            ask(Kind::Own(own.expect.clone()), &own.sql);
        }
        if questions.is_empty() {
            questions.push(Question { sql: "SELECT 1".to_owned(), kind: Kind::Alive });
        }
        questions
    }

    /// True when no condition is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut add = |on: bool, word: &str| words.extend(on.then(|| word.to_owned()));
        add(self.writable, "writable");
        add(self.galera, "galera");
        add(self.group_replication, "group_replication");
        add(self.own.is_some(), "sql");
        if let Some(lag) = self.replica {
            words.push(format!("replica({}s)", lag.as_secs()));
        }
        f.write_str(&words.join(", "))
    }
}

impl Question {
    /// Judges the answer.
    ///
    /// # Errors
    /// What is wrong with the server, in a sentence without a full stop.
    pub fn judge(&self, rows: &Rows) -> Result<(), String> {
        match &self.kind {
            Kind::Alive => expect(first(rows).as_deref() == Some("1"), || "SELECT 1 does not answer 1".into()),
            Kind::Writable => writable(rows),
            Kind::Replica(most) => replica(rows, *most),
            Kind::Galera => galera(rows),
            Kind::GaleraMode => galera_mode(rows),
            Kind::GroupReplication => group_replication(rows),
            Kind::Own(expected) => own(rows, expected.as_deref()),
        }
    }
}

fn expect(good: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(why()) }
}

fn first(rows: &Rows) -> Option<String> {
    rows.rows.first()?.first()?.as_deref().map(clean)
}

fn is_off(value: &Value) -> bool {
    matches!(value.as_deref(), Some(b"0" | b"OFF" | b"off"))
}

fn writable(rows: &Rows) -> Result<(), String> {
    let Some(row) = rows.rows.first() else { return Err("read_only: no answer".into()) };
    for (name, value) in ["read_only", "innodb_read_only"].iter().zip(row) {
        if !is_off(value) {
            return Err(format!("not writable: {name} = {}", shown(value)));
        }
    }
    Ok(())
}

fn replica(rows: &Rows, most: Duration) -> Result<(), String> {
    let column = |names: [&str; 2]| rows.columns.iter().position(|c| names.iter().any(|n| c.eq_ignore_ascii_case(n)));
    let io = column(["Replica_IO_Running", "Slave_IO_Running"]);
    let sql = column(["Replica_SQL_Running", "Slave_SQL_Running"]);
    let lag = column(["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    let channel = column(["Channel_Name", "Connection_name"]);
    let at = |row: &[Value], index: Option<usize>| index.and_then(|i| row.get(i)).cloned().unwrap_or_default();
    // The channels that group replication uses for itself say nothing about a source.
    let own = |row: &&Vec<Value>| !at(row, channel).is_some_and(|name| name.starts_with(b"group_replication_"));
    let mut channels = rows.rows.iter().filter(own).peekable();
    if channels.peek().is_none() {
        return Err("not a replica: no replication is configured".into());
    }
    for row in channels {
        for (name, index) in [("IO", io), ("SQL", sql)] {
            let state = at(row, index);
            if state.as_deref() != Some(b"Yes") {
                return Err(format!("replication: the {name} thread is not running ({})", shown(&state)));
            }
        }
        let text = at(row, lag);
        let seconds = text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).and_then(|t| t.parse().ok());
        match seconds {
            None => return Err("replication: the lag is not known".into()),
            Some(seconds) if Duration::from_secs(seconds) > most => {
                return Err(format!("replication: {seconds} s behind, more than {} s", most.as_secs()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The value of a row `name, value`; none if there is no such row.
fn variable(rows: &Rows, name: &str) -> Option<String> {
    let is_it = |row: &&Vec<Value>| {
        row.first().and_then(Option::as_deref).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    rows.rows.iter().find(is_it)?.get(1)?.as_deref().map(clean)
}

fn galera(rows: &Rows) -> Result<(), String> {
    let get = |name| variable(rows, name).unwrap_or_else(|| "absent".into());
    let status = get("wsrep_cluster_status");
    expect(status == "Primary", || format!("Galera: the component is not primary (wsrep_cluster_status = {status})"))?;
    let ready = get("wsrep_ready");
    expect(ready == "ON", || format!("Galera: not ready (wsrep_ready = {ready})"))?;
    let (state, comment) = (get("wsrep_local_state"), get("wsrep_local_state_comment"));
    expect(state == "4", || format!("Galera: not synced (wsrep_local_state = {state}, {comment})"))
}

fn galera_mode(rows: &Rows) -> Result<(), String> {
    for (name, good) in [("wsrep_reject_queries", "NONE"), ("pxc_maint_mode", "DISABLED")] {
        if let Some(value) = variable(rows, name)
            && value != good
        {
            return Err(format!("Galera: {name} = {value}"));
        }
    }
    Ok(())
}

fn group_replication(rows: &Rows) -> Result<(), String> {
    let state = |row: &Vec<Value>| row.first().map(shown).unwrap_or_default();
    let us = rows.rows.iter().find(|row| row.get(1).and_then(Option::as_deref) == Some(b"1"));
    let own = us.map(state).unwrap_or_else(|| "absent".into());
    expect(own == "ONLINE", || format!("group replication: this member is {own}"))?;
    let unreachable = rows.rows.iter().filter(|row| state(row) == "UNREACHABLE").count();
    let all = rows.rows.len();
    expect(2 * unreachable < all, || format!("group replication: no majority, {unreachable} of {all} are unreachable"))
}

fn own(rows: &Rows, expected: Option<&str>) -> Result<(), String> {
    match (expected, rows.rows.first()) {
        (_, None) => Err("the statement answers no row".into()),
        (None, Some(_)) => Ok(()),
        (Some(expected), Some(row)) => {
            let found = row.first().cloned().unwrap_or_default();
            expect(found.as_deref() == Some(expected.as_bytes()), || {
                format!("the statement answers {}, not {expected}", shown(&found))
            })
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_deref().map_or_else(|| "NULL".into(), clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &[&str], rows: &[&[Option<&str>]]) -> Rows {
        let value = |value: &Option<&str>| value.map(|text| text.as_bytes().to_vec());
        Rows {
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            rows: rows.iter().map(|row| row.iter().map(value).collect()).collect(),
        }
    }

    fn only(condition: &Condition, version: &str) -> Question {
        let mut questions = condition.questions(Flavour::of(version));
        assert_eq!(questions.len(), 1, "{questions:?}");
        questions.remove(0)
    }

    #[test]
    fn a_greeting_tells_the_flavour() {
        for (text, mariadb, version) in [
            ("9.7.1", false, (9, 7, 1)),
            ("8.0.36-28-Percona", false, (8, 0, 36)),
            ("10.11.19-MariaDB-0+deb12u1", true, (10, 11, 19)),
            ("5.5.5-10.6.1-MariaDB", true, (10, 6, 1)),
            ("5.5.5-log", false, (5, 5, 5)),
            ("", false, (0, 0, 0)),
            ("99999999999999.1", false, (0, 1, 0)),
        ] {
            assert_eq!(Flavour::of(text), Flavour { mariadb, version }, "{text}");
        }
    }

    #[test]
    fn without_a_condition_any_answer_will_do() {
        let question = only(&Condition::default(), "9.7.1");
        assert_eq!(question.judge(&rows(&["1"], &[&[Some("1")]])), Ok(()));
        assert!(question.judge(&rows(&["1"], &[])).is_err());
    }

    #[test]
    fn a_writer_is_one_that_is_not_read_only() {
        let question = only(&Condition { writable: true, ..Condition::default() }, "9.7.1");
        let judge = |a, b| question.judge(&rows(&["a", "b"], &[&[Some(a), Some(b)]]));
        assert_eq!(judge("0", "0"), Ok(()));
        assert_eq!(judge("OFF", "0"), Ok(()));
        assert_eq!(judge("1", "0").unwrap_err(), "not writable: read_only = 1");
        assert_eq!(judge("NO_LOCK", "0").unwrap_err(), "not writable: read_only = NO_LOCK");
        assert_eq!(judge("0", "1").unwrap_err(), "not writable: innodb_read_only = 1");
    }

    #[test]
    fn a_replica_is_one_whose_threads_run_and_whose_lag_is_known_and_small() {
        let condition = Condition { replica: Some(Duration::from_secs(10)), ..Condition::default() };
        for (version, sql) in [
            ("9.7.1", "SHOW REPLICA STATUS"),
            ("8.0.22", "SHOW REPLICA STATUS"),
            ("8.0.21", "SHOW SLAVE STATUS"),
            ("10.11.19-MariaDB", "SHOW ALL SLAVES STATUS"),
        ] {
            assert_eq!(only(&condition, version).sql, sql);
        }
        let question = only(&condition, "9.7.1");
        let columns = ["Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source", "Channel_Name"];
        let judge = |io, sql, lag: Option<&str>| {
            question.judge(&rows(
                &columns,
                &[
                    &[Some("No"), Some("Yes"), None, Some("group_replication_recovery")],
                    &[Some(io), Some(sql), lag, Some("")],
                ],
            ))
        };
        assert_eq!(judge("Yes", "Yes", Some("10")), Ok(()));
        assert!(judge("Yes", "Yes", Some("11")).unwrap_err().contains("11 s behind"));
        assert!(judge("Yes", "Yes", None).unwrap_err().contains("not known"));
        assert!(judge("Connecting", "Yes", Some("0")).unwrap_err().contains("IO thread is not running (Connecting)"));
        assert!(judge("Yes", "No", Some("0")).unwrap_err().contains("SQL thread"));
        assert!(question.judge(&rows(&columns, &[])).unwrap_err().contains("not a replica"));
        // One bad channel of several is enough.
        let two: [&[Option<&str>]; 2] =
            [&[Some("Yes"), Some("Yes"), Some("0"), Some("a")], &[Some("Yes"), Some("No"), None, Some("b")]];
        assert!(question.judge(&rows(&columns, &two)).is_err());
    }

    #[test]
    fn a_galera_member_is_ready_synced_and_in_the_primary_component() {
        let questions = Condition { galera: true, ..Condition::default() }.questions(Flavour::of("10.11.19-MariaDB"));
        let [status, mode] = questions.as_slice() else { panic!("{questions:?}") };
        let judge = |cluster, ready, state| {
            status.judge(&rows(
                &["Variable_name", "Value"],
                &[
                    &[Some("wsrep_cluster_status"), Some(cluster)],
                    &[Some("wsrep_ready"), Some(ready)],
                    &[Some("wsrep_local_state"), Some(state)],
                    &[Some("wsrep_local_state_comment"), Some("Donor/Desynced")],
                ],
            ))
        };
        assert_eq!(judge("Primary", "ON", "4"), Ok(()));
        assert!(judge("non-Primary", "ON", "4").unwrap_err().contains("not primary"));
        assert!(judge("Primary", "OFF", "4").unwrap_err().contains("not ready"));
        assert!(judge("Primary", "ON", "2").unwrap_err().contains("Donor/Desynced"));
        assert!(status.judge(&rows(&["Variable_name", "Value"], &[])).is_err(), "not a Galera server");
        let mode_of = |name, value| mode.judge(&rows(&["n", "v"], &[&[Some(name), Some(value)]]));
        assert_eq!(mode.judge(&rows(&["n", "v"], &[])), Ok(()));
        assert_eq!(mode_of("wsrep_reject_queries", "NONE"), Ok(()));
        assert!(mode_of("wsrep_reject_queries", "ALL").is_err());
        assert!(mode_of("pxc_maint_mode", "MAINTENANCE").is_err());
    }

    #[test]
    fn a_group_member_is_online_with_a_majority() {
        let question = only(&Condition { group_replication: true, ..Condition::default() }, "9.7.1");
        let judge = |members: &[(&str, &str)]| {
            let made: Vec<[Option<&str>; 2]> = members.iter().map(|(state, us)| [Some(*state), Some(*us)]).collect();
            let made: Vec<&[Option<&str>]> = made.iter().map(|row| row.as_slice()).collect();
            question.judge(&rows(&["MEMBER_STATE", "us"], &made))
        };
        assert_eq!(judge(&[("ONLINE", "1"), ("ONLINE", "0"), ("UNREACHABLE", "0")]), Ok(()));
        assert!(judge(&[("ONLINE", "1"), ("UNREACHABLE", "0")]).unwrap_err().contains("no majority"));
        assert!(judge(&[("RECOVERING", "1"), ("ONLINE", "0")]).unwrap_err().contains("RECOVERING"));
        assert!(judge(&[("OFFLINE", "0")]).unwrap_err().contains("absent"));
        assert!(judge(&[]).is_err());
    }

    #[test]
    fn the_operators_own_statement() {
        let own = |expect: Option<&str>| Condition {
            own: Some(OwnSql { sql: "SELECT ok FROM s".into(), expect: expect.map(str::to_owned) }),
            ..Condition::default()
        };
        let question = only(&own(Some("yes")), "9.7.1");
        assert_eq!(question.sql, "SELECT ok FROM s");
        assert_eq!(question.judge(&rows(&["ok"], &[&[Some("yes")]])), Ok(()));
        assert_eq!(question.judge(&rows(&["ok"], &[&[None]])).unwrap_err(), "the statement answers NULL, not yes");
        assert!(question.judge(&rows(&["ok"], &[])).is_err());
        let any = only(&own(None), "9.7.1");
        assert_eq!(any.judge(&rows(&["ok"], &[&[None]])), Ok(()));
        assert!(any.judge(&rows(&[], &[])).is_err());
    }
}

//! The SQL that creates the check user, for the operator to run on a primary.

use std::net::Ipv4Addr;

use super::{condition::Condition, plan::Level};

/// Statements that create `user` for checks from `directors`; empty: from anywhere. The password is a placeholder.
#[must_use]
pub fn sql(user: &str, directors: &[Ipv4Addr], level: Level, condition: &Condition) -> String {
    let hosts: Vec<String> =
        if directors.is_empty() { vec!["%".to_owned()] } else { directors.iter().map(Ipv4Addr::to_string).collect() };
    let user = quote(user);
    let mut lines = vec![
        "-- Run this on the server that replicates to the others, as an administrator.".to_owned(),
        "-- Put the password into the check's password_file, too: on one line, mode 0600.".to_owned(),
    ];
    if directors.is_empty() {
        lines.push("-- '%' lets it log in from anywhere: better name the directors' addresses.".to_owned());
    }
    for host in &hosts {
        let account = format!("{user}@{}", quote(host));
        lines.push(format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '<password>';"));
        if level == Level::Query {
            if condition.replica.is_some() {
                lines.push("-- MariaDB 10.5 and newer call this privilege REPLICA MONITOR.".to_owned());
                lines.push(format!("GRANT REPLICATION CLIENT ON *.* TO {account};"));
            }
            if condition.group_replication {
                lines.push(format!("GRANT SELECT ON performance_schema.replication_group_members TO {account};"));
            }
            if condition.own.is_some() {
                lines.push(format!("-- And what your own statement reads: GRANT SELECT ON … TO {account};"));
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_user_for_both_directors_with_what_the_condition_needs() {
        let directors = [Ipv4Addr::new(192, 168, 80, 101), Ipv4Addr::new(192, 168, 80, 102)];
        let condition = Condition { replica: Some(Duration::from_secs(10)), ..Condition::default() };
        let text = sql("lb_check", &directors, Level::Query, &condition);
        assert!(
            text.contains("CREATE USER IF NOT EXISTS 'lb_check'@'192.168.80.102' IDENTIFIED BY '<password>';"),
            "{text}"
        );
        assert_eq!(text.matches("GRANT REPLICATION CLIENT").count(), 2);
        let text = sql("lb_check", &directors, Level::Auth, &condition);
        assert!(!text.contains("GRANT"), "a login alone needs no grant: {text}");
    }

    #[test]
    fn names_are_quoted() {
        let text = sql("o'neil\\", &[], Level::Auth, &Condition::default());
        assert!(text.contains("CREATE USER IF NOT EXISTS 'o''neil\\\\'@'%'"), "{text}");
    }
}

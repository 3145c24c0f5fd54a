//! What the checks have found, and how to create the user that they log in as.

use super::{
    Failure,
    text::{self, Align::*, columns},
};
use crate::{
    config,
    control::protocol::{CheckLine, CheckView},
    health::grants,
};
use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::Ipv4Addr,
    path::Path,
};

/// Lines of the history that are shown of a backend that needs attention.
const LINES: usize = 3;

/// A table of all checked backends, with the last checks of those that are not well.
pub(super) fn checks(out: &mut impl Write, checks: &[CheckView]) -> io::Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["BACKEND", "SERVICE", "STATE", "SINCE", "LAST CHECK", "TOOK", "CAUSE"].map(str::to_owned)];
    for check in checks {
        let last = check.history.last();
        rows.push([
            check.address.to_string(),
            check.service.clone(),
            state(check),
            text::duration(check.since_seconds),
            last.map_or("-".to_owned(), |line| line.outcome.clone()),
            last.map_or("-".to_owned(), |line| millis(line.latency_us)),
            check.trouble.clone().unwrap_or_else(|| check.cause.clone()),
        ]);
        if let Some(left) = check.left.filter(|left| left.conns > 0) {
            rows.push(["", "", "", "", "", "", &format!("  {}", text::left(&left))].map(str::to_owned));
        }
        if check.state != "up" && check.state != "standby" || check.trouble.is_some() {
            rows.extend(check.history.iter().rev().take(LINES).map(history));
        }
        if let Some(difference) = &check.disagreement {
            rows.push(["", "", "", "", "", "", &format!("  {}", explained(difference))].map(str::to_owned));
        }
    }
    writeln!(out)?;
    columns(out, [Left, Left, Left, Right, Left, Right, Left], &rows)
}

/// A difference between the directors, and whose verdict counts.
fn explained(difference: &str) -> &str {
    match difference {
        "down-here-only" => {
            "down from here only; the other director reaches it, and uses it while it is Active: look at the network here"
        }
        "down-there-only" => {
            "down from the other director only, which will not use it when it is Active: look at the network there"
        }
        // Of a later agent.
        other => other,
    }
}

fn state(check: &CheckView) -> String {
    match (check.warm_percent, check.deadline_seconds) {
        (_, Some(left)) => format!("{} {}", check.state, text::duration(left)),
        (100, None) => check.state.clone(),
        (warm, None) => format!("{} {warm}%", check.state),
    }
}

fn history(line: &CheckLine) -> [String; 7] {
    let CheckLine { outcome, text, count, last_seconds_ago, latency_us, .. } = line;
    let ago = format!("{} ago", text::duration(*last_seconds_ago));
    let what = format!("  {count} × {text}").trim_end().to_owned();
    ["".to_owned(), "".to_owned(), "".to_owned(), ago, outcome.clone(), millis(*latency_us), what]
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// The SQL that creates the check user of a service.
pub(super) fn user(out: &mut impl Write, path: &Path, service: Option<&str>) -> Result<(), Failure> {
    let checked = config::check_file(path);
    let Some(config) = checked.config else { return Err(Failure::Refused(checked.diagnostics.to_string())) };
    let directors: BTreeSet<Ipv4Addr> = config.directors.iter().flat_map(|d| d.addresses.values().copied()).collect();
    let directors: Vec<Ipv4Addr> = directors.into_iter().collect();
    let of_service = |s: &&config::Service| service.is_none_or(|name| s.name == name);
    let plans = config.services.iter().filter(of_service).filter_map(|service| service.check.as_ref());
    let mut known = Vec::new();
    for plan in plans {
        let Some(user) = &plan.user else { continue };
        let text = grants::sql(user, &directors, plan.level, &plan.condition);
        if !known.contains(&text) {
            out.write_all(text.as_bytes())?;
            known.push(text);
        }
    }
    if known.is_empty() {
        let message = format!("{}: no [service.check] with a `user` there", path.display());
        return Err(Failure::Refused(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::LeftView;

    fn check(state: &str) -> CheckView {
        let line = |outcome: &str, text: &str, count| CheckLine {
            outcome: outcome.to_owned(),
            text: text.to_owned(),
            count,
            first_seconds_ago: 9,
            last_seconds_ago: 1,
            latency_us: 1234,
            slowest_us: 5000,
        };
        CheckView {
            service: "mysql".to_owned(),
            address: "192.168.80.167:3306".parse().unwrap(),
            level: "auth".to_owned(),
            tier: "primary".to_owned(),
            state: state.to_owned(),
            since_seconds: 61,
            cause: "checks pass again".to_owned(),
            trouble: None,
            warm_percent: 100,
            deadline_seconds: None,
            left: None,
            peer: None,
            disagreement: None,
            counted: 0,
            needed: 3,
            late_us: 0,
            server: None,
            history: vec![line("pass", "", 70), line("fail", "connection refused", 3)],
        }
    }

    fn printed(views: &[CheckView]) -> String {
        let mut out = Vec::new();
        checks(&mut out, views).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_history_of_those_that_are_not_well_is_shown() {
        assert_eq!(printed(&[]), "");
        let text = printed(&[check("up"), CheckView { cause: "connection refused".into(), ..check("down") }]);
        let expected = "
BACKEND              SERVICE  STATE   SINCE  LAST CHECK    TOOK  CAUSE
192.168.80.167:3306  mysql    up       1m1s  fail        1.2 ms  checks pass again
192.168.80.167:3306  mysql    down     1m1s  fail        1.2 ms  connection refused
                                     1s ago  fail        1.2 ms    3 × connection refused
                                     1s ago  pass        1.2 ms    70 ×
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_difference_between_the_directors_is_shown_with_the_place_to_look_at() {
        let text = |state: &str, word: &str| {
            printed(&[CheckView { peer: Some("up".into()), disagreement: Some(word.into()), ..check(state) }])
        };
        assert!(text("down", "down-here-only").contains("  down from here only; the other director reaches it"));
        assert!(text("up", "down-there-only").contains("  down from the other director only, "));
        assert!(text("up", "a-later-word").contains("  a-later-word\n"));
    }

    #[test]
    fn a_deadline_and_a_slow_start_are_part_of_the_state() {
        assert!(printed(&[CheckView { deadline_seconds: Some(30), ..check("draining") }]).contains(" draining 30s "));
        let left = Some(LeftView { conns: 10, oldest_seconds: 7300, idle: 7 });
        assert!(
            printed(&[CheckView { left, ..check("draining") }])
                .contains("10 conns left, the oldest 2h1m old, 7 idle for a minute or longer\n")
        );
        assert!(printed(&[CheckView { warm_percent: 35, ..check("up") }]).contains(" up 35% "));
    }
}

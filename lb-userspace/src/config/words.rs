//! Words of the small enums, with a suggestion when a word is none of them.

use lb_common::service::{OnDown, Refusal, Scheduler};

use super::code::Code;
use super::model::MaxConn;
use super::problem::Problem;
use super::suggest::nearest;
use crate::{
    datapath::Mode,
    health::{Level, Tls},
    printable::quote,
    vrrp::packet::ChecksumKind,
};

/// What other balancers, drivers and people call it, and the word here.
const SYNONYMS: [(&str, &str); 26] = [
    ("round-robin", "rr"),
    ("round_robin", "rr"),
    ("roundrobin", "rr"),
    ("least-conn", "lc"),
    ("least_conn", "lc"),
    ("leastconn", "lc"),
    ("source", "sh"),
    ("ip-hash", "sh"),
    ("maglev", "mh"),
    ("native", "xdp"),
    ("generic", "xdp-generic"),
    ("skb", "xdp-generic"),
    ("reset", "rst"),
    ("reject", "rst"),
    ("rfc5798", "pseudo-header"),
    ("pseudo_header", "pseudo-header"),
    ("v3_checksum_as_v2", "rfc9568"),
    ("connect", "tcp"),
    ("handshake", "greeting"),
    ("login", "auth"),
    ("negotiate", "query"),
    ("sql", "query"),
    ("disabled", "off"),
    ("preferred", "prefer"),
    ("required", "require"),
    ("verify_ca", "verify"),
];

/// Reads the `mode` of an interface.
pub(super) fn parse_mode(text: &str) -> Result<Mode, Problem> {
    one_of(text, "a mode", &Mode::ALL, |mode| mode.name())
}

/// Reads the `scheduler` of a service.
pub(super) fn parse_scheduler(text: &str) -> Result<Scheduler, Problem> {
    one_of(text, "a scheduler", Scheduler::ALL, |scheduler| scheduler.name())
}

/// Reads the `no_conn` or the `no_backend` of a service; `what` names it, with an article.
pub(super) fn parse_refusal(text: &str, what: &'static str) -> Result<Refusal, Problem> {
    one_of(text, what, Refusal::ALL, |policy| policy.name())
}

/// Reads the `checksum` of `[vrrp]`.
pub(super) fn parse_checksum(text: &str) -> Result<ChecksumKind, Problem> {
    let all = [ChecksumKind::Message, ChecksumKind::PseudoHeader];
    one_of(text, "a way to compute the checksum", &all, |kind| kind.name())
}

/// Reads the `on_down` of a service.
pub(super) fn parse_on_down(text: &str) -> Result<OnDown, Problem> {
    one_of(text, "an on_down policy", OnDown::ALL, |policy| policy.name())
}

/// Reads the only word that `max_conn` may be.
pub(super) fn parse_auto(text: &str) -> Result<MaxConn, Problem> {
    one_of(text, "a number of conns", &[MaxConn::Auto], |_| "auto")
}

/// Reads the `level` of a check.
pub(super) fn parse_level(text: &str) -> Result<Level, Problem> {
    one_of(text, "a level of checks", Level::ALL, |level| level.name())
}

/// Reads the `tls` of a check.
pub(super) fn parse_tls(text: &str) -> Result<Tls, Problem> {
    one_of(text, "a way to use TLS", Tls::ALL, |tls| tls.name())
}

fn one_of<T: Copy>(text: &str, what: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, Problem> {
    if let Some(found) = all.iter().copied().find(|value| name(*value) == text) {
        return Ok(found);
    }
    let words: Vec<&str> = all.iter().map(|value| name(*value)).collect();
    let synonym = SYNONYMS.iter().find(|(theirs, ours)| *theirs == text && words.contains(ours));
    let meant = synonym.map(|(_, ours)| *ours).or_else(|| nearest(text, words.iter().copied()));
    let list = words.join(", ");
    let help = match meant {
        Some(word) => format!("did you mean `{word}`? The words are {list}"),
        None => format!("use one of {list}"),
    };
    Err(Problem::new(Code::UnknownWord, format!("{} is not {what}", quote(text)), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_variant() {
        for mode in Mode::ALL {
            assert_eq!(parse_mode(mode.name()), Ok(mode));
        }
        for &scheduler in Scheduler::ALL {
            assert_eq!(parse_scheduler(scheduler.name()), Ok(scheduler));
        }
        for &policy in Refusal::ALL {
            assert_eq!(parse_refusal(policy.name(), "a policy"), Ok(policy));
        }
        for &policy in OnDown::ALL {
            assert_eq!(parse_on_down(policy.name()), Ok(policy));
        }
    }

    #[test]
    fn the_words_of_others_lead_to_ours() {
        for (text, help) in [
            ("roundrobin", "did you mean `rr`?"),
            ("RR", "did you mean `rr`?"),
            ("maglev", "did you mean `mh`?"),
            ("native", "use one of rr, wrr, lc, wlc, sh, mh"),
            ("", "use one of rr, wrr, lc, wlc, sh, mh"),
        ] {
            let problem = parse_scheduler(text).expect_err(text);
            assert!(problem.help.starts_with(help), "{text}: {problem:?}");
        }
    }
}

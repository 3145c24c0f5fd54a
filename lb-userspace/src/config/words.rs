//! Words of the small enums, with a suggestion when a word is none of them.

use std::str::FromStr;

use super::code::Code;
use super::model::UnknownWord;
use super::problem::Problem;
use super::source::quote;
use super::suggest::nearest;

/// What other balancers, drivers and people call it, and the word here.
const SYNONYMS: [(&str, &str); 14] = [
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
];

/// Reads one of the words of `T`.
pub(super) fn parse_word<T: FromStr<Err = UnknownWord>>(text: &str) -> Result<T, Problem> {
    text.parse::<T>().map_err(|UnknownWord { what, allowed }| {
        let synonym = SYNONYMS.iter().find(|(theirs, ours)| *theirs == text && allowed.contains(ours));
        let meant = synonym.map(|(_, ours)| *ours).or_else(|| nearest(text, allowed.iter().copied()));
        let list = allowed.join(", ");
        let help = match meant {
            Some(word) => format!("did you mean `{word}`? The words are {list}"),
            None => format!("use one of {list}"),
        };
        Problem::new(Code::UnknownWord, format!("{} is not {what}", quote(text)), help)
    })
}

//! Passwords that somebody wrote into the file, where none belongs: neither an excerpt nor a message may repeat them, for
//! both end in logs. It owns what counts as one; what is wrong with the line, others say.

use std::ops::Range;

use super::suggest::nearest;
use crate::printable::quote;

/// A shorter text is no secret, and stands in too many words.
const SHORTEST: usize = 4;

/// Hexadecimal digits in a row that are a key, whoever they are given to; `lb-agent keygen` writes twice as many.
const KEY_DIGITS: usize = 32;
/// The keys of this file with secrets, and others that people try.
const WORDS: [&str; 5] = ["auth", "auth_pass", "password", "password_file", "secret"];

/// Whether a key is one that people give passwords to, or was meant to be one.
fn is_secret(key: &str) -> bool {
    sounds_secret(key) || nearest(key, WORDS.into_iter()).is_some()
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let last = key.rsplit(['_', '-']).next().unwrap_or_default();
    ["pw", "pass", "psk"].contains(&last)
        || key.starts_with("auth")
        || ["passw", "passphrase", "pwd", "secret"].iter().any(|part| key.contains(part))
}

/// The values of all such keys, without their quotes, and all that looks like a key of the sync. Paths of files are none.
/// Works on text that is no TOML, too, and rather hides too much.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut found = values(text);
    found.extend(keys(text).chain(bare(text)));
    found
}

/// Long hexadecimal numbers.
fn keys(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    text.split(|c: char| !c.is_ascii_hexdigit()).filter_map(move |digits| {
        // What it was split at has a length of its own.
        let start = at + text[at..].find(digits)?;
        at = start + digits.len();
        (digits.len() >= KEY_DIGITS).then_some(start..at)
    })
}

/// Lines of other daemons' files, that have a blank between key and value: `auth_pass 1111`.
fn bare(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let (key, value) = line.trim_start().split_once([' ', '\t'])?;
        let value = value.trim();
        // Others have a sign between them.
        let is_word = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let is_one = is_word && sounds_secret(key) && !value.is_empty() && !value.starts_with(['=', ':']);
        let place = start + line.rfind(value)?;
        is_one.then(|| place..place + value.len())
    })
}

fn values(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices(['=', ':']) {
        if found.last().is_some_and(|last| at < last.end) {
            continue;
        }
        let before = text[..at].trim_end_matches([' ', '\t', '"', '\'']);
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = &before[before.trim_end_matches(is_part).len()..];
        if !is_secret(key) {
            continue;
        }
        let value = text[at + 1..].trim_start_matches([' ', '\t']);
        let start = text.len() - value.len();
        let of_line = value.find(['\n', '\r']).unwrap_or(value.len());
        let inside = |quotes: &str| Some((value.strip_prefix(quotes)?, quotes.len()));
        let (skip, length) = if let Some((inner, skip)) = inside("\"\"\"").or_else(|| inside("'''")) {
            (skip, inner.find(&value[..skip]).unwrap_or(inner.len()))
        } else if let Some((inner, skip)) = inside("\"") {
            let rest = of_line - skip;
            (skip, closing(&inner[..rest]).unwrap_or(rest))
        } else if let Some((inner, skip)) = inside("'") {
            let rest = of_line - skip;
            (skip, inner[..rest].find('\'').unwrap_or(rest))
        } else {
            (0, of_line)
        };
        let secret = &value[skip..skip + length];
        if !(key.ends_with("_file") && secret.starts_with('/')) {
            found.push(start + skip..start + skip + length);
        }
    }
    found
}

/// The place of the quote that closes a basic string.
fn closing(inner: &str) -> Option<usize> {
    let mut escaped = false;
    inner.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// `line`, which begins at byte `start`, with every character of a secret replaced by a star.
pub(super) fn mask(line: &str, start: usize, secrets: &[Range<usize>]) -> String {
    let hidden = |at: usize| secrets.iter().any(|secret| secret.contains(&at));
    line.char_indices().map(|(at, c)| if hidden(start + at) { '*' } else { c }).collect()
}

/// `message` without any of the secrets.
pub(super) fn redact(mut message: String, text: &str, secrets: &[Range<usize>]) -> String {
    for secret in secrets.iter().filter_map(|secret| text.get(secret.clone())) {
        let secret = secret.trim();
        // As a message quotes it, cut and escaped; with what follows it on the line of a value without quotes, too.
        let quoted = quote(secret);
        let quoted = quoted.trim_matches('`').trim_end_matches('…');
        let word = secret.split(['#', ' ', ',']).next().unwrap_or_default().trim_matches(['"', '\'']);
        for form in [secret, quoted, word] {
            if form.chars().count() >= SHORTEST {
                message = without(&message, form);
            }
        }
    }
    message
}

/// `message` with `…` for `form`, but not where it is the end of something longer, such as the path in an example.
fn without(message: &str, form: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut done = 0;
    for (at, _) in message.match_indices(form) {
        let longer = |c: char| c.is_alphanumeric() || c == '/';
        if !message[..at].ends_with(longer) {
            out.push_str(&message[done..at]);
            out.push('…');
            done = at + form.len();
        }
    }
    out + &message[done..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Vec<&str> {
        find(text).into_iter().map(|secret| &text[secret]).collect()
    }

    #[test]
    fn values_of_keys_that_sound_like_passwords_are_found_however_they_are_written() {
        for (text, expected) in [
            ("password = \"geheim\" # x", &["geheim"][..]),
            ("password='geheim'\nuser = 'x'", &["geheim"]),
            ("check = { user = \"a\", passwd = \"ge\\\"heim\" }", &["ge\\\"heim"]),
            ("pw = geheim", &["geheim"]),
            ("auth_pass 1111\npass = geheim", &["geheim", "1111"]),
            ("auth = \"1111\"", &["1111"]),
            ("authentication = 1111", &["1111"]),
            ("atuh = '1111'\npasword = \"x\"", &["1111", "x"]),
            ("level = \"auth\"\naddress = \"1\"\nuser = \"x\"", &[]),
            ("key = \"0123456789abcdef0123456789ABCDEF\" # 0123456789abcdef", &["0123456789abcdef0123456789ABCDEF"]),
            ("Password: geheim # x\r\nuser = 1", &["geheim # x"]),
            ("secret = \"\"\"ge\nheim\"\"\"", &["ge\nheim"]),
            ("db_pw = \"not closed\nuser = 1", &["not closed"]),
            ("password_file = \"geheim\"", &["geheim"]),
            ("password_file = \"/etc/lb/check.pw\"", &[]),
            ("user = \"password\"\nkey_file = \"x\"", &[]),
            ("password =", &[""]),
        ] {
            assert_eq!(secrets(text), expected, "{text}");
        }
    }

    #[test]
    fn masked_lines_keep_their_columns() {
        let text = "a = 1\npassword = \"gehäim\"";
        assert_eq!(mask("password = \"gehäim\"", 6, &find(text)), "password = \"******\"");
    }

    #[test]
    fn messages_lose_what_they_quoted() {
        let text = "pw = hunter2 # mine";
        let said = redact("`hunter2` is no number: write `pw = \"hunter2\"`".into(), text, &find(text));
        assert_eq!(said, "`…` is no number: write `pw = \"…\"`");
        let text = "password_file = \"check.pw\"";
        let said = redact("`check.pw` is relative: write `/etc/lb/check.pw`".into(), text, &find(text));
        assert_eq!(said, "`…` is relative: write `/etc/lb/check.pw`");
        let text = "pw = \"on\"";
        assert_eq!(redact("no unknown key".into(), text, &find(text)), "no unknown key");
    }
}

//! Text of others, from a file or a server, as it may be shown: nothing in it steers a terminal, and it is not endless.

/// The most characters of a server's text.
const LONGEST: usize = 200;
/// The most characters of a quotation.
const QUOTED: usize = 60;

/// False for what would move the cursor, hide text or turn its direction on a terminal.
pub(crate) fn is_printable(c: char) -> bool {
    let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !hides
}

/// `text` in backticks for a message: escaped, and cut after 60 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == QUOTED {
            out.push('…');
            break;
        }
        if matches!(c, '"' | '\'' | '\\') || (is_printable(c) && c != '`') {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out.push('`');
    out
}

/// A server's text on one line.
pub(crate) fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..4 * LONGEST).unwrap_or(text));
    let printable = |c: char| if is_printable(c) { c } else { '\u{fffd}' };
    let mut cleaned: String = text.chars().take(LONGEST).map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        cleaned.push('…');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_can_be_read_back() {
        assert_eq!(quote("a\u{1b}\n`b`\"'"), "`a\\u{1b}\\u{a}\\u{60}b\\u{60}\"'`");
        assert_eq!(quote(&"x".repeat(80)).chars().count(), 63);
    }

    #[test]
    fn a_server_cannot_write_on_our_terminal() {
        assert_eq!(clean(b"a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(clean("x\u{202e}y".as_bytes()), "x\u{fffd}y");
        let long = clean(&[b'a'; 70_000]);
        assert_eq!(long.chars().count(), LONGEST + 1);
        assert!(clean(&[0xff; 3]).chars().all(|c| c == '\u{fffd}'));
    }
}

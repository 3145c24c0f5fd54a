//! From a path to text: the problems of files before there is any text to point at.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::code::Code;
use super::diagnostic::{Diagnostics, Sink};
use super::source::Source;

/// Largest file that is read. A configuration with a thousand backends has less than a tenth of it.
const MAX_BYTES: u64 = 1 << 20;

/// The text of the file at `path`, which may also be a pipe.
pub(super) fn read_text(path: &Path) -> Result<String, Diagnostics> {
    let name = path.display().to_string();
    let failed = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path given with --config",
            io::ErrorKind::PermissionDenied => "run as root, or let this user read the file",
            io::ErrorKind::IsADirectory => "name the file, not its directory",
            _ => "make the file readable, or give another with --config",
        };
        Diagnostics::of_file(&name, Code::Unreadable, format!("cannot read the file: {error}"), help)
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file of exactly the limit from a longer one.
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        let help = "check that this is the configuration and not a log or a dump";
        return Err(Diagnostics::of_file(&name, Code::TooLarge, "the file is larger than 1 MiB".into(), help));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let mut sink = Sink::default();
        let message = format!("byte {} is not UTF-8", at + 1);
        let help = "save the file as UTF-8; `file --mime FILE` shows what it is now";
        // The replacement character stands where the first bad byte was, after text that did not change.
        sink.report(Code::NotUtf8, at..at + char::REPLACEMENT_CHARACTER.len_utf8(), message, help);
        sink.into_diagnostics(&name, &Source::new(&text))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn code_of(path: &Path) -> (Code, String) {
        let diagnostics = read_text(path).unwrap_err();
        let item = diagnostics.iter().next().unwrap();
        assert!(diagnostics.to_string().starts_with(&path.display().to_string()), "{diagnostics}");
        (item.code, format!("{} | {}", item.message, item.help))
    }

    #[test]
    fn files_that_cannot_be_read_are_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (code, text) = code_of(&dir.path().join("absent.toml"));
        assert_eq!(code, Code::Unreadable);
        assert!(text.contains("No such file") && text.contains("--config"), "{text}");
        let (code, text) = code_of(dir.path());
        assert_eq!(code, Code::Unreadable);
        assert!(text.contains("not its directory"), "{text}");
    }

    #[test]
    fn the_limit_is_one_mebibyte_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        fs::write(&path, "#".repeat(1 << 20)).unwrap();
        assert_eq!(read_text(&path).map(|text| text.len()), Ok(1 << 20));
        fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
        assert_eq!(code_of(&path).0, Code::TooLarge);
    }
}

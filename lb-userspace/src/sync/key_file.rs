//! The file with the pre-shared key: made by `lb-agent keygen`, the same on both directors, readable for root alone.
//!
//! One key per line, 64 hexadecimal digits; `#` begins a comment. The first key is used, the others are accepted, so a
//! key is changed one director at a time.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::crypto::Psk;

/// The longest file that is read.
const MAX: u64 = 64 << 10;
/// The most keys in it.
const KEYS: usize = 8;

/// Why a file gives no keys. No variant holds anything of the file's content.
#[derive(Debug)]
pub enum KeyError {
    /// It cannot be read, or written.
    Io(io::Error),
    /// It is a directory, a device, …
    NotAFile,
    /// Others than its owner can read or change it.
    Mode(u32),
    /// It belongs to somebody else.
    Owner(u32),
    /// A line is neither a key nor a comment.
    Line(usize),
    /// It holds no key.
    Empty,
    /// It holds more keys than a change of keys needs.
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NotAFile => f.write_str("it is not a file"),
            Self::Mode(mode) => write!(f, "others than root can read or change it (mode {mode:04o}): chmod 0600 it"),
            Self::Owner(uid) => write!(f, "it belongs to user {uid}: chown root it"),
            Self::Line(line) => write!(f, "line {line} is no key: 64 hexadecimal digits, as `lb-agent keygen` writes"),
            Self::Empty => f.write_str("it holds no key: `lb-agent keygen` makes one"),
            Self::TooMany => write!(f, "it holds more than {KEYS} keys: remove those that no director uses any more"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Reads the keys of a file.
///
/// # Errors
///
/// The file is missing, can be read by others, or holds no key.
pub fn read(path: &Path) -> Result<Vec<Psk>, KeyError> {
    // A pipe would make us wait for ever.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(KeyError::Io)?;
    let meta = file.metadata().map_err(KeyError::Io)?;
    if !meta.is_file() {
        return Err(KeyError::NotAFile);
    }
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::Mode(meta.mode() & 0o7777));
    }
    if meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(KeyError::Owner(meta.uid()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX).read_to_string(&mut text).map_err(KeyError::Io)?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Psk>, KeyError> {
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        keys.push(key(line).ok_or(KeyError::Line(at + 1))?);
    }
    match keys.len() {
        0 => Err(KeyError::Empty),
        1..=KEYS => Ok(keys),
        _ => Err(KeyError::TooMany),
    }
}

fn key(digits: &str) -> Option<Psk> {
    let digits = digits.as_bytes();
    let mut key = [0; 32];
    if digits.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| (digit as char).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(Psk::new(key))
}

/// Makes a key and writes it to a new file that only its owner can read.
///
/// # Errors
///
/// The file exists, cannot be written, or the kernel gives no random numbers.
pub fn generate(path: &Path) -> Result<(), KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    random(&mut *key).map_err(KeyError::Io)?;
    let digits: Zeroizing<String> = Zeroizing::new(key.iter().map(|byte| format!("{byte:02x}")).collect());
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(KeyError::Io)?;
    let text = Zeroizing::new(format!("# lb: the key of connection sync, the same on both directors\n{}\n", *digits));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(KeyError::Io)
}

/// Fills a buffer with random bytes of the kernel.
///
/// # Errors
///
/// The kernel gives none.
pub fn random(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        // SAFETY: the buffer is valid for its length.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_negative) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_keygen_writes_is_read_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.key");
        generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().len(), 1);
        assert!(matches!(generate(&path), Err(KeyError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists));
        let other = dir.path().join("other.key");
        generate(&other).unwrap();
        assert_ne!(fs::read(&path).unwrap(), fs::read(&other).unwrap());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.key");
        generate(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(KeyError::Mode(found)) if found == mode));
        }
        assert!(matches!(read(dir.path()), Err(KeyError::NotAFile)));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyError::Io(_))));
    }

    #[test]
    fn a_file_may_hold_several_keys_and_comments() {
        let key = |digit: &str| digit.repeat(64);
        let text = format!("# old and new\n{}  # in use\n\n  {}\n", key("a"), key("B"));
        assert_eq!(parse(&text).unwrap().len(), 2);
        assert!(matches!(parse(&format!("# {}\n", key("a"))), Err(KeyError::Empty)));
        assert!(matches!(parse(&format!("\n{}", "a".repeat(63))), Err(KeyError::Line(2))));
        assert!(matches!(parse(&"g".repeat(64)), Err(KeyError::Line(1))));
        assert!(matches!(parse(&format!("{}\n", key("c")).repeat(9)), Err(KeyError::TooMany)));
    }
}

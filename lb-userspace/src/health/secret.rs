//! A password: read from a file that only its owner can read, wiped from memory when it goes, never printed.

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

/// Longest password in bytes. MySQL's own limits are lower for some plugins.
const MAX: usize = 1024;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a file gives no password. No variant holds anything of the file's content.
#[derive(Debug)]
pub enum SecretError {
    /// It cannot be read.
    Io(io::Error),
    /// Others than its owner can read or change it.
    Mode(u32),
    /// It is a directory, a device, …
    NotAFile,
    /// It holds nothing.
    Empty,
    /// It holds more than a password.
    TooLong,
    /// It holds a zero byte, which ends a password in MySQL's protocol.
    Nul,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read it: {error}"),
            Self::Mode(mode) => {
                write!(f, "others than root can read or change it (mode {mode:04o}): chmod 0600 and chown root it")
            }
            Self::NotAFile => f.write_str("it is not a file"),
            Self::Empty => f.write_str("it is empty: write the password into it, on one line"),
            Self::TooLong => write!(f, "it is longer than {MAX} bytes: it holds the password alone, on one line"),
            Self::Nul => f.write_str("it holds a zero byte"),
        }
    }
}

impl std::error::Error for SecretError {}

impl Secret {
    /// Takes a password.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self(Zeroizing::new(password.to_vec()))
    }

    /// Reads a password from a file; a line end after it does not belong to it. What systemd hands over with
    /// `LoadCredential=` is fine: its files may be readable for group root.
    ///
    /// # Errors
    /// The file is missing, can be read by others, or holds no password.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        // A pipe would make us wait for ever.
        let file =
            fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(SecretError::Io)?;
        let meta = file.metadata().map_err(SecretError::Io)?;
        if !meta.is_file() {
            return Err(SecretError::NotAFile);
        }
        let allowed = if meta.gid() == 0 { 0o740 } else { 0o700 };
        if meta.mode() & 0o777 & !allowed != 0 {
            return Err(SecretError::Mode(meta.mode() & 0o7777));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX + 3));
        file.take(MAX as u64 + 3).read_to_end(&mut text).map_err(SecretError::Io)?;
        let password = text.strip_suffix(b"\n").unwrap_or(&text);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        match password {
            [] => Err(SecretError::Empty),
            long if long.len() > MAX => Err(SecretError::TooLong),
            text if text.contains(&0) => Err(SecretError::Nul),
            text => Ok(Self::new(text)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `text` without the password in it, should somebody have put it there.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(password) if !password.is_empty() && text.contains(password) => text.replace(password, "…"),
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<Secret, SecretError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Secret::read(&path)
    }

    #[test]
    fn one_line_end_does_not_belong_to_the_password() {
        for (content, password) in [
            (&b"geheim"[..], &b"geheim"[..]),
            (b"geheim\n", b"geheim"),
            (b"geheim\r\n", b"geheim"),
            (b" a b \n\n", b" a b \n"),
        ] {
            assert_eq!(read(content, 0o600).unwrap().bytes(), password);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o644, 0o604, 0o606, 0o620, 0o660, 0o777] {
            assert!(matches!(read(b"x", mode), Err(SecretError::Mode(found)) if found == mode), "{mode:o}");
        }
        for mode in [0o600, 0o400, 0o700] {
            assert!(read(b"x", mode).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_password_is_refused() {
        assert!(matches!(read(b"", 0o600), Err(SecretError::Empty)));
        assert!(matches!(read(b"\n", 0o600), Err(SecretError::Empty)));
        assert!(matches!(read(b"a\0b", 0o600), Err(SecretError::Nul)));
        assert!(matches!(read(&[b'x'; MAX + 1], 0o600), Err(SecretError::TooLong)));
        assert!(read(&[b'x'; MAX], 0o600).is_ok());
        assert!(matches!(Secret::read(Path::new("/no/such/file")), Err(SecretError::Io(_))));
        assert!(matches!(Secret::read(Path::new("/dev/zero")), Err(SecretError::NotAFile)));
    }

    #[test]
    fn it_prints_nothing_of_itself() {
        let secret = Secret::new(b"hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.redact("you said hunter2, hunter2!"), "you said …, …!");
        assert_eq!(Secret::new(b"").redact("abc"), "abc");
    }
}

//! The socket file: created with mode 0660, never taken from a living agent, removed at the end.

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
        stat::{Mode, fchmod},
    },
};
use std::{
    fmt, fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group may talk to the agent.
const MODE: u32 = 0o660;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why the agent cannot listen.
#[derive(Debug)]
pub enum BindError {
    /// Another process listens on the path.
    InUse(PathBuf),
    /// The path exists and is no socket.
    NotASocket(PathBuf),
    /// A system call failed.
    Io {
        /// What was tried.
        what: &'static str,
        /// The path in question.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "another agent listens on {}: stop it, or give this one its own agent.control_socket",
                path.display()
            ),
            Self::NotASocket(path) => {
                write!(f, "{} exists and is no socket: remove it, or name another agent.control_socket", path.display())
            }
            Self::Io { what, path, source: _ } => write!(f, "control socket: {what} {}", path.display()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::InUse(_) | Self::NotASocket(_) => None,
        }
    }
}

/// A listening control socket; dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is removed.
    file: (u64, u64),
}

impl ControlSocket {
    /// Listens on `path`; missing directories are created. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`BindError`]. A file that a dead agent left behind is no error, it is replaced.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what, at: &Path| {
            let path = at.to_owned();
            move |source| BindError::Io { what, path, source }
        };
        if let Some(parent) = path.parent() {
            let mut directories = fs::DirBuilder::new();
            directories.recursive(true).mode(0o755);
            directories.create(parent).map_err(failed("create the directory", parent))?;
        }
        remove_stale(path)?;
        let fd = listen_on(path).map_err(|errno| failed("listen on", path)(errno.into()))?;
        let file = fs::symlink_metadata(path).map_err(failed("look at", path))?;
        let listener = UnixListener::from_std(fd.into()).map_err(failed("listen on", path))?;
        Ok(Self { listener, path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A successor may have replaced the file already.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file that a dead agent left behind.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |what| move |source| BindError::Io { what, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("remove the stale socket")),
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN: somebody listens whose queue is full.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(errno) => Err(failed("test who listens on")(errno.into())),
    }
}

fn unix_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

/// Connects without waiting: a stopped agent whose queue is full must not stop its successor too.
fn probe(path: &Path) -> nix::Result<()> {
    let fd = unix_socket(SockFlag::SOCK_NONBLOCK)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
}

fn listen_on(path: &Path) -> nix::Result<OwnedFd> {
    let fd = unix_socket(SockFlag::SOCK_NONBLOCK)?;
    // The file takes its mode from the socket, less the umask: it is never more open than it should be.
    fchmod(&fd, Mode::from_bits_truncate(MODE))?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // The umask may have taken the group's right to write.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

//! The client: one blocking call per verb, and errors that tell the operator what to do.

use super::protocol::{
    ApiError, BackendAnswer, BackendCommand, ConnFilter, ConnView, DiffView, DropView, FailoverAnswer, Line, RateView,
    Request, ServiceView, StatsView, Status, SyncView, VERSION,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt},
        time::{TimeVal, TimeValLike},
    },
};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    marker::PhantomData,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the agent may take to accept, and for each line of an answer, unless the caller says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How much longer a failover may take, with the slowest adverts that somebody would configure.
const FAILOVER: Duration = Duration::from_secs(60);
/// The longest answer line that is read, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// No agent listens on the socket.
    NotRunning(PathBuf),
    /// The socket's permissions keep the caller out.
    Denied(PathBuf),
    /// The agent accepted but did not answer, or stopped answering.
    Silent(PathBuf),
    /// The connection could not be made or broke.
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The agent answered in another version of the protocol.
    Version(u32),
    /// The answer makes no sense.
    Garbled(String),
    /// The agent refused.
    Refused(ApiError),
}

impl ClientError {
    /// The agent could not be reached, as opposed to: it said no.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NotRunning(_) | Self::Denied(_) | Self::Silent(_) | Self::Io { .. } => true,
            Self::Version(_) | Self::Garbled(_) | Self::Refused(_) => false,
        }
    }

    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning(path),
            io::ErrorKind::PermissionDenied => Self::Denied(path),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent(path),
            _ => Self::Io { path, source },
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "no agent listens on {}: is lb-agent running? Start it (systemctl start lb-agent), or name its socket \
                 with --socket or LB_SOCKET",
                path.display()
            ),
            Self::Denied(path) => write!(
                f,
                "permission denied on {}: run lbctl as root, or join the group that owns the socket",
                path.display()
            ),
            Self::Silent(path) => write!(
                f,
                "the agent on {} does not answer: see its log, and whether the process is stopped",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "the connection to the agent on {} broke: {source}", path.display()),
            Self::Version(version) => write!(
                f,
                "the agent speaks protocol version {version}, this lbctl version {VERSION}: use the lbctl of its release"
            ),
            Self::Garbled(what) => write!(f, "the agent's answer makes no sense: {what}"),
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// The outcome of a call.
pub type Result<T> = std::result::Result<T, ClientError>;

/// A connection to an agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    patience: Duration,
    line: Vec<u8>,
}

impl Client {
    /// Connects to the agent that listens on `path`.
    ///
    /// # Errors
    ///
    /// Nobody listens, the caller may not connect, or the agent is stuck.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_within(path, PATIENCE)
    }

    /// [`Client::connect`] with another limit than [`PATIENCE`].
    ///
    /// # Errors
    ///
    /// As for [`Client::connect`].
    pub fn connect_within(path: &Path, patience: Duration) -> Result<Self> {
        let stream = open(path, patience).map_err(|error| ClientError::of(path, error))?;
        let stream = BufReader::with_capacity(64 << 10, stream);
        Ok(Self { stream, path: path.to_owned(), patience, line: Vec::new() })
    }

    /// The agent at a glance.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; so for all calls.
    pub fn status(&mut self) -> Result<Status> {
        self.single(&Request::Status)
    }

    /// All services with their backends.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn services(&mut self) -> Result<Vec<ServiceView>> {
        self.listing(&Request::Services)?.collect()
    }

    /// The conns that the filter selects, one by one as they arrive.
    ///
    /// Drop the client if you do not read to the end: the rest of the listing is still on its way.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; each element may be the last with an error.
    pub fn conns(&mut self, filter: &ConnFilter) -> Result<Listing<'_, ConnView>> {
        self.listing(&Request::Conns(filter.clone()))
    }

    /// The traffic of all services.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn stats(&mut self) -> Result<Vec<StatsView>> {
        self.listing(&Request::Stats)?.collect()
    }

    /// The traffic of all services per second, read twice with `interval` between.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn rate(&mut self, interval: Duration) -> Result<Vec<RateView>> {
        self.wait_at_most(self.patience + interval)?;
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let rates = self.listing(&Request::Rate { interval_ms })?.collect();
        self.wait_at_most(self.patience)?;
        rates
    }

    /// All drop reasons, zero counts included.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn drops(&mut self) -> Result<Vec<DropView>> {
        self.listing(&Request::Drops)?.collect()
    }

    /// Changes a backend and tells what it is now.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn backend(&mut self, command: &BackendCommand) -> Result<BackendAnswer> {
        self.single(&Request::Backend(command.clone()))
    }

    /// Gives the role to the peer, and takes it back if it is a drill; `force`: even if the peer lacks conns.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn failover(&mut self, drill: bool, force: bool) -> Result<FailoverAnswer> {
        self.wait_at_most(self.patience + FAILOVER)?;
        let answer = self.single(&Request::Failover { drill, force });
        self.wait_at_most(self.patience)?;
        answer
    }

    /// Connection sync and the peer.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn peer(&mut self) -> Result<SyncView> {
        self.single(&Request::Peer)
    }

    /// Conns that are not known to be the same on both directors, at most `limit`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn diff(&mut self, limit: u64) -> Result<Vec<DiffView>> {
        self.listing(&Request::Diff { limit })?.collect()
    }

    fn wait_at_most(&self, time: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(time)).map_err(|error| self.broken(error))
    }

    fn single<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.send(request)?;
        match self.read()?.data {
            Some(data) => Ok(data),
            None => Err(ClientError::Garbled("a line without data".to_owned())),
        }
    }

    fn listing<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Listing<'_, T>> {
        self.send(request)?;
        Ok(Listing { client: self, count: 0, ended: false, items: PhantomData })
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = request.encode().map_err(|error| ClientError::Garbled(error.to_string()))?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            // An agent that turned us away has closed already, but its reason can still be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| self.broken(error)),
        }
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<Line<T>> {
        self.line.clear();
        let mut limited = self.stream.by_ref().take(MAX_LINE);
        if let Err(error) = limited.read_until(b'\n', &mut self.line) {
            return Err(self.broken(error));
        }
        if self.line.last() != Some(&b'\n') {
            return Err(self.broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent closed it")));
        }
        let garbled = match serde_json::from_slice::<Line<T>>(&self.line) {
            Ok(Line { error: Some(error), .. }) => return Err(ClientError::Refused(error)),
            Ok(line) if line.version.is_none_or(|version| version == VERSION) => return Ok(line),
            Ok(line) => return Err(ClientError::Version(line.version.unwrap_or_default())),
            Err(error) => error,
        };
        // The data of another version may look like anything, its envelope does not change.
        match serde_json::from_slice::<Line<IgnoredAny>>(&self.line) {
            Ok(Line { version: Some(version), .. }) if version != VERSION => Err(ClientError::Version(version)),
            _ => Err(ClientError::Garbled(garbled.to_string())),
        }
    }

    fn broken(&self, error: io::Error) -> ClientError {
        ClientError::of(&self.path, error)
    }
}

/// Connects with a time limit: the queue of a stopped agent may be full.
fn open(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &patience)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
    loop {
        match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
            Ok(()) => return Ok(fd.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The elements of a listing as they arrive.
#[derive(Debug)]
pub struct Listing<'a, T> {
    client: &'a mut Client,
    count: u64,
    ended: bool,
    items: PhantomData<T>,
}

impl<T: DeserializeOwned> Iterator for Listing<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.ended {
            return None;
        }
        let error = match self.client.read() {
            Ok(Line { item: Some(item), .. }) => {
                self.count += 1;
                return Some(Ok(item));
            }
            Ok(Line { end: true, count, .. }) if count == self.count => None,
            Ok(Line { end: true, count, .. }) => {
                Some(ClientError::Garbled(format!("{} of {count} elements arrived", self.count)))
            }
            Ok(_) => Some(ClientError::Garbled("a line without an element".to_owned())),
            Err(error) => Some(error),
        };
        self.ended = true;
        error.map(Err)
    }
}

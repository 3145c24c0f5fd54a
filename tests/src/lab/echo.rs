//! Simple TCP sessions in large numbers: a server that answers every record with the same bytes, and clients that
//! check each answer. For tests in which a thousand sessions matter and MySQL does not.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::host::Host;
use super::wait::now;

/// Bytes of a record: the number of the session and that of the round.
const RECORD: usize = 16;
/// First byte of a record that asks the server to close the session; no session has such a number.
const LEAVE: u8 = 0xff;
/// Connections that may wait to be accepted; the namespace's own limit is 4,096.
const BACKLOG: libc::c_int = 4096;
/// How often a waiting server looks whether it is to stop.
const LOOK: i32 = 50;

/// What a server has seen of its sessions.
#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    most: AtomicUsize,
    reset: AtomicUsize,
}

/// A server that sends back what it receives. It ends when it is dropped, and closes its sessions then.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    count: Arc<Count>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on a host at `address`. Its sockets are in a table of descriptors of their own: as many as a process may
    /// have, beside those of its clients.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(host: &Host, address: SocketAddrV4) -> Result<Self> {
        let count = Arc::new(Count::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (host, counted, stopped) = (host.clone(), Arc::clone(&count), Arc::clone(&stop));
        let (ready, started) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let listen = || -> Result<Sessions> {
                own_descriptors().context("a table of descriptors")?;
                let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
                // More may come at once than the standard library lets wait.
                // SAFETY: the descriptor is open.
                if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } < 0 {
                    return Err(io::Error::last_os_error()).context("listen");
                }
                listener.set_nonblocking(true)?;
                let sessions = Sessions { listener, poll: epoll()?, open: HashMap::new(), count: counted };
                sessions.watch(sessions.listener.as_raw_fd())?;
                Ok(sessions)
            };
            let serve = || -> Result<()> {
                let mut sessions = match listen() {
                    Ok(sessions) => sessions,
                    // Whoever started it hears of it.
                    Err(error) => return Ok(ready.send(Err(error))?),
                };
                ready.send(Ok(()))?;
                while !stopped.load(Ordering::Relaxed) {
                    sessions.turn()?;
                }
                Ok(())
            };
            if let Err(error) = host.enter(serve) {
                eprintln!("echo server: {error:#}");
            }
        });
        started.recv().context("the echo server did not start")??;
        Ok(Self { stop, count, thread: Some(thread) })
    }

    /// The most sessions that were open at the same time.
    #[must_use]
    pub fn most(&self) -> usize {
        self.count.most.load(Ordering::Relaxed)
    }

    /// Sessions that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.count.open.load(Ordering::Relaxed)
    }

    /// Sessions that a RST has ended.
    #[must_use]
    pub fn reset(&self) -> usize {
        self.count.reset.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The server's side of all sessions.
struct Sessions {
    listener: TcpListener,
    poll: OwnedFd,
    open: HashMap<RawFd, TcpStream>,
    count: Arc<Count>,
}

impl Sessions {
    fn watch(&self, socket: RawFd) -> Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: socket as u64 };
        // SAFETY: both are open; the event is only read.
        let result = unsafe { libc::epoll_ctl(self.poll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event) };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("epoll_ctl");
        }
        Ok(())
    }

    /// Waits for a moment and does what there is to do.
    fn turn(&mut self) -> Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: the array is as long as announced.
        let count = unsafe { libc::epoll_wait(self.poll.as_raw_fd(), events.as_mut_ptr(), 256, LOOK) };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let socket = event.u64 as RawFd;
            if socket == self.listener.as_raw_fd() {
                self.accept()?;
            } else if let Some(session) = self.open.get_mut(&socket) {
                let over = match answer(session) {
                    Ok(goes_on) => !goes_on,
                    Err(error) => {
                        self.count
                            .reset
                            .fetch_add(usize::from(error.kind() == ErrorKind::ConnectionReset), Ordering::Relaxed);
                        true
                    }
                };
                if over {
                    // Closing it takes it out of the epoll set.
                    self.open.remove(&socket);
                }
            }
        }
        self.count.open.store(self.open.len(), Ordering::Relaxed);
        self.count.most.fetch_max(self.open.len(), Ordering::Relaxed);
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((session, _)) => {
                    session.set_nonblocking(true)?;
                    session.set_nodelay(true)?;
                    self.watch(session.as_raw_fd())?;
                    self.open.insert(session.as_raw_fd(), session);
                    self.count.most.fetch_max(self.open.len(), Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client gave up while it waited.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("accept"),
            }
        }
    }
}

/// Sends back what has come; `false`: the session is over.
fn answer(session: &mut TcpStream) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    match session.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(_) if buffer[0] == LEAVE => Ok(false),
        // Records are small and answered one by one, so that the send buffer always has room.
        Ok(length) => session.write_all(&buffer[..length]).map(|()| true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing of the old one but the standard streams.
fn own_descriptors() -> io::Result<()> {
    const UNSHARE: u32 = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: the copies that are closed belong to nobody: the originals stay in the table of the other threads.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, UNSHARE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn epoll() -> Result<OwnedFd> {
    // SAFETY: the call takes a number only.
    let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if poll < 0 {
        return Err(io::Error::last_os_error()).context("epoll_create1");
    }
    // SAFETY: it was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(poll) })
}

/// One session, seen from the client.
#[derive(Debug)]
pub struct EchoSession {
    stream: TcpStream,
    number: u64,
    round: u64,
}

impl EchoSession {
    /// Connects from the network namespace of the calling thread, and makes sure that somebody answers.
    ///
    /// # Errors
    /// When there is no connection, or no answer, within `limit` each.
    pub fn open(server: SocketAddrV4, number: u64, limit: Duration) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&server.into(), limit).with_context(|| format!("connect to {server}"))?;
        Self::begin(stream, number, limit)
    }

    /// As [`EchoSession::open`], from a port that the client has used before.
    ///
    /// # Errors
    /// As there, and when the client's own kernel still has use for the port.
    pub fn open_from(port: u16, server: SocketAddrV4, number: u64, limit: Duration) -> Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        // It limits connect() as well.
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(i64::try_from(limit.as_millis())?))?;
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        bind(socket.as_raw_fd(), &SockaddrIn::from(any)).with_context(|| format!("bind to port {port}"))?;
        connect(socket.as_raw_fd(), &SockaddrIn::from(server))
            .with_context(|| format!("connect from port {port} to {server}"))?;
        Self::begin(TcpStream::from(socket), number, limit)
    }

    fn begin(stream: TcpStream, number: u64, limit: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let mut session = Self { stream, number, round: 0 };
        session.talk()?;
        Ok(session)
    }

    /// Ends the session with a RST.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn reset(self) -> Result<()> {
        // A close that lingers for no time at all (socket(7)).
        Ok(setsockopt(&self.stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
    }

    /// Has the server close the session first, and waits until it did.
    ///
    /// # Errors
    /// When it did not.
    pub fn leave(mut self, limit: Duration) -> Result<()> {
        self.stream.write_all(&[LEAVE; RECORD])?;
        let end = self.end(limit)?;
        ensure!(end == ErrorKind::UnexpectedEof, "the session ended with {end}");
        Ok(())
    }

    /// The session's own port.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Asks, without waiting for the answer.
    ///
    /// # Errors
    /// When the session is over.
    pub fn ask(&mut self) -> Result<()> {
        self.round += 1;
        Ok(self.stream.write_all(&self.record())?)
    }

    /// Waits for the answer, which must be the right one.
    ///
    /// # Errors
    /// When it does not come in time, or the session is over.
    pub fn hear(&mut self) -> Result<()> {
        let mut record = [0; RECORD];
        self.stream.read_exact(&mut record)?;
        ensure!(record == self.record(), "session {} heard {record:?} in round {}", self.number, self.round);
        Ok(())
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// As [`EchoSession::hear`].
    pub fn talk(&mut self) -> Result<()> {
        self.ask()?;
        self.hear()
    }

    /// Waits up to `limit` for the other side to end the session; answers how it did.
    ///
    /// # Errors
    /// When it did not, or sent something instead.
    pub fn end(&mut self, limit: Duration) -> Result<ErrorKind> {
        self.stream.set_read_timeout(Some(limit))?;
        match self.stream.read(&mut [0; RECORD]) {
            Ok(0) => Ok(ErrorKind::UnexpectedEof),
            Ok(length) => bail!("{length} bytes instead of the end"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("still open after {limit:?}"),
            Err(error) => Ok(error.kind()),
        }
    }

    fn record(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.number.to_be_bytes());
        record[8..].copy_from_slice(&self.round.to_be_bytes());
        record
    }
}

/// Lets every session ask, then hear, all within `limit` together; answers the sessions that did.
pub fn survivors(sessions: Vec<EchoSession>, limit: Duration) -> Vec<EchoSession> {
    let end = now() + limit;
    let mut asked: Vec<_> =
        sessions.into_iter().filter_map(|mut session| session.ask().ok().map(|()| session)).collect();
    asked.retain_mut(|session| {
        // The last ones may have no time left, but their answers have come long ago.
        let left = end.saturating_duration_since(now()).max(Duration::from_millis(1));
        session.stream.set_read_timeout(Some(left)).is_ok() && session.hear().is_ok()
    });
    asked
}

/// Lets every session ask, then hear; answers the number of right answers, and the first error.
pub fn talk_all(sessions: &mut [EchoSession]) -> (usize, Option<anyhow::Error>) {
    let mut first = None;
    let mut asked = vec![false; sessions.len()];
    for (session, asked) in sessions.iter_mut().zip(&mut asked) {
        match session.ask() {
            Ok(()) => *asked = true,
            Err(error) => first = first.or(Some(error)),
        }
    }
    let mut right = 0;
    for (session, _) in sessions.iter_mut().zip(asked).filter(|(_, asked)| *asked) {
        match session.hear() {
            Ok(()) => right += 1,
            Err(error) => first = first.or(Some(error)),
        }
    }
    (right, first)
}

//! Plain TCP of the checks: connect, the options that find dead paths, and ends that do not hurt the server.

use std::{io, net::SocketAddrV4, os::fd::AsFd, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    health::outcome::{Fault, Outcome, Phase},
    socket::{QuickAck, segments_sent},
};

/// Connects, with keepalive: while we wait for a server that says nothing, its kernel must prove that it is there.
pub(super) async fn connect(address: SocketAddrV4) -> Result<TcpStream, Outcome> {
    let socket = TcpSocket::new_v4().map_err(local)?;
    prepare(&socket).map_err(|errno| local(errno.into()))?;
    // Given up before we knew that we were connected: then with a RST, see `reset`.
    linger(&socket, true);
    let stream = socket.connect(address.into()).await.map_err(not_connected)?;
    linger(&stream, false);
    Ok(stream)
}

/// Asks the kernel behind a port whether something listens. The server never learns of it: our kernel is told to wait
/// with its ACK, and the connection is reset before it is sent, so that it never comes to an accept().
///
/// The kernel waits for 200 ms. If this process does not get a CPU for so long, the server has the connection, and a RST
/// would count against this host there: then the connection comes back.
pub(super) async fn knock(address: SocketAddrV4) -> Result<Option<TcpStream>, Outcome> {
    let socket = TcpSocket::new_v4().map_err(local)?;
    setsockopt(&socket, QuickAck, &false).map_err(|errno| local(errno.into()))?;
    linger(&socket, true);
    let stream = socket.connect(address.into()).await.map_err(not_connected)?;
    // The SYN alone, or more than that? Nothing may come between the question and the end.
    if segments_sent(&stream).is_ok_and(|sent| sent > 1) {
        linger(&stream, false);
        return Ok(Some(stream));
    }
    drop(stream);
    Ok(None)
}

/// Ends a connection with a RST. A server that never read from it then does not count an error against this host:
/// it cannot even ask whose connection it was.
pub(super) fn reset(stream: TcpStream) {
    reset_when_dropped(&stream);
    drop(stream);
}

/// The connection will end with a RST, whoever closes it.
pub(super) fn reset_when_dropped(stream: &TcpStream) {
    linger(stream, true);
}

/// Chooses between RST and FIN for the end of a socket.
fn linger(socket: &impl AsFd, rst: bool) {
    let linger = libc::linger { l_onoff: rst.into(), l_linger: 0 };
    // A socket that refuses the option is closed the usual way.
    let _ = setsockopt(socket, sockopt::Linger, &linger);
}

/// What an error of the socket says about the server.
pub(super) fn fault(error: &io::Error, phase: Phase) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
            if phase != Phase::Connect =>
        {
            Fault::Reset(phase)
        }
        io::ErrorKind::ConnectionReset => Fault::Refused,
        io::ErrorKind::UnexpectedEof => Fault::Closed(phase),
        io::ErrorKind::TimedOut => Fault::Timeout(phase),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Fault::Unreachable(error.to_string())
        }
        _ if phase == Phase::Connect => Fault::Unreachable(error.to_string()),
        _ => Fault::Reset(phase),
    }
}

/// What an error of connect(2) says: about the server, or only about this director.
fn not_connected(error: io::Error) -> Outcome {
    match error.raw_os_error() {
        // No free port, no memory, a policy of this host that forbids it: no packet was sent.
        Some(libc::EADDRNOTAVAIL | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => local(error),
        _ => Outcome::Fail(fault(&error, Phase::Connect)),
    }
}

fn local(error: io::Error) -> Outcome {
    Outcome::Unmade(format!("the check could not be made: {error}"))
}

fn prepare(socket: &impl AsFd) -> nix::Result<()> {
    const IDLE: u32 = 1;
    const PROBES: u32 = 3;
    /// The kernel gives up on bytes that nobody acknowledges after this.
    const UNSENT: Duration = Duration::from_secs(10);
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &IDLE)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &IDLE)?;
    setsockopt(socket, sockopt::TcpKeepCount, &PROBES)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &(UNSENT.as_millis() as u32))?;
    setsockopt(socket, sockopt::TcpNoDelay, &true)
}

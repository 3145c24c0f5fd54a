//! A connection to a server: moves bytes between its socket and its session.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{Connect, client::TlsStream};

use super::{
    tcp::{fault, reset, reset_when_dropped},
    tls::Tlsing,
};
use crate::{
    health::{
        mysql::{Command, Login, Reply, Session, Wants},
        outcome::{Fault, Outcome, Phase},
    },
    printable::clean,
};

/// How long a polite end may take.
const GOODBYE: Duration = Duration::from_secs(1);

enum Stream {
    Plain(TcpStream),
    /// The handshake runs; the next check goes on with it.
    Handshake(Box<Connect<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake that failed took the socket with it.
    Gone,
}

/// A connection to a server.
pub(super) struct Live {
    stream: Stream,
    session: Session,
    opened: Instant,
    buffer: Vec<u8>,
}

impl Live {
    pub(super) fn new(stream: TcpStream, login: Login) -> Self {
        Self {
            stream: Stream::Plain(stream),
            session: Session::new(login),
            opened: Instant::now(),
            buffer: vec![0; 4096],
        }
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Logged in, and with nothing outstanding.
    pub(super) fn is_ready(&self) -> bool {
        self.session.wants() == Wants::Command
    }

    /// True while the server may still be about to let us in: then giving up would count against us there.
    pub(super) fn is_logging_in(&self) -> bool {
        !matches!(self.stream, Stream::Gone)
            && matches!(self.session.phase(), Phase::Greeting | Phase::Tls | Phase::Login)
            && matches!(self.session.wants(), Wants::Input | Wants::Tls)
    }

    /// Goes on until the server lets us in.
    pub(super) async fn log_in(&mut self, tls: &Tlsing) -> Result<(), Outcome> {
        while !self.is_ready() {
            self.step(tls).await?;
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, command: &Command, tls: &Tlsing) -> Result<Reply, Outcome> {
        // What the server said since the last time: perhaps goodbye.
        self.overheard()?;
        self.session.ask(command);
        loop {
            if let Some(reply) = self.step(tls).await? {
                return Ok(reply);
            }
        }
    }

    /// Sends what is to be sent, then does what the session waits for.
    async fn step(&mut self, tls: &Tlsing) -> Result<Option<Reply>, Outcome> {
        let phase = self.session.phase();
        let failed = |error: io::Error| Outcome::Fail(fault(&error, phase));
        let output = self.session.take_output();
        if !output.is_empty() {
            self.stream.write_all(&output).await.map_err(failed)?;
        }
        match self.session.wants() {
            Wants::Input => {
                let count = self.stream.read(&mut self.buffer).await.map_err(failed)?;
                let bytes = self.buffer.get(..count).unwrap_or_default();
                if bytes.is_empty() {
                    return Err(Outcome::Fail(Fault::Closed(phase)));
                }
                self.session.receive(bytes)
            }
            Wants::Tls => {
                if let Stream::Plain(_) = &self.stream
                    && let Stream::Plain(plain) = std::mem::replace(&mut self.stream, Stream::Gone)
                {
                    self.stream = Stream::Handshake(Box::new(tls.connect(plain)));
                }
                let Stream::Handshake(handshake) = &mut self.stream else {
                    return Err(Outcome::Fail(Fault::Closed(phase)));
                };
                // Cut off here, it stays where it is.
                let made = handshake.await;
                self.stream = Stream::Gone;
                self.stream = Stream::Tls(Box::new(made.map_err(|error| tls_fault(&error))?));
                self.session.tls_ready()?;
                Ok(None)
            }
            Wants::Command | Wants::End => Ok(None),
        }
    }

    /// Reads what has arrived unasked, without waiting.
    fn overheard(&mut self) -> Result<(), Outcome> {
        let Stream::Plain(stream) = &self.stream else { return Ok(()) };
        match stream.try_read(&mut self.buffer) {
            Ok(0) => Err(Outcome::Fail(Fault::Closed(Phase::Ping))),
            Ok(count) => self.session.receive(self.buffer.get(..count).unwrap_or_default()).map(drop),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Outcome::Fail(fault(&error, Phase::Ping))),
        }
    }

    /// Ends the connection as the protocol wants it, and waits for the server's end.
    pub(super) async fn quit(mut self) {
        self.session.ask(&Command::Quit);
        let goodbye = async {
            let output = self.session.take_output();
            self.stream.write_all(&output).await?;
            self.stream.shutdown().await?;
            while self.stream.read(&mut self.buffer).await? > 0 {}
            io::Result::Ok(())
        };
        // Whoever does not say goodbye is left without.
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Ends the connection at once.
    pub(super) fn reset(self) {
        match self.stream {
            Stream::Plain(stream) => reset(stream),
            Stream::Handshake(handshake) => {
                if let Some(stream) = handshake.get_ref() {
                    reset_when_dropped(stream);
                }
            }
            Stream::Tls(stream) => reset(stream.into_inner().0),
            Stream::Gone => {}
        }
    }
}

fn tls_fault(error: &io::Error) -> Outcome {
    Outcome::Fail(match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => fault(error, Phase::Tls),
        io::ErrorKind::UnexpectedEof => Fault::Closed(Phase::Tls),
        _ => Fault::Tls(clean(error.to_string().as_bytes())),
    })
}

impl Stream {
    fn inner(&mut self) -> io::Result<&mut (dyn Bytes + Send)> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Tls(stream) => Ok(stream),
            Self::Handshake(_) | Self::Gone => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner()?.read(buffer).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.inner()?;
        stream.write_all(bytes).await?;
        stream.flush().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.inner()?.shutdown().await
    }
}

trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

//! One connection to a server, from its greeting to COM_QUIT: every packet in, every packet out, every verdict.
//!
//! The protocol is completed whenever the server lets us: a connection that ends in the middle of a login counts
//! towards the server's `max_connect_errors`, and one that ends with an answer, even "access denied", does not.

use std::{fmt, sync::Arc};

use mysql_common::{
    constants::CapabilityFlags as Caps,
    packets::{AuthPlugin, HandshakeResponse, SslRequest},
    proto::MySerialize as _,
};
use zeroize::Zeroizing;

use super::{
    auth::{self, More, Plugin},
    frame::Framer,
    greeting::Greeting,
    reader::Reader,
    rows::{self, Progress, RowReader, Rows},
};
use crate::{
    health::{
        condition::Flavour,
        outcome::{Fault, Outcome, Phase},
        plan::Tls,
        secret::Secret,
    },
    printable::clean,
};

/// Longest packet that makes sense until the login is done: greetings are below 150 bytes, keys below 1000.
const LOGIN_LIMIT: usize = 8 << 10;
/// Longest packet of an answer.
const ANSWER_LIMIT: usize = 256 << 10;
/// Packets of a login that make sense.
const LOGIN_PACKETS: u32 = 16;
/// What we announce as our longest packet.
const OUR_LIMIT: u32 = 1 << 20;
const UTF8MB4: u8 = 45;

/// Who logs in, and how.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password; none: an empty one.
    pub secret: Option<Arc<Secret>>,
    /// TLS.
    pub tls: Tls,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Login {
    fn password(&self) -> &[u8] {
        self.secret.as_deref().map_or(&[], Secret::bytes)
    }

    /// Takes the password out of a text of the server's, which may have got it from us.
    fn redact(&self, outcome: Outcome) -> Outcome {
        let Some(secret) = &self.secret else { return outcome };
        match outcome {
            Outcome::Fail(Fault::Server { code, text }) => {
                Outcome::Fail(Fault::Server { code, text: secret.redact(&text) })
            }
            Outcome::Blocked(text) => Outcome::Blocked(secret.redact(&text)),
            Outcome::CheckUser(text) => Outcome::CheckUser(secret.redact(&text)),
            other => other,
        }
    }
}

/// What can be asked once logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// COM_PING.
    Ping,
    /// COM_QUERY, one statement.
    Query(String),
    /// COM_QUIT; the server closes.
    Quit,
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It let us in.
    LoggedIn,
    /// It answered a ping.
    Pong,
    /// It answered a statement.
    Rows(Rows),
}

/// What the session waits for, when there is nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Bytes of the server.
    Input,
    /// A TLS handshake, then [`Session::tls_ready`].
    Tls,
    /// A [`Command`].
    Command,
    /// Nothing more.
    End,
}

enum State {
    Greeting,
    /// Everything sent; the TLS handshake comes next, then the rest of the login with this.
    Tls(Greeting),
    Login {
        plugin: Option<Plugin>,
        nonce: Zeroizing<Vec<u8>>,
        packets: u32,
    },
    Ready,
    Ping,
    Query(RowReader),
    End,
}

/// A connection to a server.
pub struct Session {
    login: Login,
    framer: Framer,
    out: Zeroizing<Vec<u8>>,
    state: State,
    secure: bool,
    version: String,
    /// What is wrong with the server besides what it will answer to a login that cannot succeed.
    verdict: Option<Outcome>,
}

/// Without what is to be sent: that may be the password.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("phase", &self.phase()).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Session {
    /// A connection that was just made.
    #[must_use]
    pub fn new(login: Login) -> Self {
        Self {
            login,
            framer: Framer::default(),
            out: Zeroizing::default(),
            state: State::Greeting,
            secure: false,
            version: String::new(),
            verdict: None,
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Greeting => Phase::Greeting,
            State::Tls(_) => Phase::Tls,
            State::Login { .. } => Phase::Login,
            State::Ready | State::Ping | State::End => Phase::Ping,
            State::Query(_) => Phase::Query,
        }
    }

    /// What it waits for.
    #[must_use]
    pub const fn wants(&self) -> Wants {
        match self.state {
            State::Greeting | State::Login { .. } | State::Ping | State::Query(_) => Wants::Input,
            State::Tls(_) => Wants::Tls,
            State::Ready => Wants::Command,
            State::End => Wants::End,
        }
    }

    /// The version text of the greeting; empty before it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What kind of server it is.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        Flavour::of(&self.version)
    }

    /// What is to be sent before anything else.
    pub fn take_output(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    /// The TLS handshake is done.
    ///
    /// # Errors
    /// Something was said before it, in the clear, which anybody may have said.
    pub fn tls_ready(&mut self) -> Result<(), Outcome> {
        if self.framer.has_rest() {
            return Err(self.garbage("more than was asked for"));
        }
        self.secure = true;
        if let State::Tls(greeting) = std::mem::replace(&mut self.state, State::End) {
            self.respond(greeting);
        }
        Ok(())
    }

    /// Asks something, when the session wants a command.
    pub fn ask(&mut self, command: &Command) {
        if !matches!(self.state, State::Ready) {
            return;
        }
        self.framer.begin();
        self.state = match command {
            Command::Ping => {
                self.framer.send(&[0x0e], &mut self.out);
                State::Ping
            }
            Command::Query(sql) => {
                self.framer.send(&[b"\x03", sql.as_bytes()].concat(), &mut self.out);
                State::Query(RowReader::default())
            }
            Command::Quit => {
                self.framer.send(&[0x01], &mut self.out);
                State::End
            }
        };
    }

    /// Takes bytes of the server; `None`: more are needed, or there is something to do first.
    ///
    /// # Errors
    /// The verdict of the check. The session is still good if it wants a command then; else it is over.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Reply>, Outcome> {
        self.framer.receive(bytes);
        loop {
            let limit = match self.state {
                State::Greeting | State::Login { .. } => LOGIN_LIMIT,
                State::Ping | State::Query(_) => ANSWER_LIMIT,
                // Whatever a server says before we asked: it says goodbye that way when it stops.
                State::Ready => return self.unasked(),
                State::Tls(_) | State::End => return Ok(None),
            };
            let Some(payload) = self.framer.next(limit).map_err(|what| self.garbage(what))? else { return Ok(None) };
            if let Some(reply) = self.packet(&payload)? {
                if self.framer.has_rest() {
                    return Err(self.garbage("more than was asked for"));
                }
                return Ok(Some(reply));
            }
        }
    }

    fn packet(&mut self, payload: &[u8]) -> Result<Option<Reply>, Outcome> {
        match &mut self.state {
            State::Greeting => self.greeting(payload).map(|()| None),
            State::Login { .. } => self.login(payload),
            State::Ping => {
                if let Some((code, text)) = rows::error(payload) {
                    return Err(self.refused(code, text));
                }
                if payload.first() != Some(&0) {
                    return Err(self.garbage("neither OK nor an error"));
                }
                self.state = State::Ready;
                Ok(Some(Reply::Pong))
            }
            State::Query(reader) => match reader.packet(payload) {
                Err(what) => Err(self.garbage(what)),
                Ok(Progress::More) => Ok(None),
                Ok(Progress::Done(rows)) => {
                    self.state = State::Ready;
                    Ok(Some(Reply::Rows(rows)))
                }
                Ok(Progress::Error(code, text)) => {
                    self.state = State::Ready;
                    Err(self.login.redact(Outcome::of_error(code, &text)))
                }
            },
            State::Tls(_) | State::Ready | State::End => Ok(None),
        }
    }

    fn greeting(&mut self, payload: &[u8]) -> Result<(), Outcome> {
        if let Some((code, text)) = rows::error(payload) {
            return Err(self.refused(code, text));
        }
        let greeting = Greeting::read(payload).map_err(|what| self.garbage(what))?;
        self.version = clean(&greeting.version);
        let capabilities = greeting.capabilities;
        let offered = capabilities.contains(Caps::CLIENT_SSL);
        match self.login.tls {
            Tls::Prefer | Tls::Require | Tls::Verify if offered => {
                let mut request = Vec::new();
                SslRequest::new(flags(capabilities, true), OUR_LIMIT, UTF8MB4).serialize(&mut request);
                self.framer.send(&request, &mut self.out);
                self.state = State::Tls(greeting);
                return Ok(());
            }
            Tls::Require | Tls::Verify => {
                // The password must not leave; the login is completed without it.
                self.login.secret = None;
                self.verdict = Some(Outcome::Fail(Fault::Tls("the server offers none".into())));
            }
            Tls::Off | Tls::Prefer => {}
        }
        self.respond(greeting);
        Ok(())
    }

    /// Sends user and first proof.
    fn respond(&mut self, greeting: Greeting) {
        let Greeting { capabilities, plugin, nonce, .. } = greeting;
        // An unknown default plugin need not be the user's: any name will do, the server asks for the right one.
        let plugin = plugin.unwrap_or(Plugin::Native);
        let proof = plugin.answer(self.login.password(), &nonce);
        let flags = flags(capabilities, self.secure);
        let named = capabilities.contains(Caps::CLIENT_PLUGIN_AUTH).then(|| AuthPlugin::from_bytes(plugin.name()));
        let about = capabilities.contains(Caps::CLIENT_CONNECT_ATTRS);
        let about = about.then(|| [("program_name".to_owned(), "lb-agent".to_owned())].into());
        let packet = HandshakeResponse::new(
            Some(&proof[..]),
            (5, 5, 3),
            Some(self.login.user.as_bytes()),
            None::<&[u8]>,
            named,
            flags,
            about,
            OUR_LIMIT,
        );
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        packet.serialize(&mut bytes);
        self.framer.send(&bytes, &mut self.out);
        self.state = State::Login { plugin: Some(plugin), nonce, packets: 0 };
    }

    fn login(&mut self, payload: &[u8]) -> Result<Option<Reply>, Outcome> {
        let State::Login { plugin, nonce, packets } = &mut self.state else { return Ok(None) };
        *packets += 1;
        if *packets > LOGIN_PACKETS {
            return Err(self.garbage("an endless login"));
        }
        match payload {
            [0x00, ..] => {
                self.state = State::Ready;
                match self.verdict.take() {
                    Some(verdict) => Err(verdict),
                    None => Ok(Some(Reply::LoggedIn)),
                }
            }
            [0xff, ..] => {
                let (code, text) = rows::error(payload).unwrap_or((0, b"an error without a number"));
                Err(self.refused(code, text))
            }
            // A server of the last century asks for a hash that tells the password.
            [0xfe] => self.unsupported("mysql_old_password".into()),
            [0xfe, request @ ..] => {
                let mut request = Reader(request);
                let name = request.until_nul();
                let Some(asked) = Plugin::of(name) else {
                    let name = clean(name);
                    return self.unsupported(name);
                };
                *plugin = Some(asked);
                // The nonce of ed25519 has 32 bytes, and any of them may be zero.
                let longest = if asked == Plugin::Ed25519 { 32 } else { 20 };
                *nonce = Zeroizing::new(request.0.get(..longest).unwrap_or(request.0).to_vec());
                let proof = asked.answer(self.login.password(), nonce);
                self.framer.send(&proof, &mut self.out);
                Ok(None)
            }
            [0x01, data @ ..] if *plugin == Some(Plugin::CachingSha2) => {
                match auth::more(self.login.password(), nonce, data, self.secure) {
                    More::Nothing => Ok(None),
                    More::Send(bytes) => {
                        self.framer.send(&bytes, &mut self.out);
                        Ok(None)
                    }
                    More::Broken => Err(self.garbage("a public key that is none")),
                }
            }
            _ => Err(self.garbage("not a packet of a login")),
        }
    }

    /// A plugin that we cannot answer: an empty proof makes the server end the login in order.
    fn unsupported(&mut self, name: String) -> Result<Option<Reply>, Outcome> {
        if self.verdict.is_none() {
            let text = format!(
                "the server asks for the authentication plugin `{name}`, which the check does not know: use \
                 caching_sha2_password, mysql_native_password or ed25519 for this user"
            );
            self.verdict = Some(Outcome::CheckUser(text));
        }
        if let State::Login { plugin, .. } = &mut self.state {
            *plugin = None;
        }
        self.framer.send(&[], &mut self.out);
        Ok(None)
    }

    /// The server closes after an error of this kind.
    fn refused(&mut self, code: u16, text: &[u8]) -> Outcome {
        self.state = State::End;
        let outcome = self.verdict.take().unwrap_or_else(|| Outcome::of_error(code, text));
        self.login.redact(outcome)
    }

    fn unasked(&mut self) -> Result<Option<Reply>, Outcome> {
        if !self.framer.has_rest() {
            return Ok(None);
        }
        self.framer.begin();
        let packet = self.framer.next(LOGIN_LIMIT).map_err(|what| self.garbage(what))?;
        match packet.as_deref().and_then(rows::error) {
            Some((code, text)) => Err(self.refused(code, text)),
            None => Err(self.garbage("a packet that was not asked for")),
        }
    }

    fn garbage(&mut self, what: &'static str) -> Outcome {
        let phase = self.phase();
        self.state = State::End;
        Outcome::Fail(Fault::Garbage { phase, what })
    }
}

/// What we announce: what a check needs, and no more than the server offers.
fn flags(server: Caps, secure: bool) -> Caps {
    let ours = Caps::CLIENT_PROTOCOL_41
        | Caps::CLIENT_SECURE_CONNECTION
        | Caps::CLIENT_LONG_PASSWORD
        | Caps::CLIENT_PLUGIN_AUTH
        | Caps::CLIENT_CONNECT_ATTRS;
    let tls = if secure { Caps::CLIENT_SSL } else { Caps::empty() };
    (ours & server) | Caps::CLIENT_LONG_PASSWORD | tls
}

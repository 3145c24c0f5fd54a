//! `lbctl`, the operator's tool: arguments in, one call to the agent, a table or JSON out.
//!
//! Exit codes: 0 done; 1 the agent refused, or the output could not be written; 2 wrong usage; 3 no agent reached.
//! A reader that closes the pipe early is no error. Nothing is ever coloured.

mod args;
mod check;
mod ipvs;
mod status;
mod sync;
mod text;
mod vrrp;

use crate::control::{
    DEFAULT_SOCKET,
    client::{Client, ClientError},
    protocol::{BackendCommand, ConnFilter, Request},
};
use args::{Args, BackendVerb, Form, Verb};
use clap::Parser;
use serde::Serialize;
use std::{
    env,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

const REFUSED: u8 = 1;
const UNREACHABLE: u8 = 3;

/// Runs the tool with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let done = run(&args, &mut out).and_then(|()| Ok(out.flush()?));
    let failure = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    // What was printed before the failure stays visible, above the message.
    drop(out);
    match failure {
        Failure::Refused(message) => fail(REFUSED, &message),
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Output(error) => fail(REFUSED, &format!("cannot write the output: {error}")),
        Failure::Agent(error) if error.is_unreachable() => fail(UNREACHABLE, &error.to_string()),
        Failure::Agent(error) => fail(REFUSED, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Nobody may be reading stderr either, and there is no third place.
    let _ = writeln!(io::stderr(), "lbctl: {message}");
    ExitCode::from(code)
}

#[derive(Debug)]
enum Failure {
    Agent(ClientError),
    Output(io::Error),
    /// What was asked cannot be answered; a sentence.
    Refused(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Agent(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    if let Verb::CheckUser { config: Some(path), service, .. } = &args.verb {
        return check::user(out, path, service.as_deref());
    }
    let mut client = Client::connect_within(&socket(args), args.timeout)?;
    let table = matches!(args.output, Form::Table);
    match &args.verb {
        Verb::Status if table => status::status(out, &client.status()?)?,
        Verb::Status => json(out, &client.status()?)?,
        Verb::Services if table => ipvs::services(out, &client.status()?, &client.services()?)?,
        Verb::Services => json(out, &client.services()?)?,
        Verb::Conns(args) => conns(out, &mut client, &args.filter(), table)?,
        Verb::Stats { exact } if table => ipvs::stats(out, &client.status()?, &client.stats()?, *exact)?,
        Verb::Stats { .. } => json(out, &client.stats()?)?,
        Verb::Rate { interval, exact } if table => {
            ipvs::rates(out, &client.status()?, &client.rate(*interval)?, *exact)?;
        }
        Verb::Rate { interval, .. } => json(out, &client.rate(*interval)?)?,
        Verb::Drops { all } if table => status::drops(out, &client.drops()?, *all)?,
        Verb::Drops { .. } => json(out, &client.drops()?)?,
        Verb::Backend(verb) => {
            let answer = client.backend(&command(verb))?;
            if table { status::backend(out, &answer)? } else { json(out, &answer)? }
        }
        Verb::CheckUser { service, .. } => check::user(out, &client.status()?.config_path, service.as_deref())?,
        Verb::Failover { drill, force } => {
            let answer = client.failover(*drill, *force)?;
            if table { vrrp::failover(out, &answer)? } else { json(out, &answer)? }
        }
        Verb::Peer if table => sync::peer(out, &client.peer()?)?,
        Verb::Peer => json(out, &client.peer()?)?,
        Verb::Diff { limit } if table => sync::diff(out, &client.diff(*limit)?, *limit)?,
        Verb::Diff { limit } => json(out, &client.diff(*limit)?)?,
    }
    Ok(())
}

fn socket(args: &Args) -> PathBuf {
    let from_environment = || env::var_os("LB_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    args.socket.clone().or_else(from_environment).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

fn command(verb: &BackendVerb) -> BackendCommand {
    let (action, target) = verb.parts();
    BackendCommand { action, service: target.service.clone(), address: target.address }
}

/// Prints conns while they arrive; a million of them take no more memory than one.
fn conns(out: &mut impl Write, client: &mut Client, filter: &ConnFilter, table: bool) -> Result<(), Failure> {
    let mut conns = client.conns(filter)?.peekable();
    // A refusal comes before the first line of output.
    if let Some(Err(_)) = conns.peek()
        && let Some(Err(error)) = conns.next()
    {
        return Err(error.into());
    }
    if table {
        ipvs::conn_titles(out)?;
        for conn in conns {
            ipvs::conn(out, &conn?)?;
        }
        return Ok(());
    }
    out.write_all(b"[")?;
    for (index, conn) in conns.enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &conn?).map_err(io::Error::from)?;
    }
    Ok(out.write_all(b"\n]\n")?)
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// What `--interval` accepts, from the protocol.
fn interval_range() -> (Duration, Duration) {
    (Duration::from_millis(*Request::INTERVAL_MS.start()), Duration::from_millis(*Request::INTERVAL_MS.end()))
}

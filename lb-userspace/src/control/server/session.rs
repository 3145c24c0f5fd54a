//! One client: reads a request, writes its answer, again, within the limits.
//!
//! Requests of a client are answered one after the other, so a client that does not read only stops itself.

use super::{ConnSink, Handler, Limits, rate};
use crate::control::{
    drops,
    protocol::{Answer, ApiError, ConnFilter, End, ErrorCode, Item, Refusal, Request, put_line},
};
use serde::Serialize;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep, timeout},
};
use tracing::info;

/// Serves one client until it leaves, breaks a limit or sends what is no request.
pub(super) async fn run(stream: UnixStream, handler: Arc<dyn Handler>, limits: Limits) -> io::Result<()> {
    let peer = stream.peer_cred().ok();
    let (reader, writer) = stream.into_split();
    let mut lines = Lines { reader: BufReader::new(reader), buffer: Vec::new(), limit: limits.line };
    let mut out = Out { writer, stall: limits.stall };
    loop {
        let Ok(line) = timeout(limits.idle, lines.next()).await else { return Ok(()) };
        let decoded = match line? {
            Input::End => return Ok(()),
            Input::Line(line) => Request::decode(line),
            Input::TooLong => {
                let message = format!("a request is at most {} bytes long", limits.line);
                Err(ApiError::new(ErrorCode::BadRequest, message))
            }
        };
        if let (Ok(Request::Backend(command)), Some(peer)) = (&decoded, &peer) {
            let (uid, pid) = (peer.uid(), peer.pid());
            info!(uid, pid, address = %command.address, service = command.service, action = ?command.action,
                "operator changes a backend");
        }
        if let (Ok(Request::Failover { drill, force }), Some(peer)) = (&decoded, &peer) {
            let (uid, pid) = (peer.uid(), peer.pid());
            info!(uid, pid, drill, force, "operator asks for a failover");
        }
        let answered = match decoded {
            Ok(request) => answer(request, &handler, &mut out).await?,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = answered {
            out.line(&Refusal::new(&refusal)).await?;
            if refusal.ends_the_stream() {
                return out.writer.shutdown().await;
            }
        }
    }
}

/// Tells a client that cannot be served, without waiting for it.
pub(super) fn turn_away(stream: &UnixStream, refusal: &ApiError) {
    let mut line = Vec::new();
    if put_line(&mut line, &Refusal::new(refusal)).is_ok() {
        // The send buffer of a new stream is empty; a client that is gone already misses nothing.
        let _ = stream.try_write(&line);
    }
}

/// Answers a request; the inner error is a refusal that is still to be written.
async fn answer(request: Request, handler: &Arc<dyn Handler>, out: &mut Out) -> io::Result<Result<(), ApiError>> {
    match request {
        Request::Status => out.single(handler.status().await).await,
        Request::Services => out.listing(handler.services().await).await,
        Request::Conns(filter) => conns(filter, handler, out).await,
        Request::Stats => out.listing(handler.stats().await).await,
        Request::Rate { interval_ms } => {
            let before = match handler.stats().await {
                Ok(before) => before,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let start = Instant::now();
            sleep(Duration::from_millis(interval_ms)).await;
            let after = handler.stats().await;
            out.listing(after.map(|after| rate::between(&before, &after, start.elapsed()))).await
        }
        Request::Drops => out.listing(handler.counters().await.map(|counters| drops::views(&counters))).await,
        Request::Backend(command) => out.single(handler.backend(command).await).await,
        Request::Failover { drill, force } => out.single(handler.failover(drill, force).await).await,
        Request::Peer => out.single(handler.peer().await).await,
        Request::Diff { limit } => out.listing(handler.diff(limit).await).await,
    }
}

async fn conns(filter: ConnFilter, handler: &Arc<dyn Handler>, out: &mut Out) -> io::Result<Result<(), ApiError>> {
    let (mut sink, mut chunks) = ConnSink::new(filter.clone());
    let handler = Arc::clone(handler);
    let walk = tokio::task::spawn_blocking(move || {
        let walked = handler.conns(&filter, &mut sink);
        let count = sink.finish();
        walked.map(|()| count)
    });
    while let Some(chunk) = chunks.recv().await {
        out.bytes(&chunk).await?;
    }
    match walk.await {
        Ok(Ok(count)) => out.line(&End::new(count)).await.map(Ok),
        Ok(Err(refusal)) => Ok(Err(refusal)),
        Err(failed) => Ok(Err(ApiError::internal(failed))),
    }
}

enum Input<'a> {
    Line(&'a [u8]),
    TooLong,
    End,
}

/// Lines of bounded length from an untrusted client.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    buffer: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// The next line, without its newline. The last line may lack one.
    async fn next(&mut self) -> io::Result<Input<'_>> {
        self.buffer.clear();
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(if self.buffer.is_empty() { Input::End } else { Input::Line(&self.buffer) });
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = newline.unwrap_or(available.len());
            if self.buffer.len() + part > self.limit {
                return Ok(Input::TooLong);
            }
            self.buffer.extend_from_slice(&available[..part]);
            self.reader.consume(part + usize::from(newline.is_some()));
            if newline.is_some() {
                return Ok(Input::Line(&self.buffer));
            }
        }
    }
}

/// Answers to a client that may read slowly, but must read.
struct Out {
    writer: OwnedWriteHalf,
    stall: Duration,
}

impl Out {
    async fn single<T: Serialize>(&mut self, data: Result<T, ApiError>) -> io::Result<Result<(), ApiError>> {
        match data {
            Ok(data) => self.line(&Answer::new(data)).await.map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn listing<T: Serialize>(&mut self, items: Result<Vec<T>, ApiError>) -> io::Result<Result<(), ApiError>> {
        let items = match items {
            Ok(items) => items,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut lines = Vec::new();
        for item in &items {
            put_line(&mut lines, &Item { item })?;
        }
        put_line(&mut lines, &End::new(items.len() as u64))?;
        self.bytes(&lines).await.map(Ok)
    }

    async fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = Vec::new();
        put_line(&mut line, value)?;
        self.bytes(&line).await
    }

    /// The stall limit counts from the last byte the client took, so slow clients may be slow.
    async fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Ok(written) = timeout(self.stall, self.writer.write(bytes)).await else {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer"));
            };
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

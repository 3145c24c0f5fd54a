//! The way of conns from the walk over the table to a client, with back-pressure and bounded memory.
//!
//! The walk runs on a blocking thread and encodes there; chunks of encoded lines pass a short channel to the session.
//! A client that stops reading stops the walk, and nobody else.

use crate::control::protocol::{ConnFilter, ConnView, Item, put_line};
use std::ops::ControlFlow;
use tokio::sync::mpsc;

/// Bytes of lines that travel together.
const CHUNK: usize = 32 << 10;
/// Chunks that may wait for the client.
const CHUNKS: usize = 2;

/// Takes the conns of one listing.
#[derive(Debug)]
pub struct ConnSink {
    filter: ConnFilter,
    count: u64,
    buffer: Vec<u8>,
    to: mpsc::Sender<Vec<u8>>,
}

impl ConnSink {
    pub(super) fn new(filter: ConnFilter) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (to, from) = mpsc::channel(CHUNKS);
        (Self { filter, count: 0, buffer: Vec::with_capacity(CHUNK + 1024), to }, from)
    }

    /// Hands over a conn if the filter selects it. Waits while the client is slow.
    ///
    /// Breaks off when the limit is reached or the client is gone: the walk can end.
    pub fn push(&mut self, conn: &ConnView) -> ControlFlow<()> {
        if self.is_full() {
            return ControlFlow::Break(());
        }
        if !self.filter.matches(conn) {
            return ControlFlow::Continue(());
        }
        if put_line(&mut self.buffer, &Item { item: conn }).is_err() {
            return ControlFlow::Break(());
        }
        self.count += 1;
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Hands over what is left and tells how many conns were selected.
    pub(super) fn finish(mut self) -> u64 {
        if !self.buffer.is_empty() {
            // A client that is gone does not miss the rest.
            let _ = self.flush();
        }
        self.count
    }

    fn is_full(&self) -> bool {
        self.filter.limit.is_some_and(|limit| self.count >= limit)
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + 1024));
        match self.to.blocking_send(chunk) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

//! A conn as its two ends know it: who talks to whom, and how far each has come. Enough to tell both that it is over.
//!
//! Owns the search for the conns of one backend. What is told, and how, is not known here.

use lb_common::{
    conn::{Conn, Direction, FlowKey},
    tcp::State,
};

use super::{error::Result, scan::Scan, tables::Tables};

/// How far one end has come. Host order; 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number after the last byte it sent.
    pub seq: u32,
    /// Its last acknowledgement number.
    pub ack: u32,
}

/// A conn with what both ends sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The key of its forward entry: client to VIP.
    pub forward: FlowKey,
    /// The key of its reverse entry: backend to client, with the client's port as the backend sees it.
    pub reverse: FlowKey,
    /// Its state.
    pub state: State,
    /// What the client sent.
    pub client: Numbers,
    /// What the backend sent.
    pub backend: Numbers,
}

impl Tables {
    /// Reads the next slice of `conns`: the conns of a backend in it, those with both entries. `None`: that was all.
    ///
    /// # Errors
    ///
    /// A system call failed.
    pub fn next_conns_of(&self, backend: u16, scan: &mut Scan<FlowKey, Conn>) -> Result<Option<Vec<Ends>>> {
        let table = &self.conns;
        let Some(slice) = scan.next(table)? else { return Ok(None) };
        let own = |(_, conn): &&(FlowKey, Conn)| (conn.backend, conn.dir) == (backend, Direction::Forward);
        let mut found = Vec::new();
        for (key, forward) in slice.iter().filter(own) {
            // The conn may have gone since the scan.
            let Some(reverse) = table.get(&forward.other_key())? else { continue };
            found.push(Ends {
                forward: *key,
                reverse: forward.other_key(),
                state: State::of(forward.seen, reverse.seen),
                client: Numbers { seq: forward.seq, ack: forward.ack },
                backend: Numbers { seq: reverse.seq, ack: reverse.ack },
            });
        }
        Ok(Some(found))
    }
}

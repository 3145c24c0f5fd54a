//! Connection sync as people read it: first the answer to what they came for, then how far both directors are.

use super::text::{self, Align::*, columns};
use crate::control::protocol::{DiffView, SyncView};
use std::io::{self, Write};

/// The line of `status`.
pub(super) fn line(view: &SyncView) -> String {
    let peer = match &view.peer {
        Some(peer) => {
            let name = peer.name.clone().unwrap_or_else(|| format!("number {}", peer.number));
            format!("{} with {name}, {} conns here, {} there, lag {}", state(view), view.conns, peer.conns, lag(view))
        }
        None => format!("{}: nobody answers on {}, {} conns here", view.state, view.path, view.conns),
    };
    if view.protected { peer } else { format!("{peer}; UNPROTECTED") }
}

/// The whole answer.
pub(super) fn peer(out: &mut impl Write, view: &SyncView) -> io::Result<()> {
    let safety = &view.safety_word();
    writeln!(out, "safe      {safety}: {}", view.safe.answer)?;
    let protection = if view.protected { "protected" } else { "UNPROTECTED: insecure = true" };
    writeln!(out, "path      {}, {protection}", view.path)?;
    if let Some(trouble) = &view.trouble {
        writeln!(out, "trouble   {trouble}")?;
    }
    match &view.peer {
        Some(peer) => {
            let name = peer.name.as_deref().unwrap_or("unknown to the config");
            let (role, priority, heard) = (&peer.role, peer.priority, peer.heard_ms);
            writeln!(
                out,
                "peer      {name} (number {}), {role}, priority {priority}, heard {heard} ms ago",
                peer.number
            )?;
            let equal = peer.equal_ms.map_or("not yet in this session".to_owned(), |ms| format!("{} ago", time(ms)));
            writeln!(out, "state     {}, last found equal: {equal}", state(view))?;
            writeln!(out, "conns     {} here, {} there, {} not taken there", view.conns, peer.conns, peer.refused)?;
            if peer.config_differs {
                writeln!(out, "config    differs: the peer has other services or backends")?;
            }
        }
        None => {
            writeln!(out, "peer      nobody answers")?;
            writeln!(out, "state     {}", view.state)?;
            writeln!(out, "conns     {} here", view.conns)?;
        }
    }
    writeln!(
        out,
        "lag       {}: {} changes wait, {} frames not acknowledged, {} ends to tell",
        lag(view),
        view.queued,
        view.under_way,
        view.ends
    )?;
    let c = &view.counters;
    let sent = text::memory(c.sent_bytes);
    writeln!(
        out,
        "sent      {} frames, {sent}: {} changes, {} in bulk, {} ends",
        c.sent_frames, c.deltas, c.bulk, c.gone
    )?;
    writeln!(
        out,
        "received  {} frames, {}: {} conns taken over, {} removed",
        c.received_frames,
        text::memory(c.received_bytes),
        c.created,
        c.removed
    )?;
    writeln!(
        out,
        "losses    {} frames missed here, {} there; {} buckets repaired, {} conns asked for",
        c.missing, c.resent, c.repaired, c.pulled
    )?;
    let list = |counts: &std::collections::BTreeMap<String, u64>| {
        counts.iter().map(|(cause, count)| format!("{cause} {count}")).collect::<Vec<_>>().join(", ")
    };
    if !view.refused.is_empty() {
        writeln!(out, "refused   frames: {}", list(&view.refused))?;
    }
    if !view.rejected.is_empty() {
        writeln!(out, "rejected  records: {}", list(&view.rejected))?;
    }
    writeln!(out, "memory    {}", text::memory(view.memory_bytes))
}

/// Conns that differ.
pub(super) fn diff(out: &mut impl Write, conns: &[DiffView], limit: u64) -> io::Result<()> {
    if conns.is_empty() {
        return writeln!(out, "no conn of this director differs; `lbctl diff` on the peer tells about its own");
    }
    let mut rows =
        vec![["HERE", "AT THE PEER", "STATE", "CLIENT", "VIRTUAL", "DESTINATION", "IDLE"].map(str::to_owned)];
    rows.extend(conns.iter().map(|conn| {
        [
            if conn.ended { "ended" } else { "open" }.to_owned(),
            conn.why.clone(),
            conn.state.to_string(),
            conn.client.to_string(),
            conn.vip.to_string(),
            conn.destination.to_string(),
            text::duration(conn.idle_seconds),
        ]
    }));
    columns(out, [Left, Left, Left, Left, Left, Left, Right], &rows)?;
    if conns.len() as u64 >= limit {
        writeln!(out, "more may follow: --limit N shows more than {limit}")?;
    }
    Ok(())
}

impl SyncView {
    /// One word: may directors be taken down?
    fn safety_word(&self) -> &'static str {
        match (self.safe.this, self.safe.peer) {
            (true, true) => "yes",
            (true, false) => "only this director",
            (false, true) => "only the peer",
            (false, false) => "no",
        }
    }
}

fn state(view: &SyncView) -> String {
    match view.bulk {
        Some([done, total]) => format!("{} ({done} of {total})", view.state),
        None => view.state.clone(),
    }
}

fn lag(view: &SyncView) -> String {
    format!("{}.{} ms", view.lag_us / 1000, view.lag_us / 100 % 10)
}

fn time(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { text::duration(ms / 1000) }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;

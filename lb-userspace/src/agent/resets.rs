//! Tells both ends of conns that they are over: where each end stands is in the packet path's tables, the RSTs are sent
//! by [`crate::reset`].

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use lb_common::{
    retire::{self, Request},
    tcp::State as TcpState,
};
use tracing::{debug, info, warn};

use crate::{
    datapath::{Datapath, Ends, Numbers, Scan},
    health::pool::ResetCause,
    reset::{End, Resetter},
};

/// How often the busy conns of a living backend are told.
const ROUNDS: u32 = 5;
/// How long an end that does not believe a RST may take to say so.
const ANSWERS: Duration = Duration::from_millis(50);

/// Conns of one dead backend that are remembered until it is back.
const OWED: usize = 1 << 20;

/// Tells the ends of the conns of one packet path.
#[derive(Debug)]
pub(super) struct Resets {
    datapath: Arc<Datapath>,
    /// `None`: the kernel refuses the means.
    resetter: Option<Resetter>,
    /// The conns of dead backends, by their ids. A host that was cut off has not heard what was told to it; when it is
    /// back, it holds sessions that nobody else knows any more.
    owed: Mutex<BTreeMap<u16, Vec<(Request, End)>>>,
}

impl Resets {
    pub(super) fn open(datapath: Arc<Datapath>) -> Self {
        let refused = |error: &io::Error| warn!(%error, "ends of idle conns will not be reset");
        Self { datapath, resetter: Resetter::open().inspect_err(refused).ok(), owed: Mutex::default() }
    }

    fn owed(&self) -> MutexGuard<'_, BTreeMap<u16, Vec<(Request, End)>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets both ends of those conns that expired while they were established: in every other state, at least one end
    /// has closed or been told already. Blocks, see [`Resetter::reset`].
    pub(super) fn expired(&self, ended: &[Ends]) {
        let ends: Vec<End> = ended.iter().filter(|conn| conn.state == TcpState::Established).flat_map(ends).collect();
        let Some(resetter) = self.resetter.as_ref().filter(|_| !ends.is_empty()) else { return };
        let sent = resetter.reset(&ends);
        debug!(ends = ends.len(), segments = sent.segments, unknown = sent.unknown, "reset the ends of idle conns");
        if let Some(error) = sent.error {
            warn!(refused = sent.refused, %error, "RSTs for the ends of idle conns were refused");
        }
    }

    /// Resets both ends of all conns of a backend. Blocks, for some 100 ms per 10,000 conns; those of a backend that lives
    /// are removed, too, and that takes some rounds for those that are busy.
    ///
    /// The entries of a dead backend's conns stay for a little while: the packet path answers what still comes.
    pub(super) fn backend(&self, id: u16, cause: ResetCause) {
        if cause == ResetCause::Returned {
            self.returned(id);
            return;
        }
        let rounds = if cause == ResetCause::Down { 1 } else { ROUNDS };
        let mut told = 0;
        for round in 0..rounds {
            match self.round(id, cause != ResetCause::Down) {
                Ok(0) => break,
                Ok(ends) if round == 0 => told = ends,
                Ok(_) => {}
                Err(error) => {
                    warn!(id, %error, "cannot reset the conns of a backend");
                    return;
                }
            }
        }
        info!(id, ends = told, %cause, "reset its conns");
    }

    /// Tells all ends once; answers how many there are. With `remove`, quiet conns go.
    fn round(&self, id: u16, remove: bool) -> anyhow::Result<usize> {
        let tables = self.datapath.tables();
        let (mut scan, mut found, mut told) = (Scan::new(), Vec::new(), 0);
        while let Some(slice) = tables.next_conns_of(id, &mut scan)? {
            let live: Vec<Ends> =
                slice.into_iter().filter(|conn| !matches!(conn.state, TcpState::TimeWait | TcpState::Close)).collect();
            for conn in &live {
                let (own, other) = (tables.conns.get(&conn.forward)?, tables.conns.get(&conn.reverse)?);
                if let (Some(own), Some(other)) = (own, other) {
                    let (forward_seen, reverse_seen) = (own.last_seen, other.last_seen);
                    found.push((Request { key: conn.forward, forward_seen, reverse_seen }, ends(conn)[1]));
                }
            }
            let ends: Vec<End> = live.iter().flat_map(ends).collect();
            told += ends.len();
            if let Some(resetter) = &self.resetter
                && let Some(error) = resetter.reset(&ends).error
            {
                debug!(id, %error, "some RSTs were refused");
            }
        }
        if !remove {
            let mut owed = self.owed();
            let owed = owed.entry(id).or_default();
            let room = OWED.saturating_sub(owed.len());
            owed.extend(found.into_iter().take(room));
        } else if !found.is_empty() {
            // Whoever did not believe the RST says something now; its conn stays, and the next round knows better.
            thread::sleep(ANSWERS);
            self.retire(found.iter().map(|(request, _)| *request))?;
        }
        Ok(told)
    }

    /// Takes those conns out of the tables that are as they were.
    fn retire(&self, requests: impl Iterator<Item = Request>) -> anyhow::Result<()> {
        let requests: Vec<Request> = requests.collect();
        for batch in requests.chunks(retire::BATCH) {
            self.datapath.retire(batch)?;
        }
        Ok(())
    }

    /// The backend lives again: what was said of its old conns shall be true there, too, and nothing of them shall count.
    fn returned(&self, id: u16) {
        let owed = self.owed().remove(&id).unwrap_or_default();
        if owed.is_empty() {
            return;
        }
        if let Err(error) = self.retire(owed.iter().map(|(request, _)| *request)) {
            warn!(id, %error, "old conns of a backend that is back stay until they expire");
        }
        let ends: Vec<End> = owed.iter().map(|(_, end)| *end).collect();
        let Some(resetter) = &self.resetter else { return };
        let sent = resetter.reset(&ends);
        info!(id, ends = ends.len(), refused = sent.refused, "it is back: reset its old ends again");
    }
}

/// Each end hears from the other one: the client from the VIP, the backend from the client.
fn ends(conn: &Ends) -> [End; 2] {
    let end = |flow, own: Numbers, other: Numbers| End { flow, acked: own.ack, sent: other.seq };
    [end(conn.forward.swapped(), conn.client, conn.backend), end(conn.reverse.swapped(), conn.backend, conn.client)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::{addr::Ipv4, conn::FlowKey};

    #[test]
    fn each_end_hears_from_the_other_one_as_it_knows_it() {
        let (client, vip) = (Ipv4::new([10, 80, 1, 1]), Ipv4::new([10, 80, 1, 243]));
        let backend = Ipv4::new([192, 168, 80, 167]);
        let conn = Ends {
            forward: FlowKey::tcp(client, 40000, vip, 3306),
            reverse: FlowKey::tcp(backend, 3307, client, 50000),
            state: TcpState::Established,
            client: Numbers { seq: 11, ack: 21 },
            backend: Numbers { seq: 22, ack: 12 },
        };
        let [to_client, to_backend] = ends(&conn);
        assert_eq!(to_client, End { flow: FlowKey::tcp(vip, 3306, client, 40000), acked: 21, sent: 22 });
        assert_eq!(to_backend, End { flow: FlowKey::tcp(client, 50000, backend, 3307), acked: 12, sent: 11 });
    }
}

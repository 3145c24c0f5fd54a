//! Tells both ends of conns that they are over: where each end stands is in the packet path's tables, the RSTs are sent
//! by [`crate::reset`].

use lb_common::tcp::State as TcpState;
use tracing::{debug, warn};

use super::state::State;
use crate::{
    datapath::{Ends, Numbers},
    ha::Role,
    reset::{End, Resetter},
};

/// The means to tell; none when the kernel refuses them.
#[derive(Debug)]
pub(super) struct Resets(Option<Resetter>);

impl Resets {
    pub(super) fn open() -> Self {
        Self(Resetter::open().inspect_err(|error| warn!(%error, "ends of idle conns will not be reset")).ok())
    }
}

impl State {
    /// Resets both ends of those conns that expired while they were established: in every other state, at least one end
    /// has closed or been told already. Blocks, see [`Resetter::reset`].
    ///
    /// The conns of a Backup are the Active's business.
    pub(super) fn reset_expired(&self, ended: &[Ends]) {
        let idle: Vec<&Ends> = ended.iter().filter(|conn| conn.state == TcpState::Established).collect();
        if idle.is_empty() || !self.is_active() {
            return;
        }
        let Resets(Some(resetter)) = self.resets() else { return };
        let ends: Vec<End> = idle.into_iter().flat_map(ends).collect();
        let sent = resetter.reset(&ends);
        debug!(ends = ends.len(), segments = sent.segments, unknown = sent.unknown, "reset the ends of idle conns");
        if let Some(error) = sent.error {
            warn!(refused = sent.refused, %error, "RSTs for the ends of idle conns were refused");
        }
    }

    fn is_active(&self) -> bool {
        self.pair().is_none_or(|pair| pair.status().is_some_and(|status| status.election.role == Role::Active))
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

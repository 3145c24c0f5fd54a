//! Which silent conns may go: the packets of some are seen by the peer only, which then says when they are over.

use super::{ConnSync, convert};
use crate::{
    datapath::{Ends, Silent},
    sync::{Input, Tenths},
};

impl ConnSync {
    /// Tells of each conn that was silent here for its whole time whether it stays all the same.
    pub(in crate::agent) fn keeps(&self, conns: &[Silent]) -> Vec<bool> {
        let mut core = self.running.core();
        let mut keeps = |conn: &Silent| !core.may_expire(&convert::key(&conn.key), Tenths::from_duration(conn.idle));
        conns.iter().map(&mut keeps).collect()
    }

    /// These conns were removed, because they were over.
    pub(in crate::agent) fn expired(&self, ended: &[Ends]) {
        if !ended.is_empty() {
            let expired = |conn: &Ends| Input::Expired { key: convert::key(&conn.forward), state: conn.state };
            self.running.tell_all(ended.iter().map(expired));
        }
    }
}

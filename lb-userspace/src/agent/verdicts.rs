//! The verdicts of both directors about the backends: the own ones travel as a notice of the sync, the peer's go to the
//! pools. What a difference means is the pools' business; see [`exchange`] for the policy.

use tokio::sync::watch;
use tracing::warn;

use super::{pair::Pair, state::State};
use crate::{
    health::{
        exchange::{self, Verdict},
        pool::ResetCause,
    },
    sync::Notice,
};

/// The exchange with the peer; idle without a sync.
#[derive(Debug)]
pub(super) struct Verdicts {
    peer: Option<watch::Receiver<Option<Notice>>>,
    said: Option<Notice>,
}

impl Verdicts {
    pub(super) fn new(state: &State) -> Self {
        Self { peer: state.pair().and_then(Pair::sync).map(super::sync::ConnSync::notices), said: None }
    }

    /// Waits until the peer sees something else, or is gone: then it is `None`. Can be dropped at any await.
    pub(super) async fn heard(&mut self) -> Option<Vec<Verdict>> {
        if let Some(peer) = &mut self.peer
            && peer.changed().await.is_ok()
        {
            let notice = peer.borrow_and_update().clone()?;
            let verdicts = exchange::decode(notice.bytes());
            if verdicts.is_none() {
                warn!("the other director says something about the backends that this version does not know");
            }
            return verdicts;
        }
        // There is no peer, and there will be none.
        self.peer = None;
        std::future::pending().await
    }

    /// Says what the own checks think, if that is news. Blocks for a moment.
    pub(super) fn say(&mut self, state: &State) {
        let Some(sync) = state.pair().and_then(Pair::sync) else { return };
        let mut verdicts = state.verdicts();
        // Nobody says anything about the rest: that is no difference.
        verdicts.truncate(Notice::LONGEST / exchange::RECORD);
        let notice = Notice::new(&exchange::encode(&verdicts));
        if notice.is_some() && notice != self.said {
            self.said.clone_from(&notice);
            notice.into_iter().for_each(|notice| sync.say(notice));
        }
    }
}

impl State {
    /// What the own checks think of every backend that is checked.
    fn verdicts(&self) -> Vec<Verdict> {
        self.with_pools(|pools| {
            let said = self.config().services.iter().zip(pools.iter());
            said.flat_map(|(service, pool)| exchange::say(service.listen, pool)).collect()
        })
    }

    /// Tells the pools what the peer sees. The backends whose conns are to be reset come back.
    pub(super) fn hear(&self, verdicts: Option<&[Verdict]>) -> Vec<(u16, ResetCause)> {
        let now = super::health::now();
        self.with_pools(|pools| {
            for (service, pool) in self.config().services.iter().zip(pools.iter_mut()) {
                for input in exchange::hear(service.listen, pool, verdicts) {
                    pool.handle(input, now);
                }
            }
        });
        self.tell_pools(|_| None)
    }
}

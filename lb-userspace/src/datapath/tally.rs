//! What a walk over the conn tables found, per backend and in all.

use lb_common::tcp::State;

/// What one backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Established conns.
    pub active: u32,
    /// Conns in every other state, half-open ones included.
    pub inactive: u32,
    /// Entries of either table; 0: no conn refers to the backend.
    pub entries: u32,
}

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Per backend id.
    pub backends: Vec<Tally>,
    /// Conns found in `conns`, those that were over included.
    pub conns: u64,
    /// Conns found in `half_open`, likewise.
    pub half_open: u64,
    /// Conns that were over and are removed, per state.
    pub expired: [u64; State::ALL.len()],
    /// Entries without their other entry that were removed.
    pub alone: u64,
    /// Entries that did not decode; they stay.
    pub invalid: u64,
}

impl Summary {
    /// Entries per backend id, as [`super::Datapath::reclaim`] takes them.
    #[must_use]
    pub fn entries(&self) -> Vec<u32> {
        self.backends.iter().map(|tally| tally.entries).collect()
    }

    /// Conns removed, in whatever state.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.expired.iter().sum()
    }

    pub(super) fn backend(&mut self, id: u16) -> &mut Tally {
        let at = usize::from(id);
        if self.backends.len() <= at {
            self.backends.resize(at + 1, Tally::default());
        }
        &mut self.backends[at]
    }
}

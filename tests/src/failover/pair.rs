//! Who is compared: a pair of directors with what runs on them, in a lab of its own.

use std::fmt;

use anyhow::Result;

use super::Timing;
use crate::checks::{self, Daemon};

/// Who directs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Our agent.
    Lb,
    /// keepalived, nftables and conntrackd.
    Keepalived,
}

impl Contender {
    fn daemon(self) -> Daemon {
        match self {
            Self::Lb => Daemon::Agent,
            Self::Keepalived => Daemon::Rival,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lb => "lb",
            Self::Keepalived => "keepalived",
        })
    }
}

/// A running pair; d1 is Active.
pub(super) struct Pair {
    pub(super) contender: Contender,
    pub(super) timing: Timing,
    pub(super) pair: checks::Pair,
}

impl Pair {
    /// Builds the lab and starts both directors, d1 first.
    pub(super) fn up(contender: Contender, timing: Timing) -> Result<Self> {
        let pair = checks::Pair::new([contender.daemon(); 2], timing.vrrp())?;
        let pair = if contender == Contender::Lb { pair.synced()? } else { pair };
        Ok(Self { contender, timing, pair: pair.begun()? })
    }
}

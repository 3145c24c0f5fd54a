//! One transport of the group: its machine, its link, and what was heard on it.

use std::{net::Ipv4Addr, time::Instant};

use crate::vrrp::{
    PRIORITY_RESIGN,
    machine::{self, Heard, Machine, Promotion, Rank, Want},
};

use super::{Config, Mode, Transport, witness::Sight};

/// One transport.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) machine: Machine,
    pub(super) link_up: bool,
    /// The last advert of an Active in the present role.
    pub(super) heard: Option<(Instant, Heard)>,
    /// The last router that was heard.
    pub(super) peer: Option<Ipv4Addr>,
    /// The router that was Active has given up here, and nobody has spoken since.
    pub(super) resigned: bool,
    /// The peer has given up elsewhere; one advert that was on its way may still arrive.
    pub(super) stale_until: Option<Instant>,
}

impl Leg {
    pub(super) fn new(config: &Config, transport: &Transport) -> Self {
        let machine = Machine::new(machine::Config {
            version: transport.version,
            priority: config.priority,
            address: transport.address,
            interval: transport.interval,
            preempt: config.preempt,
            promotion: Promotion::Held,
        });
        Self { machine, link_up: true, heard: None, peer: None, resigned: false, stale_until: None }
    }

    /// Remembers an advert.
    pub(super) fn note(&mut self, heard: Heard, now: Instant) {
        if heard.priority == PRIORITY_RESIGN {
            // A stranger cannot give up what the peer has.
            self.resigned = self.peer.is_none_or(|peer| peer == heard.source);
        } else {
            self.resigned = false;
            self.heard = Some((now, heard));
        }
        self.peer.get_or_insert(heard.source);
        if heard.priority != PRIORITY_RESIGN {
            self.peer = Some(heard.source);
        }
    }

    /// Who wins by address, if the other router is known.
    pub(super) fn rank_of_address(&self) -> Option<Rank> {
        Some(if self.peer? > self.machine.config().address { Rank::Theirs } else { Rank::Ours })
    }

    /// A new role begins.
    pub(super) fn forget(&mut self) {
        self.heard = None;
        self.resigned = false;
        self.stale_until = None;
    }

    pub(super) fn sight(&self, mode: Mode) -> Sight {
        match (self.machine.wants(), mode) {
            // RFC 9568 §6.4.2 waits for the skew time, for the sake of other Backups. A pair has none.
            (_, Mode::Pair) if self.resigned => Sight::Resigned,
            (Some(Want::Resigned), Mode::Strict) => Sight::Resigned,
            (Some(Want::Silence | Want::Resigned), _) => Sight::Silent,
            (Some(Want::Preempt | Want::Owner), _) => Sight::Outranked,
            (None, _) => Sight::Heard,
        }
    }

    /// When it counts as missing an advert, well before the machine gives up: half an interval after it was due.
    pub(super) fn missing_at(&self) -> Option<Instant> {
        let interval = self.machine.active_interval().duration();
        self.heard.map(|(at, _)| at + interval + interval / 2)
    }

    /// The stale advert may arrive now. It can do so once.
    pub(super) fn take_stale(&mut self, now: Instant) -> bool {
        self.stale_until.take().is_some_and(|until| now <= until)
    }
}

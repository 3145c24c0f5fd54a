//! A row of a packet table: a name, the state before, packets, and for each what becomes of it and what it leaves.
//!
//! Every row runs against both programs. All that a row does not name must not happen: other counters stay, other
//! entries stay, no event comes, a packet that passes or is dropped keeps every byte.

use lb_common::{
    conn::{Direction, FlowKey},
    counter::Counter,
    event::{Event, EventKind},
};

use super::{bench::Sizes, flow::Flow, network::Port, site::Site};
use crate::{
    hook::Hook,
    packet::{Packet, Tcp, Transport},
};

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    pub(super) name: String,
    pub(super) site: Site,
    pub(super) sizes: Option<Sizes>,
    pub(super) before: Vec<Flow>,
    pub(super) missing: Vec<FlowKey>,
    pub(super) only: Option<Hook>,
    pub(super) steps: Vec<Step>,
}

/// One packet of a row.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) port: Port,
    pub(super) frame: Vec<u8>,
    pub(super) fate: Fate,
    /// XDP leaves it to the TC program behind it.
    pub(super) deferred: bool,
    /// What XDP counts while it defers, beside that it does.
    pub(super) xdp_counts: Vec<Counter>,
    pub(super) counts: Vec<Counter>,
    pub(super) events: Vec<Event>,
    /// The conns afterwards; `None`: as before.
    pub(super) leaves: Option<Vec<Flow>>,
    /// Their numbers, bytes and times are not looked at.
    pub(super) roughly: bool,
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    Pass,
    Drop,
    Sent(Sent),
    /// Answered in place, by the way it came.
    Reflected(Vec<u8>),
}

/// A packet that was translated and sent on.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) frame: Vec<u8>,
    pub(super) egress: Port,
    /// What it adds to a backend's traffic, if it is a packet of a conn.
    pub(super) traffic: Option<Traffic>,
}

/// What a packet adds to the traffic of a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) backend: u16,
    pub(super) direction: Direction,
    /// Of the IP packet.
    pub(super) bytes: u64,
}

/// The start of a row; `name` is a sentence.
#[must_use]
pub fn case(name: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        site: Site::mysql(),
        sizes: None,
        before: Vec::new(),
        missing: Vec::new(),
        only: None,
        steps: Vec::new(),
    }
}

impl Case {
    /// Another configuration than the classic one.
    #[must_use]
    pub fn at(mut self, site: &Site) -> Self {
        self.site = site.clone();
        self
    }

    /// Other capacities than the usual ones.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// Runs at one hook only, because a test run cannot show it at the other.
    #[must_use]
    pub fn only_at(mut self, hook: Hook) -> Self {
        self.only = Some(hook);
        self
    }

    /// The conns in the tables at the start.
    #[must_use]
    pub fn given(mut self, flows: &[&Flow]) -> Self {
        self.before = flows.iter().map(|&flow| flow.clone()).collect();
        self
    }

    /// One entry of the conns at the start is missing: evicted, or removed by a hand.
    #[must_use]
    pub fn without_entry(mut self, key: FlowKey) -> Self {
        self.missing.push(key);
        self
    }

    /// A frame comes in by `port`. What follows is about it, until the next one; without more it passes untouched.
    #[must_use]
    pub fn frame(mut self, port: Port, frame: Vec<u8>) -> Self {
        self.steps.push(Step {
            port,
            frame,
            fate: Fate::Pass,
            deferred: false,
            xdp_counts: Vec::new(),
            counts: Vec::new(),
            events: Vec::new(),
            leaves: None,
            roughly: false,
        });
        self
    }

    /// A packet comes in from the clients.
    #[must_use]
    pub fn from_client(self, packet: &Packet<Tcp>) -> Self {
        self.frame(Port::Ext, packet.build())
    }

    /// A packet comes in from the servers.
    #[must_use]
    pub fn from_backend(self, packet: &Packet<Tcp>) -> Self {
        self.frame(Port::Int, packet.build())
    }

    /// A packet of `flow` comes in by the port it should, is translated and sent on.
    #[must_use]
    #[track_caller]
    pub fn translates(self, flow: &Flow, packet: &Packet<Tcp>) -> Self {
        let out = flow.translated(packet);
        self.sends(flow, packet, &out)
    }

    /// As [`Case::translates`], but the packet leaves as `out`.
    #[must_use]
    #[track_caller]
    pub fn sends(self, flow: &Flow, packet: &Packet<Tcp>, out: &Packet<Tcp>) -> Self {
        let direction = flow.direction_of(packet);
        let bytes = packet.claimed_len().into();
        let sent = Sent {
            frame: out.build(),
            egress: flow.egress(direction),
            traffic: Some(Traffic { backend: flow.backend_id, direction, bytes }),
        };
        // It comes in where packets of the other direction leave.
        let port = match direction {
            Direction::Forward => flow.egress(Direction::Reverse),
            Direction::Reverse => flow.egress(Direction::Forward),
        };
        let mut row = self.frame(port, packet.build());
        row.step().fate = Fate::Sent(sent);
        row
    }

    /// The frame leaves as `out` by the other port, and counts as nobody's traffic.
    #[must_use]
    pub fn relayed(mut self, out: Vec<u8>) -> Self {
        let egress = match self.step().port {
            Port::Ext => Port::Int,
            Port::Int => Port::Ext,
        };
        self.step().fate = Fate::Sent(Sent { frame: out, egress, traffic: None });
        self
    }

    /// The packet is dropped, and `counter` says why.
    #[must_use]
    pub fn dropped(mut self, counter: Counter) -> Self {
        self.step().fate = Fate::Drop;
        self.counts(&[counter])
    }

    /// The packet turns into `answer` and leaves by the way it came; `counter` says why.
    #[must_use]
    pub fn answered<T: Transport>(mut self, answer: &Packet<T>, counter: Counter) -> Self {
        self.step().fate = Fate::Reflected(answer.build());
        self.counts(&[counter])
    }

    /// XDP leaves the packet to the TC program behind it; everything else that the row says is that program's work.
    #[must_use]
    pub fn deferred_by_xdp(mut self) -> Self {
        self.step().deferred = true;
        self
    }

    /// What XDP counts before it leaves the packet to TC.
    #[must_use]
    pub fn xdp_counts(mut self, counters: &[Counter]) -> Self {
        self.step().xdp_counts.extend(counters);
        self
    }

    /// These counters rise by one each, named twice by two; all others stay.
    #[must_use]
    pub fn counts(mut self, counters: &[Counter]) -> Self {
        self.step().counts.extend(counters);
        self
    }

    /// An event about `flow` as it is then.
    #[must_use]
    pub fn tells(mut self, kind: EventKind, flow: &Flow) -> Self {
        let event = flow.event(kind);
        self.step().events.push(event);
        self
    }

    /// An event about a packet of the client of `flow` that was refused or missed.
    #[must_use]
    pub fn tells_refusal(mut self, kind: EventKind, flow: &Flow, reason: Counter) -> Self {
        let about = flow.event(kind);
        let nobody = std::net::Ipv4Addr::UNSPECIFIED.into();
        self.step().events.push(Event {
            backend_addr: nobody,
            backend_port: 0,
            client_port: 0,
            forward_ack: 0,
            reverse_ack: 0,
            forward_seq: 0,
            reverse_seq: 0,
            backend: 0,
            reason: reason as u8,
            forward_seen: 0,
            reverse_seen: 0,
            ..about
        });
        self
    }

    /// The conns in the tables afterwards, all of them.
    #[must_use]
    pub fn leaves(mut self, flows: &[&Flow]) -> Self {
        self.step().leaves = Some(flows.iter().map(|&flow| flow.clone()).collect());
        self
    }

    /// The conns in the tables afterwards: which, where and in what state, but not their numbers and times.
    #[must_use]
    pub fn leaves_roughly(mut self, flows: &[&Flow]) -> Self {
        self.step().roughly = true;
        self.leaves(flows)
    }

    fn step(&mut self) -> &mut Step {
        assert!(!self.steps.is_empty(), "{}: no packet yet", self.name);
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }
}

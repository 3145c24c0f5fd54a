//! The handshake, and what a session is.
//!
//! Both greet until both are sure. A greeting carries a challenge; whoever can put my challenge into a greeting of its own
//! has the key and lives now, so a recording opens nothing. Until then nothing is remembered but the last challenge
//! heard, and an answer is as long as the question. The peer's epoch tells whether it remembers what it was sent.

use std::time::Instant;

use crate::sync::{
    Config, Event, Psk, Random, Refused,
    crypto::{Party, SessionKeys, nth},
    replay::Replay,
    wire::{Greeting, HEADER, Header, Kind},
};

use super::{Replication, peer::Memory};

/// What this side brings to the next session.
#[derive(Debug)]
pub(super) struct Handshake {
    challenge: Random,
    /// Challenges so far.
    challenges: u64,
    /// Greetings so far: the nonce of the next.
    greetings: u64,
    /// The peer's challenge, as far as is known.
    echo: Random,
    /// Somebody with the key was heard, if only in a recording.
    pub(super) heard: Option<Instant>,
}

impl Handshake {
    pub(super) fn new(config: &Config) -> Self {
        Self { challenge: nth(&config.seed, b"challenge", 0), challenges: 0, greetings: 0, echo: [0; 16], heard: None }
    }

    /// The old challenge opens nothing any more.
    fn renew(&mut self, seed: &[u8; 32]) {
        self.challenges += 1;
        self.challenge = nth(seed, b"challenge", self.challenges);
        self.echo = [0; 16];
    }
}

/// A session: keys, and the numbers of the frames under them.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) keys: SessionKeys,
    pub(super) number: u64,
    pub(super) replay: Replay,
    /// A frame of the peer has come: it has the keys, too.
    pub(super) confirmed: bool,
    /// The peer remembers what it was sent before.
    resumed: bool,
    pub(super) heard: Instant,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Replication {
    /// Writes a greeting into the frame buffer.
    pub(super) fn write_greeting(&mut self) -> bool {
        let Some(psk) = self.config.keys.first() else { return false };
        self.handshake.greetings += 1;
        let header = Header {
            kind: Kind::Greeting,
            node: self.config.node,
            key: psk.id(),
            insecure: self.config.insecure,
            session: self.session.as_ref().map_or(0, |session| session.keys.id),
            number: self.handshake.greetings,
        };
        let greeting = Greeting {
            challenge: self.handshake.challenge,
            echo: self.handshake.echo,
            fingerprint: self.config.fingerprint,
            timeouts: self.config.timeouts.0.map(|timeout| timeout.0),
            ..Greeting::default()
        };
        let cipher = psk.greeting(self.config.node, &self.config.epoch);
        greeting.write(&header, &self.config.epoch, &cipher, &mut self.frame);
        true
    }

    /// A greeting arrives.
    pub(super) fn greeting(&mut self, header: &Header, frame: &mut [u8]) {
        debug_assert!(frame.len() >= HEADER);
        if self.stopped || !self.scan.ever {
            return;
        }
        let Some(epoch) = Greeting::epoch(frame) else {
            self.counters.refuse(Refused::Length);
            return;
        };
        // From here on it costs something.
        if !self.greetings.take(self.now) {
            self.counters.refuse(Refused::Limited);
            return;
        }
        let Some(psk) = self.config.keys.iter().find(|psk| psk.id() == header.key).cloned() else {
            self.counters.refuse(Refused::UnknownKey);
            return;
        };
        let greeting = match Greeting::open(header, &psk.greeting(header.node, &epoch), frame) {
            Ok(Some(greeting)) => greeting,
            Ok(None) => {
                self.counters.refuse(Refused::Forged);
                return;
            }
            Err(_) => {
                self.counters.refuse(Refused::Malformed);
                return;
            }
        };
        let confirmed = self.session.as_ref().is_some_and(|session| session.confirmed);
        if confirmed && self.memory.as_ref().is_some_and(|memory| memory.node != header.node) {
            self.counters.refuse(Refused::ThirdNode);
            return;
        }
        self.handshake.heard = Some(self.now);
        if self.session.as_ref().is_some_and(|session| session.keys.id == header.session) {
            // Its greetings and ours have crossed: the session is there.
            return;
        }
        let fresh = greeting.echo == self.handshake.challenge;
        if fresh && self.install(header.node, &epoch, &psk, &greeting) {
            self.greet_now();
        } else if !fresh {
            self.handshake.echo = greeting.challenge;
            self.greet_now();
        }
    }

    fn greet_now(&mut self) {
        if self.answers.take(self.now) {
            self.due.greet_now = true;
        }
    }

    /// Opens a session with a peer that has proved to live; `false`: it is open already.
    fn install(&mut self, node: u16, epoch: &Random, psk: &Psk, greeting: &Greeting) -> bool {
        let Some(own) = self.config.keys.first() else { return false };
        let keys = SessionKeys::derive(
            Party { psk: own, node: self.config.node, epoch: &self.config.epoch, challenge: &self.handshake.challenge },
            Party { psk, node, epoch, challenge: &greeting.challenge },
        );
        if self.session.as_ref().is_some_and(|session| session.keys.id == keys.id) {
            return false;
        }
        self.lose_session();
        self.handshake.echo = greeting.challenge;
        let resumed = self.memory.as_ref().is_some_and(|memory| memory.node == node && memory.epoch == *epoch);
        self.session =
            Some(Session { keys, number: 0, replay: Replay::default(), confirmed: false, resumed, heard: self.now });
        if !resumed {
            self.free_graves();
            self.index.forget_peer();
            self.queue_is_stale();
            let conns = u32::try_from(self.index.live()).unwrap_or(u32::MAX);
            self.memory = Some(Memory::new(node, *epoch, greeting, conns));
            self.lost = self.tick();
            self.tell_ends_again();
        }
        self.note_fingerprint(greeting.fingerprint);
        self.due.beat_now = true;
        true
    }

    /// The peer has the keys of the session: it is open.
    pub(super) fn confirm(&mut self) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        session.confirmed = true;
        let resumed = session.resumed;
        self.handshake.renew(&self.config.seed);
        self.due.greet = None;
        self.due.beat = Some(now);
        if let Some(memory) = &self.memory {
            let (node, epoch) = (memory.node, memory.epoch);

            self.event(Event::PeerUp { node, epoch, resumed });
        }
        self.due.flush_now = true;
        self.due.ack_now = true;
        self.outbox.begin();
    }

    /// There is no session any more.
    pub(super) fn lose_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.inbox.forget() {
            self.actions.push_back(super::Todo::Notice);
        }
        if session.confirmed {
            self.lost = self.tick();
            self.parted = self.lost;
        }
        if let Some(memory) = &mut self.memory {
            memory.compare.verdict = None;
            memory.compare.unequal = 0;
            memory.digests = None;
            memory.repair.clear();
        }
        let greet = Some(self.now);
        self.due = super::Due { greet, ..super::Due::default() };
        self.reports_are_stale();
        self.pulls.clear();
    }

    /// The peer was not heard for too long, or said goodbye.
    pub(super) fn peer_down(&mut self, leaving: bool) {
        let confirmed = self.session.as_ref().is_some_and(|session| session.confirmed);
        self.lose_session();
        self.handshake.heard = None;
        if confirmed {
            self.event(Event::PeerDown { leaving });
            self.drained(Err(super::Stalled::NoPeer));
        }
    }
}

//! What the core is told at its start.

use std::{fmt, time::Duration};

use lb_common::tcp::State;

use super::{
    crypto::{Psk, Random},
    time::Tenths,
    wire::{GREETING, STATES},
};

/// The parameters of the core.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of this director; the peer has another one.
    pub node: u16,
    /// Random, new with every start: tells a peer with its memory from one that has lost it.
    pub epoch: Random,
    /// Random and secret.
    pub seed: [u8; 32],
    /// The pre-shared keys: the first one is used to greet, all are accepted.
    pub keys: Vec<Psk>,
    /// No key is configured: everybody knows the one in `keys`.
    pub insecure: bool,
    /// What services and backends this director knows, as one number.
    pub fingerprint: u64,
    /// After which silence a conn in each state is over.
    pub timeouts: Timeouts,
    /// Conns that the packet path's table is planned for.
    pub capacity: usize,
    /// Ends of conns that are kept for a peer that cannot be told.
    pub ends: usize,
    /// The longest datagram in bytes, without the headers of UDP and IP.
    pub datagram: usize,
    /// The pause between two heartbeats.
    pub heartbeat: Duration,
    /// How often the packet path's table is looked through for what was used.
    pub refresh: Duration,
}

/// After which silence a conn is over, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts(pub(super) [Tenths; STATES]);

impl Timeouts {
    /// Asks for every state.
    #[must_use]
    pub fn new(of: impl Fn(State) -> Duration) -> Self {
        let mut timeouts = [Tenths(0); STATES];
        for state in State::ALL {
            timeouts[*state as usize] = Tenths::from_duration(of(*state));
        }
        Self(timeouts)
    }

    pub(super) const fn of(&self, state: State) -> Tenths {
        self.0[state as usize]
    }
}

/// Why a config makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no key.
    NoKey,
    /// Two keys have the same name on the wire.
    KeysCollide,
    /// Datagrams are too short or too long.
    Datagram,
    /// The heartbeat is shorter than 1 ms or longer than 10 s.
    Heartbeat,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "there is no key",
            Self::KeysCollide => "two keys happen to have the same name on the wire: generate another one",
            Self::Datagram => "a datagram must have between 512 and 9,000 bytes",
            Self::Heartbeat => "the heartbeat must be between 1 ms and 10 s",
        })
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.keys.is_empty() {
            return Err(ConfigError::NoKey);
        }
        let ids = || self.keys.iter().map(Psk::id);
        if ids().enumerate().any(|(at, id)| ids().skip(at + 1).any(|other| other == id)) {
            return Err(ConfigError::KeysCollide);
        }
        if !(2 * GREETING.max(256)..=9000).contains(&self.datagram) {
            return Err(ConfigError::Datagram);
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&self.heartbeat) {
            return Err(ConfigError::Heartbeat);
        }
        Ok(())
    }
}

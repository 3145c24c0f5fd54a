//! From the timer thread to the sync thread, without a wait: what this director says it is, and that it still says so.
//!
//! The sync thread sends heartbeats on a clock of its own. If the timer thread does not speak any more, nobody here sends
//! adverts or can take over, and heartbeats that go on saying "Active" would keep the peer from doing so: from then on
//! they say "Backup", and the peer judges by the adverts.

use std::{
    net::Ipv4Addr,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    failover::Witness,
    ha::{self, PeerRole},
    sync::{Beat, Bell, Input, Key, Role, Table, Tell, Tenths, Write},
};

const ACTIVE: u64 = 1;

/// The last word of the timer thread.
#[derive(Debug)]
pub(super) struct Voice {
    origin: Instant,
    /// Role, priority and address; 0: nothing was said yet.
    word: AtomicU64,
    /// When it was said, in microseconds since `origin`.
    at: AtomicU64,
    /// Wakes the sync thread for another word.
    bell: Bell,
}

#[expect(clippy::disallowed_methods, reason = "how old a word is; both threads of it read this clock")]
fn now() -> Instant {
    Instant::now()
}

impl Voice {
    /// `bell` is the sync thread's.
    pub(super) fn new(bell: Bell) -> Arc<Self> {
        Arc::new(Self { origin: now(), word: AtomicU64::new(0), at: AtomicU64::new(0), bell })
    }

    pub(super) const fn bell(&self) -> &Bell {
        &self.bell
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn say(&self, beat: &ha::Beat) {
        let role = match beat.role {
            PeerRole::Active => ACTIVE,
            PeerRole::Backup => 2,
            PeerRole::Fault => 3,
            PeerRole::Leaving => 4,
        };
        let word = role << 40 | u64::from(beat.priority) << 32 | u64::from(beat.address.to_bits());
        self.at.store(self.micros(), Ordering::Relaxed);
        if self.word.swap(word, Ordering::Release) != word {
            self.bell.ring();
        }
    }

    /// What heartbeats are to say; `patience`: how old an Active's word may be.
    fn heard(&self, patience: Duration) -> Option<Beat> {
        let word = self.word.load(Ordering::Acquire);
        let age = Duration::from_micros(self.micros().saturating_sub(self.at.load(Ordering::Relaxed)));
        let role = match word >> 40 {
            ACTIVE if age > patience => Role::Backup,
            ACTIVE => Role::Active,
            2 => Role::Backup,
            3 => Role::Fault,
            4 => Role::Leaving,
            _ => return None,
        };
        Some(Beat { role, priority: (word >> 32) as u8, address: Ipv4Addr::from_bits(word as u32) })
    }
}

/// The end of it at the timer thread.
pub(super) struct Mouth(pub(super) Arc<Voice>);

impl Witness for Mouth {
    fn send(&mut self, beat: &ha::Beat) {
        self.0.say(beat);
    }
}

/// A table that also passes on what was said: the sync thread asks it for changes in every turn.
pub(super) struct Ear<T> {
    pub(super) table: T,
    pub(super) voice: Arc<Voice>,
    pub(super) patience: Duration,
    pub(super) told: Option<Beat>,
}

impl<T: Table> Table for Ear<T> {
    fn ring(&self) -> BorrowedFd<'_> {
        self.table.ring()
    }

    fn changes(&mut self, tell: &mut Tell<'_>) {
        let heard = self.voice.heard(self.patience);
        if let Some(beat) = heard.filter(|_| heard != self.told) {
            self.told = heard;
            tell(Input::Beat(beat));
        }
        self.table.changes(tell);
    }

    fn write(&mut self, writes: &[Write], tell: &mut Tell<'_>) {
        self.table.write(writes, tell);
    }

    fn begin_scan(&mut self) {
        self.table.begin_scan();
    }

    fn slice(&mut self, tell: &mut Tell<'_>) -> bool {
        self.table.slice(tell)
    }

    fn look(&mut self, key: &Key, tell: &mut Tell<'_>) {
        self.table.look(key, tell);
    }

    fn retire(&mut self, key: &Key, idle: Tenths, tell: &mut Tell<'_>) {
        self.table.retire(key, idle, tell);
    }
}

/// A heartbeat of the peer, as the election takes it.
pub(super) const fn beat(beat: Beat) -> ha::Beat {
    let role = match beat.role {
        Role::Active => PeerRole::Active,
        Role::Backup => PeerRole::Backup,
        Role::Fault => PeerRole::Fault,
        Role::Leaving => PeerRole::Leaving,
    };
    ha::Beat { role, priority: beat.priority, address: beat.address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_as_it_was_said() {
        let voice = Voice::new(Bell::new().unwrap());
        let patience = Duration::from_secs(3600);
        assert_eq!(voice.heard(patience), None);
        for role in [PeerRole::Active, PeerRole::Backup, PeerRole::Fault, PeerRole::Leaving] {
            let said = ha::Beat { role, priority: 254, address: Ipv4Addr::new(255, 1, 2, 3) };
            Mouth(voice.clone()).send(&said);
            assert_eq!(voice.heard(patience).map(beat), Some(said));
        }
    }

    #[test]
    fn an_active_that_has_fallen_silent_is_not_called_active_any_more() {
        let voice = Voice::new(Bell::new().unwrap());
        let role = |patience| voice.heard(patience).map(|beat| beat.role);
        let say = |role| voice.say(&ha::Beat { role, priority: 1, address: Ipv4Addr::UNSPECIFIED });
        say(PeerRole::Active);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(role(Duration::from_millis(1)), Some(Role::Backup));
        assert_eq!(role(Duration::from_secs(3600)), Some(Role::Active));
        say(PeerRole::Fault);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(role(Duration::from_millis(1)), Some(Role::Fault), "a fault does not go away by silence");
    }
}

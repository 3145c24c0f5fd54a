//! When a conn is over: the state that both entries make together, and how long nothing was seen of it.
//!
//! Pure. States, and the timeout for each, are those of IPVS (`net/netfilter/ipvs/ip_vs_proto_tcp.c`), except that
//! established conns live as long as MySQL's own `wait_timeout`. Walking the tables is `sweep`.

use std::time::Duration;

use lb_common::{conn::Conn, tcp::State};

use super::clock::Ticks;

/// Idle times after which a conn is over, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The handshake is not complete.
    pub syn_recv: Duration,
    /// The handshake is complete. Longer than MySQL's `wait_timeout` (28,800 s), or idle sessions die in the middle.
    pub established: Duration,
    /// The backend has closed its side.
    pub fin_wait: Duration,
    /// The client has closed its side.
    pub close_wait: Duration,
    /// Both sides have closed.
    pub time_wait: Duration,
    /// One side has reset the conn.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn_recv: Duration::from_secs(60),
            established: Duration::from_secs(28_860),
            fin_wait: Duration::from_secs(120),
            close_wait: Duration::from_secs(60),
            time_wait: Duration::from_secs(120),
            close: Duration::from_secs(10),
        }
    }
}

impl Timeouts {
    /// The idle time of a state.
    #[must_use]
    pub const fn of(&self, state: State) -> Duration {
        match state {
            State::SynRecv => self.syn_recv,
            State::Established => self.established,
            State::FinWait => self.fin_wait,
            State::CloseWait => self.close_wait,
            State::TimeWait => self.time_wait,
            State::Close => self.close,
        }
    }
}

/// What expiry needs of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Low word of the jiffies at its last packet.
    pub last_seen: u32,
    /// The TCP flags it has seen.
    pub seen: u8,
}

impl From<&Conn> for Half {
    fn from(conn: &Conn) -> Self {
        Self { last_seen: conn.last_seen, seen: conn.seen }
    }
}

/// The clock and the timeouts of one sweep, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    now: u32,
    ticks: Ticks,
    by_state: [u32; State::ALL.len()],
}

impl Deadlines {
    /// The deadlines at `now`, the low word of the kernel's jiffies.
    #[must_use]
    pub fn new(now: u32, ticks: Ticks, timeouts: &Timeouts) -> Self {
        let mut by_state = [0; State::ALL.len()];
        for state in State::ALL {
            by_state[*state as usize] = ticks.from_duration(timeouts.of(*state));
        }
        Self { now, ticks, by_state }
    }

    /// A time before every entry's: as distances from it, times that wrapped compare rightly.
    #[must_use]
    pub const fn origin(&self) -> u32 {
        self.now.wrapping_add(1 << 31)
    }

    /// Ticks since the last packet of either direction.
    fn idle(&self, forward: Half, reverse: Half) -> u32 {
        let since = |half: Half| self.ticks.since(self.now, half.last_seen);
        since(forward).min(since(reverse))
    }

    /// The time since the later of two moments.
    #[must_use]
    pub fn silence(&self, last: [u32; 2]) -> Duration {
        let [a, b] = last.map(|last| self.ticks.since(self.now, last));
        self.ticks.to_duration(a.min(b))
    }

    /// How long the conn may still be idle; zero: it is over.
    #[must_use]
    pub fn remaining(&self, forward: Half, reverse: Half) -> Duration {
        let limit = self.by_state[State::of(forward.seen, reverse.seen) as usize];
        self.ticks.to_duration(limit.saturating_sub(self.idle(forward, reverse)))
    }

    /// The state in which the conn is over; `None`: it lives. Those of a dead backend, whose ends have been reset, get
    /// no more than the time of a reset conn.
    #[must_use]
    pub fn expired(&self, forward: Half, reverse: Half, dead: bool) -> Option<State> {
        let state = State::of(forward.seen, reverse.seen);
        let close = if dead { self.by_state[State::Close as usize] } else { u32::MAX };
        (self.idle(forward, reverse) > self.by_state[state as usize].min(close)).then_some(state)
    }

    /// Tells whether an entry without its other entry is over: it can carry no conversation, and gets the time of a
    /// reset conn, which covers the moment between the writes of two entries.
    #[must_use]
    pub fn expired_alone(&self, half: Half) -> bool {
        self.ticks.since(self.now, half.last_seen) > self.by_state[State::Close as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::tcp::flag::{ACK, FIN, RST, SYN};

    const HZ: u32 = 250;
    const NOW: u32 = 100;

    fn deadlines() -> Deadlines {
        Deadlines::new(NOW, Ticks { hz: HZ }, &Timeouts::default())
    }

    fn half(seen: u8, seconds_ago: u32) -> Half {
        Half { seen, last_seen: NOW.wrapping_sub(seconds_ago * HZ) }
    }

    #[test]
    fn every_state_has_its_own_patience() {
        for (forward, reverse, state, seconds) in [
            (SYN, SYN | ACK, State::SynRecv, 60),
            (SYN | ACK, SYN | ACK, State::Established, 28_860),
            (SYN | ACK, SYN | ACK | FIN, State::FinWait, 120),
            (SYN | ACK | FIN, SYN | ACK, State::CloseWait, 60),
            (SYN | ACK | FIN, SYN | ACK | FIN, State::TimeWait, 120),
            (SYN | ACK | RST, SYN | ACK, State::Close, 10),
        ] {
            let at = |seconds| deadlines().expired(half(forward, seconds), half(reverse, seconds), false);
            assert_eq!((at(seconds), at(seconds + 1)), (None, Some(state)));
            let left = deadlines().remaining(half(forward, seconds - 3), half(reverse, seconds));
            assert_eq!(left, Duration::from_secs(3));
        }
    }

    #[test]
    fn a_packet_in_either_direction_keeps_the_conn() {
        let (old, new) = (half(SYN | ACK, 30_000), half(SYN | ACK, 1));
        assert_eq!(deadlines().expired(old, new, false), None);
        assert_eq!(deadlines().expired(new, old, false), None);
        assert_eq!(deadlines().expired(old, old, false), Some(State::Established));
    }

    #[test]
    fn an_entry_newer_than_the_clock_is_not_ancient() {
        let newer = Half { seen: RST, last_seen: NOW + 3 };
        assert_eq!(deadlines().expired(newer, newer, false), None);
        assert!(!deadlines().expired_alone(newer));
        assert!(deadlines().expired_alone(half(SYN | ACK, 11)));
    }
}

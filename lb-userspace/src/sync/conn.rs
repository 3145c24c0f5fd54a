//! A conn as it travels between directors: everything the other one needs to go on with it, and nothing of this host.
//!
//! Backends are addresses, times are ages. Also the two questions about a pair of records: are they the same
//! incarnation, and what do both together know. The flags and their states are those of [`lb_common::tcp`].

use std::net::SocketAddrV4;

use lb_common::{
    seq,
    tcp::{State, flag},
};

use super::time::Tenths;

/// The flow key of a conn's forward entry. TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The client's address and port.
    pub client: SocketAddrV4,
    /// The VIP and port.
    pub vip: SocketAddrV4,
}

/// One direction of a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// The TCP flags seen from its sender.
    pub seen: u8,
    /// The last acknowledgement number of its sender; 0: unknown.
    pub ack: u32,
    /// The sequence number after the last byte of its sender; 0: unknown.
    pub seq: u32,
    /// How long nothing was seen of its sender.
    pub idle: Tenths,
}

/// A conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Its key.
    pub key: Key,
    /// The backend.
    pub backend: SocketAddrV4,
    /// The client's port as the backend sees it.
    pub client_port: u16,
    /// Client to backend.
    pub forward: Half,
    /// Backend to client.
    pub reverse: Half,
    /// How long ago it was created.
    pub age: Tenths,
}

impl Conn {
    /// Ages of one conn that were taken on two hosts differ by no more than this, and by no more than a thousandth.
    pub const SLACK: Tenths = Tenths(5);

    /// The state that both directions make together.
    #[must_use]
    pub const fn state(&self) -> State {
        State::of(self.forward.seen, self.reverse.seen)
    }

    /// How long nothing was seen of either side.
    #[must_use]
    pub fn idle(&self) -> Tenths {
        self.forward.idle.min(self.reverse.idle)
    }

    /// The flags are those of a conn whose handshake is complete.
    pub(super) const fn is_plausible(&self) -> bool {
        const KNOWN: u8 = flag::SYN | flag::ACK | flag::STATE;
        (self.forward.seen | self.reverse.seen) & !KNOWN == 0 && self.forward.seen & flag::ACK != 0
    }
}

/// Both ends are done with a conn in this state, or one was reset.
pub(super) const fn is_over(state: State) -> bool {
    matches!(state, State::TimeWait | State::Close)
}

/// The later of two numbers of one sender, of which either may be unknown.
pub(super) const fn later(a: u32, b: u32) -> u32 {
    if a == seq::UNKNOWN || (b != seq::UNKNOWN && seq::after(b, a)) { b } else { a }
}

/// Two ages of one conn, taken on two hosts, differ by no more than delay, rounding and the drift of their clocks.
pub(super) const fn same_age(a: Tenths, b: Tenths) -> bool {
    let older = if a.0 > b.0 { a.0 } else { b.0 };
    a.0.abs_diff(b.0) <= Conn::SLACK.0 + older / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_number_wins_also_across_the_wrap_and_unknown_never() {
        assert_eq!((later(5, 9), later(9, 5)), (9, 9));
        assert_eq!(later(u32::MAX - 3, 4), 4);
        assert_eq!((later(0, 7), later(7, 0), later(0, 0)), (7, 7, 0));
    }

    #[test]
    fn ages_may_differ_by_half_a_second_and_by_the_drift_of_a_crystal() {
        assert!(same_age(Tenths(100), Tenths(105)) && same_age(Tenths(105), Tenths(100)));
        assert!(!same_age(Tenths(100), Tenths(106)));
        let days = 30 * 864_000;
        assert!(same_age(Tenths(days), Tenths(days + days / 1000)));
        assert!(!same_age(Tenths(days), Tenths(days / 2)));
    }
}

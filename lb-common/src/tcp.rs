//! TCP as a NAT director sees it: the flags of each direction, and the state that both make together.
//!
//! States, names and timeouts are those of IPVS (`net/netfilter/ipvs/ip_vs_proto_tcp.c`). IPVS keeps one state per
//! connection and steps it with every packet; here each direction only remembers the flags that it has seen, so that
//! no field has two writers, and [`State::of`] derives the state. On every sequence of packets that a service can
//! see, the two agree; the tests hold `State::of` against the table of IPVS.

use crate::layout::byte_enum;

/// The flag bits of byte 13 of the TCP header (RFC 9293 §3.1), also used as the set of flags a direction has seen.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The flags that can change a conn's state.
    pub const STATE: u8 = FIN | SYN | RST;
}

byte_enum! {
    /// The state of a conn, with the names `ipvsadm -Lnc` prints.
    ///
    /// SYN_SENT, LAST_ACK, LISTEN and SYNACK of IPVS cannot be reached by a conn that a client opened to a service.
    pub enum State {
        /// The client's SYN was forwarded; the handshake is not complete.
        SynRecv = 0 => "SYN_RECV",
        /// The handshake is complete.
        Established = 1 => "ESTABLISHED",
        /// The backend has closed its side.
        FinWait = 2 => "FIN_WAIT",
        /// The client has closed its side.
        CloseWait = 3 => "CLOSE_WAIT",
        /// Both sides have closed.
        TimeWait = 4 => "TIME_WAIT",
        /// One side has reset the connection.
        Close = 5 => "CLOSE",
    }
}

impl State {
    /// The state that follows from the flags seen from the client (`forward`) and from the backend (`reverse`).
    #[inline(always)]
    #[must_use]
    pub const fn of(forward: u8, reverse: u8) -> Self {
        if (forward | reverse) & flag::RST != 0 {
            return Self::Close;
        }
        match (forward & flag::FIN != 0, reverse & flag::FIN != 0) {
            (true, true) => Self::TimeWait,
            (true, false) => Self::CloseWait,
            (false, true) => Self::FinWait,
            (false, false) if forward & flag::ACK != 0 => Self::Established,
            (false, false) => Self::SynRecv,
        }
    }

    /// Counts as active in `lbctl services`, as in `ipvsadm -Ln`; every other state counts as inactive.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established)
    }

    /// A SYN on the flow key of a conn in this state opens a new conn at once.
    ///
    /// In these states the client's side has no live connection any more, or is in the last steps of closing it.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_reused(self) -> bool {
        matches!(self, Self::FinWait | Self::TimeWait | Self::Close)
    }
}

/// The flags a direction has seen after one more packet of it, with plausible sequence numbers.
///
/// `own` and `peer` are the flags seen so far from the sender and from the other side, `forward` tells whether the
/// client sent the packet. IPVS lets two resets pass without a change of state: a client's RST during the handshake,
/// which a blind attacker can send, and a backend's RST in TIME_WAIT.
#[inline(always)]
#[must_use]
pub const fn note(own: u8, peer: u8, flags: u8, forward: bool) -> u8 {
    let mut add = flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST);
    if add & flag::RST != 0 {
        // A reset says nothing but "reset": its ACK bit completes no handshake.
        add = flag::RST;
        let handshake = forward && (own & flag::ACK == 0);
        let time_wait = !forward && (own & peer & flag::FIN != 0);
        if handshake || time_wait {
            add = 0;
        }
    }
    own | add
}

#[cfg(test)]
mod tests {
    use super::{State::*, *};
    use proptest::prelude::*;
    use std::{format, vec::Vec};

    /// One row of IPVS's `tcp_states` for a direction and a flag, in the order of `BEFORE`; `None`: not reachable.
    const BEFORE: [State; 6] = [Established, SynRecv, FinWait, TimeWait, Close, CloseWait];
    const INPUT_FIN: [Option<State>; 6] =
        [Some(CloseWait), None, Some(TimeWait), Some(TimeWait), Some(Close), Some(CloseWait)];
    const INPUT_ACK: [Option<State>; 6] =
        [Some(Established), Some(Established), Some(FinWait), Some(TimeWait), Some(Close), Some(CloseWait)];
    const INPUT_RST: [Option<State>; 6] =
        [Some(Close), Some(SynRecv), Some(Close), Some(Close), Some(Close), Some(Close)];
    const OUTPUT_FIN: [Option<State>; 6] =
        [Some(FinWait), None, Some(FinWait), Some(TimeWait), Some(Close), Some(TimeWait)];
    const OUTPUT_ACK: [Option<State>; 6] =
        [Some(Established), None, Some(FinWait), Some(TimeWait), Some(Close), Some(CloseWait)];
    const OUTPUT_RST: [Option<State>; 6] =
        [Some(Close), Some(Close), Some(Close), Some(TimeWait), Some(Close), Some(Close)];

    /// The flags that both directions have seen in a state.
    fn seen(state: State) -> (u8, u8) {
        use flag::*;
        match state {
            SynRecv => (SYN, SYN | ACK),
            Established => (SYN | ACK, SYN | ACK),
            FinWait => (SYN | ACK, SYN | ACK | FIN),
            CloseWait => (SYN | ACK | FIN, SYN | ACK),
            TimeWait => (SYN | ACK | FIN, SYN | ACK | FIN),
            Close => (SYN | ACK | RST, SYN | ACK),
        }
    }

    #[test]
    fn the_derived_state_follows_the_table_of_ipvs() {
        let mut wrong = Vec::new();
        let rows = [
            ("input", flag::FIN, INPUT_FIN),
            ("input", flag::ACK, INPUT_ACK),
            ("input", flag::RST, INPUT_RST),
            ("output", flag::FIN, OUTPUT_FIN),
            ("output", flag::ACK, OUTPUT_ACK),
            ("output", flag::RST, OUTPUT_RST),
        ];
        for (side, bit, row) in rows {
            for (before, expected) in BEFORE.into_iter().zip(row) {
                let Some(expected) = expected else { continue };
                let (forward, reverse) = seen(before);
                let (forward, reverse) = match side {
                    "input" => (note(forward, reverse, bit, true), reverse),
                    _ => (forward, note(reverse, forward, bit, false)),
                };
                let after = State::of(forward, reverse);
                if after != expected {
                    wrong.push(format!("{side} {bit:#04x} in {before}: {after}, IPVS says {expected}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    proptest! {
        /// IPVS keeps a state and steps it with every packet; here it follows from flags that are never forgotten. However
        /// long the packets go on, the two agree.
        #[test]
        fn every_sequence_of_packets_leads_to_the_state_of_ipvs(
            established: bool,
            packets in prop::collection::vec((any::<bool>(), 0_usize..3), 0..40),
        ) {
            let mut ipvs = if established { Established } else { SynRecv };
            let (mut forward, mut reverse) = seen(ipvs);
            for (is_input, which) in packets {
                let (bit, input, output) = [
                    (flag::FIN, INPUT_FIN, OUTPUT_FIN),
                    (flag::ACK, INPUT_ACK, OUTPUT_ACK),
                    (flag::RST, INPUT_RST, OUTPUT_RST),
                ][which];
                let at = BEFORE.iter().position(|state| *state == ipvs).unwrap();
                let Some(next) = (if is_input { input } else { output })[at] else { continue };
                (forward, reverse) = match is_input {
                    true => (note(forward, reverse, bit, true), reverse),
                    false => (forward, note(reverse, forward, bit, false)),
                };
                prop_assert_eq!(State::of(forward, reverse), next, "{:#04x} in {}, input: {}", bit, ipvs, is_input);
                ipvs = next;
            }
        }
    }

    #[test]
    fn a_syn_reuses_only_a_closed_key() {
        let reusable: Vec<_> = State::ALL.iter().filter(|s| s.may_be_reused()).collect();
        assert_eq!(reusable, [&FinWait, &TimeWait, &Close]);
    }
}

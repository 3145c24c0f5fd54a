//! The state table of IPVS (`tcp_states` in `net/netfilter/ipvs/ip_vs_proto_tcp.c`), every cell of it that a conn of a
//! service can come to, through both programs: each state, each direction, each of SYN, FIN, ACK and RST.
//!
//! Where the packet path means to differ, the cell says why. What else each packet does is in the other tables.

use lb_common::{
    counter::Counter::{Established as Completed, HopLookup, Opened, Reused, SynAgain},
    event::EventKind,
    tcp::State::{self, *},
};
use lb_tests::{
    packet::{Packet, Tcp, flag},
    prog::{CLIENT_ISN, Case, Flow, case, network::*, run},
};

/// The columns. SYN_SENT, LAST_ACK, LISTEN and SYNACK are for conns that no client opened.
const BEFORE: [State; 6] = [Established, SynRecv, FinWait, TimeWait, Close, CloseWait];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}
use Side::{Backend, Client};

/// A cell.
#[derive(Clone, Copy)]
enum Next {
    /// As IPVS has it.
    Is(State),
    /// IPVS has the first, the packet path the second, and why.
    But(&'static str, State, &'static str),
}
use Next::{But, Is};

const LATE_CLIENT: &str = "the server may still be sending: its side is not closed, and the key is in use";
const NO_OPENER: &str = "a backend opens no conn: what it sends is no opening";
const HALF_CLOSED: &str = "the FIN completes the handshake, and only one side has closed";
const CLIENT_ONLY: &str = "only the client completes a handshake, or a flood would fill the table of established conns";

/// INPUT is the client's, OUTPUT the backend's.
const TABLE: [(Side, u8, [Next; 6]); 8] = [
    (
        Client,
        flag::SYN,
        [Is(Established), Is(SynRecv), Is(SynRecv), Is(SynRecv), Is(SynRecv), But("SYN_RECV", CloseWait, LATE_CLIENT)],
    ),
    (
        Client,
        flag::FIN,
        [Is(CloseWait), But("TIME_WAIT", CloseWait, HALF_CLOSED), Is(TimeWait), Is(TimeWait), Is(Close), Is(CloseWait)],
    ),
    (Client, flag::ACK, [Is(Established), Is(Established), Is(FinWait), Is(TimeWait), Is(Close), Is(CloseWait)]),
    (Client, flag::RST, [Is(Close), Is(SynRecv), Is(Close), Is(Close), Is(Close), Is(Close)]),
    (
        Backend,
        flag::SYN,
        [
            Is(Established),
            Is(SynRecv),
            But("SYN_SENT", FinWait, NO_OPENER),
            But("SYN_SENT", TimeWait, NO_OPENER),
            But("SYN_SENT", Close, NO_OPENER),
            But("SYN_SENT", CloseWait, NO_OPENER),
        ],
    ),
    (
        Backend,
        flag::FIN,
        [Is(FinWait), But("TIME_WAIT", SynRecv, CLIENT_ONLY), Is(FinWait), Is(TimeWait), Is(Close), Is(TimeWait)],
    ),
    (
        Backend,
        flag::ACK,
        [
            Is(Established),
            But("ESTABLISHED", SynRecv, CLIENT_ONLY),
            Is(FinWait),
            Is(TimeWait),
            Is(Close),
            Is(CloseWait),
        ],
    ),
    (Backend, flag::RST, [Is(Close), Is(Close), Is(Close), Is(TimeWait), Is(Close), Is(Close)]),
];

fn in_state(state: State) -> Flow {
    let flow = Flow::mysql("10.80.1.1:40000", SERVER1);
    if state == SynRecv { flow.answered() } else { flow.in_state(state) }
}

/// The packet of a row: in sequence, with the ACK that all but a SYN and a bare RST carry.
fn packet(before: &Flow, side: Side, flags: u8) -> Packet<Tcp> {
    let own = |packet: Packet<Tcp>| match flags {
        flag::FIN => packet.fin(),
        flag::RST => packet.rst(),
        _ => packet,
    };
    match (side, flags) {
        // The same again while the handshake runs; else another attempt, with a number far away from all before.
        (Client, flag::SYN) if before.half_open => before.client_syn(),
        (Client, flag::SYN) => before.client_syn().seq(CLIENT_ISN + 0x3000_0000),
        (Client, _) => own(before.client_ack()),
        (Backend, flag::SYN) => before.backend_syn_ack(),
        (Backend, _) => own(before.backend_ack()),
    }
}

/// What the packet leaves of the conn, by the rules of the design and not by those of the table.
fn after(before: &Flow, side: Side, flags: u8, packet: &Packet<Tcp>) -> Flow {
    let new = packet.flag_bits();
    match (side, flags) {
        (_, flag::SYN) => before.after_stale(packet),
        // IPVS lets two resets pass: a blind one during the handshake, a late one of a server that has closed.
        (Client, flag::RST) if before.half_open => before.after_stale(packet),
        (Backend, flag::RST) if before.state() == TimeWait => before.after(packet),
        (Client, flag::RST) => before.after(packet).client_sent(new & flag::RST),
        (Backend, flag::RST) => before.after(packet).backend_sent(new & flag::RST),
        _ => before.after(packet),
    }
}

fn row(side: Side, flags: u8, before: State, next: Next) -> Case {
    let who = if side == Client { "client" } else { "backend" };
    let what = match flags {
        flag::SYN => "SYN",
        flag::FIN => "FIN",
        flag::ACK => "ACK",
        _ => "RST",
    };
    let (ipvs, ours) = match next {
        Is(state) => (state.name().to_owned(), state),
        But(ipvs, ours, why) => (format!("{ipvs}, but here {ours}, because {why}"), ours),
    };
    let row = case(format!("{before}, {who}'s {what}: IPVS says {ipvs}"));
    let flow = in_state(before);
    let packet = packet(&flow, side, flags);
    let row = row.given(&[&flow]);
    if side == Client && flags == flag::SYN && ours == SynRecv && !flow.half_open {
        // The key is free for a new conn, which goes where the ring points.
        let fresh = Flow::mysql("10.80.1.1:40000", SERVER1);
        return row
            .translates(&fresh, &packet)
            .counts(&[Reused, Opened, HopLookup])
            .tells(EventKind::Replaced, &flow)
            .leaves(&[&fresh.opened_by(&packet)]);
    }
    let left = after(&flow, side, flags, &packet);
    let state = if left.half_open && left.reverse.seen & flag::RST == 0 { SynRecv } else { left.state() };
    assert_eq!(state, ours, "{before}, {who}'s {what}: this file contradicts itself");
    let row = row.translates(&flow, &packet);
    let row = match (flow.half_open, left.half_open) {
        (true, false) => {
            let mut completed = left.clone();
            completed.forward.seen &= !flag::FIN;
            let row = row.counts(&[Completed]).tells(EventKind::Established, &completed);
            if left.state() == Established { row } else { row.tells(EventKind::Closing, &left) }
        }
        (true, true) if side == Client && flags == flag::SYN => row.counts(&[SynAgain]),
        (true, true) => row,
        _ if left.state() == flow.state() => row,
        _ if matches!(left.state(), TimeWait | Close) => row.tells(EventKind::Closed, &left),
        _ => row.tells(EventKind::Closing, &left),
    };
    row.leaves(&[&left])
}

#[test]
fn every_transition_of_ipvs_is_taken_or_refused_for_a_reason() {
    let rows: Vec<Case> = TABLE
        .into_iter()
        .flat_map(|(side, flags, next)| {
            BEFORE.into_iter().zip(next).map(move |(before, next)| row(side, flags, before, next))
        })
        .collect();
    assert_eq!(rows.len(), 6 * 2 * 4);
    run(&rows);
}

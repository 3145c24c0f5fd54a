//! Established conns through both programs: data, FIN, RST, and a SYN on a key that is still in use.

use lb_common::{
    counter::Counter::{BlindRst, HopLookup, Opened, Reused},
    event::EventKind,
    tcp::{State, State::*},
};
use lb_tests::{
    packet::{Packet, Tcp, flag},
    prog::{CLIENT_ISN, Case, Flow, case, network::*, run},
};

fn flow() -> Flow {
    Flow::mysql("10.80.1.1:40000", SERVER1)
}

#[test]
fn data_goes_both_ways() {
    let flow = flow().established();
    let query = flow.client_ack().psh().payload("\x09\0\0\0\x03SELECT 1");
    let asked = flow.after(&query);
    let answer = asked.backend_ack().psh().payload(1460);
    let answered = asked.after(&answer);
    let keepalive = flow.client_ack().seq(flow.forward.seq - 1);
    let old = flow.backend_ack().seq(flow.reverse.seq - 500).ack(flow.forward.seq - 1).payload(100);
    let wrap = {
        let mut flow = flow.clone();
        (flow.forward.seq, flow.reverse.ack) = (u32::MAX - 9, u32::MAX - 9);
        flow
    };
    let wrapping = wrap.client_ack().payload(20);
    run(&[
        case("a query reaches the backend").given(&[&flow]).translates(&flow, &query).leaves(&[&asked]),
        case("the answer returns from the VIP").given(&[&asked]).translates(&flow, &answer).leaves(&[&answered]),
        case("an ACK reaches the backend")
            .given(&[&answered])
            .translates(&flow, &answered.client_ack())
            .leaves(&[&answered.after(&answered.client_ack())]),
        case("urgent data and congestion bits stay")
            .given(&[&flow])
            .translates(&flow, &query.clone().flags(flag::ACK | flag::URG | flag::ECE | flag::CWR))
            .leaves(&[&asked]),
        case("a keep-alive probe moves no number back")
            .given(&[&flow])
            .translates(&flow, &keepalive)
            .leaves(&[&flow.after_stale(&keepalive)]),
        case("a late retransmission moves no number back")
            .given(&[&flow])
            .translates(&flow, &old)
            .leaves(&[&flow.after_stale(&old)]),
        case("sequence numbers wrap").given(&[&wrap]).translates(&flow, &wrapping).leaves(&[&wrap.after(&wrapping)]),
        case("a SYN+ACK sent again changes nothing")
            .given(&[&flow])
            .translates(&flow, &flow.backend_syn_ack())
            .leaves(&[&flow.after_stale(&flow.backend_syn_ack())]),
        case("a conn without valid next hops looks them up, each direction once")
            .given(&[&flow.without_hops()])
            .translates(&flow, &query)
            .counts(&[HopLookup])
            .leaves(&[&flow.without_hops().after(&query)])
            .translates(&flow, &answer)
            .counts(&[HopLookup])
            .leaves(&[&answered])
            .translates(&flow, &answered.client_ack())
            .leaves(&[&answered.after(&answered.client_ack())]),
    ]);
}

#[test]
fn fins_close_a_conn_from_either_side() {
    let flow = flow().established();
    let (client_fin, backend_fin) = (flow.client_ack().fin(), flow.backend_ack().fin());
    let (close_wait, fin_wait) = (flow.in_state(CloseWait), flow.in_state(FinWait));
    let time_wait = flow.in_state(TimeWait);
    let with_data = flow.client_ack().fin().psh().payload("\x01\0\0\0\x01");
    let last = |flow: &Flow| flow.after(&flow.backend_ack().fin());
    let unread = flow.after(&flow.backend_ack().payload(800));
    let mut cases = vec![
        case("the client closes first")
            .given(&[&flow])
            .translates(&flow, &client_fin)
            .tells(EventKind::Closing, &flow.after(&client_fin))
            .leaves(&[&flow.after(&client_fin)]),
        case("the backend closes first")
            .given(&[&flow])
            .translates(&flow, &backend_fin)
            .tells(EventKind::Closing, &flow.after(&backend_fin))
            .leaves(&[&flow.after(&backend_fin)]),
        case("a FIN takes data with it")
            .given(&[&flow])
            .translates(&flow, &with_data)
            .tells(EventKind::Closing, &flow.after(&with_data))
            .leaves(&[&flow.after(&with_data)]),
        case("the backend closes after the client")
            .given(&[&close_wait])
            .translates(&flow, &close_wait.backend_ack().fin())
            .tells(EventKind::Closed, &last(&close_wait))
            .leaves(&[&last(&close_wait)]),
        case("the client closes after the backend")
            .given(&[&fin_wait])
            .translates(&flow, &fin_wait.client_ack().fin())
            .tells(EventKind::Closed, &fin_wait.after(&fin_wait.client_ack().fin()))
            .leaves(&[&fin_wait.after(&fin_wait.client_ack().fin())]),
        case("both close at the same time")
            .given(&[&flow])
            .translates(&flow, &client_fin)
            .tells(EventKind::Closing, &flow.after(&client_fin))
            .leaves(&[&flow.after(&client_fin)])
            .translates(&flow, &backend_fin)
            .tells(EventKind::Closed, &flow.after(&client_fin).after(&backend_fin))
            .leaves(&[&flow.after(&client_fin).after(&backend_fin)]),
        case("the event of a FIN tells what the FIN itself acknowledges")
            .given(&[&unread])
            .translates(&flow, &unread.client_ack().fin())
            .tells(EventKind::Closing, &unread.after(&unread.client_ack().fin()))
            .leaves(&[&unread.after(&unread.client_ack().fin())]),
        case("a FIN sent again is no news")
            .given(&[&close_wait])
            .translates(&flow, &client_fin)
            .leaves(&[&close_wait.after_stale(&client_fin)]),
        case("the last ACK goes through")
            .given(&[&time_wait])
            .translates(&flow, &time_wait.client_ack())
            .leaves(&[&time_wait.after(&time_wait.client_ack())]),
    ];
    for state in [FinWait, CloseWait, TimeWait, Close] {
        let flow = flow.in_state(state);
        let (data, answer) = (flow.client_ack().payload(5), flow.backend_ack().payload(7));
        cases.push(
            case(format!("packets go both ways in {state}"))
                .given(&[&flow])
                .translates(&flow, &data)
                .leaves(&[&flow.after(&data)])
                .translates(&flow, &answer)
                .leaves(&[&flow.after(&data).after(&answer)]),
        );
    }
    run(&cases);
}

#[test]
fn a_reset_closes_a_conn_when_its_number_is_right() {
    let flow = flow().established();
    let ahead = flow.after(&flow.client_ack().payload(1000));
    let behind = flow.after(&flow.backend_ack().payload(3000));
    let time_wait = flow.in_state(TimeWait);
    let closes = |name: &str, before: &Flow, packet: &Packet<Tcp>, after: &Flow| {
        case(name).given(&[before]).translates(before, packet).tells(EventKind::Closed, after).leaves(&[after])
    };
    let (bare, both) = (flow.client().rst(), flow.client_ack().rst());
    let backend = flow.backend_ack().rst();
    // The client resets where the backend stands, not where its own data in flight ends.
    let early = ahead.client().rst().seq(ahead.reverse.ack);
    let early_backend = behind.backend_ack().rst().seq(behind.forward.ack);
    let late = time_wait.backend_ack().rst();
    let of_client = time_wait.client().rst();
    run(&[
        closes("a client's RST closes the conn", &flow, &bare, &flow.after(&bare).client_sent(flag::RST)),
        closes("a client's RST+ACK closes the conn", &flow, &both, &flow.after(&both).client_sent(flag::RST)),
        closes("a backend's RST closes the conn", &flow, &backend, &flow.after(&backend).backend_sent(flag::RST)),
        closes(
            "a client's RST at what the backend has acknowledged closes the conn",
            &ahead,
            &early,
            &ahead.after_stale(&early).client_sent(flag::RST),
        ),
        closes(
            "a backend's RST at what the client has acknowledged closes the conn",
            &behind,
            &early_backend,
            &behind.after_stale(&early_backend).backend_sent(flag::RST),
        ),
        closes(
            "a client's RST closes a conn in TIME_WAIT",
            &time_wait,
            &of_client,
            &time_wait.after(&of_client).client_sent(flag::RST),
        ),
        case("a backend's RST in TIME_WAIT changes nothing")
            .given(&[&time_wait])
            .translates(&flow, &late)
            .leaves(&[&time_wait.after(&late)]),
    ]);
}

#[test]
fn a_blind_attacker_cannot_reset_a_conn() {
    let flow = flow().established();
    // Outside of any window, which is at most 2^30 (RFC 7323 §2.3), and yet ahead.
    let far = flow.forward.seq.wrapping_add(0x5000_0000);
    let rst = flow.client().rst().seq(far);
    let implausible = |name: &str, packet: &Packet<Tcp>| {
        case(name).given(&[&flow]).translates(&flow, packet).counts(&[BlindRst]).leaves(&[&flow.after_stale(packet)])
    };
    let after = |name: &str, first: &Packet<Tcp>| {
        let mut rst = rst.clone().seq(first.seq_end());
        if first.flag_bits() & flag::RST != 0 {
            rst = first.clone();
        }
        let case = case(name).given(&[&flow]).translates(&flow, first).leaves_roughly(&[&flow]);
        let case = if first.flag_bits() & flag::RST != 0 { case.counts(&[BlindRst]) } else { case };
        case.translates(&flow, &rst).counts(&[BlindRst]).leaves_roughly(&[&flow])
    };
    run(&[
        implausible("a RST just behind the sequence changes nothing", &flow.client().rst().seq(flow.forward.seq - 1)),
        implausible("a RST just ahead of the sequence changes nothing", &flow.client().rst().seq(flow.forward.seq + 1)),
        implausible("a RST far ahead of the sequence changes nothing", &rst),
        implausible("a backend's RST outside the sequence changes nothing", &flow.backend().rst().seq(7)),
        after("the same RST again is as implausible as before", &rst),
        after("a RST behind invented data is implausible", &flow.client().ack(7).seq(far).payload(50)),
        after("a RST behind an invented SYN is implausible", &flow.client().syn().seq(far)),
    ]);
}

#[test]
fn a_syn_reuses_the_key_of_a_closed_conn() {
    let fresh = flow();
    let syn = fresh.client_syn().seq(CLIENT_ISN + 900_000);
    let reused: Vec<Case> = [TimeWait, FinWait, Close]
        .map(|state: State| {
            let old = Flow::mysql("10.80.1.1:40000", SERVER2).in_state(state);
            case(format!("a SYN on a conn in {state} starts a new one where the ring points"))
                .given(&[&old])
                .translates(&fresh, &syn)
                .counts(&[Reused, Opened, HopLookup])
                .tells(EventKind::Replaced, &old)
                .leaves(&[&fresh.opened_by(&syn)])
        })
        .into();
    let kept = [Established, CloseWait].map(|state: State| {
        let old = Flow::mysql("10.80.1.1:40000", SERVER2).in_state(state);
        let again = old.client_syn();
        case(format!("a SYN on a conn in {state} goes to the same backend and changes nothing"))
            .given(&[&old])
            .translates(&old, &again)
            .leaves(&[&old.after_stale(&again)])
    });
    let dead = Flow::mysql("10.80.1.1:40000", SERVER1).in_state(TimeWait);
    let from_backend = dead.backend().syn().seq(9);
    let mut cases = reused;
    cases.extend(kept);
    let closed = Flow::mysql("10.80.1.1:40000", SERVER2).in_state(TimeWait);
    let odd = closed.client_syn().fin();
    cases.push(
        case("a SYN+FIN on a conn in TIME_WAIT starts nothing and ends nothing")
            .given(&[&closed])
            .translates(&closed, &odd)
            .leaves(&[&closed.after_stale(&odd)]),
    );
    cases.push(
        case("a SYN from the backend in TIME_WAIT starts nothing")
            .given(&[&dead])
            .translates(&dead, &from_backend)
            .leaves(&[&dead.after_stale(&from_backend)]),
    );
    run(&cases);
}

//! The three-way handshake through both programs: SYN, SYN+ACK, ACK, and everything that can go wrong between them.

use lb_common::{
    counter::Counter::*,
    event::EventKind,
    service::{Refusal, Scheduler},
};
use lb_tests::{
    packet::flag,
    prog::{BACKEND_ISN, CLIENT_ISN, Case, Flow, SYN_RECV_JIFFIES, Site, case, network::*, run},
};

/// A conn of one client port to each of the two servers, its SYN forwarded.
fn flows() -> (Flow, Flow) {
    (Flow::mysql("10.80.1.1:40000", SERVER1), Flow::mysql("10.80.1.1:40000", SERVER2))
}

#[test]
fn a_handshake_goes_through() {
    let (flow, _) = flows();
    let (answered, established) = (flow.answered(), flow.established());
    let odd_syn = flow.client_syn().tcp_options(&[2, 4, 5, 180]).flags(flag::SYN | flag::ECE | flag::CWR);
    let data = answered.client_ack().psh().payload(100);
    let fin = answered.client_ack().fin();
    // Told before the FIN is noted.
    let mut completed = answered.after(&fin);
    completed.forward.seen &= !flag::FIN;
    run(&[
        case("a SYN opens a conn on the first backend of the ring")
            .translates(&flow, &flow.client_syn())
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow]),
        case("a SYN with options and ECN bits opens a conn")
            .translates(&flow, &odd_syn)
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow.opened_by(&odd_syn)]),
        case("the backend's SYN+ACK returns from the VIP")
            .given(&[&flow])
            .translates(&flow, &flow.backend_syn_ack())
            .counts(&[HopLookup])
            .leaves(&[&answered]),
        case("the client's ACK completes the handshake and moves the conn to the table of established ones")
            .given(&[&answered])
            .translates(&flow, &answered.client_ack())
            .counts(&[Established])
            .tells(EventKind::Established, &established)
            .leaves(&[&established]),
        case("data completes the handshake when the ACK got lost")
            .given(&[&answered])
            .translates(&flow, &data)
            .counts(&[Established])
            .tells(EventKind::Established, &answered.after(&data))
            .leaves(&[&answered.after(&data)]),
        case("a FIN completes the handshake and closes the client's side at once")
            .given(&[&answered])
            .translates(&flow, &fin)
            .counts(&[Established])
            .tells(EventKind::Established, &completed)
            .tells(EventKind::Closing, &answered.after(&fin))
            .leaves(&[&answered.after(&fin)]),
        case("a handshake from SYN to ACK, with one lookup of the next hop in each direction")
            .translates(&flow, &flow.client_syn())
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow])
            .translates(&flow, &flow.backend_syn_ack())
            .counts(&[HopLookup])
            .leaves(&[&answered])
            .translates(&flow, &answered.client_ack())
            .counts(&[Established])
            .tells(EventKind::Established, &established)
            .leaves(&[&established]),
    ]);
}

#[test]
fn a_handshake_may_stumble() {
    let (flow, other) = flows();
    let answered = flow.answered();
    let syn = flow.client_syn();
    let new_syn = flow.client_syn().seq(CLIENT_ISN + 70_000);
    let again = flow.backend_syn_ack().seq(BACKEND_ISN + 1_000_000);
    let ack = answered.client_ack();
    let restarted = answered.after(&again);
    let reset = flow.backend().seq(0).rst().ack(flow.forward.seq);
    let refused = flow.after(&reset).backend_sent(flag::RST);
    let client_rst = answered.client().rst();
    let crossed = answered.backend_sent(flag::RST);
    run(&[
        case("a SYN sent again goes to the same backend")
            .given(&[&flow])
            .translates(&flow, &syn)
            .counts(&[SynAgain])
            .leaves(&[&flow.after_stale(&syn)]),
        case("a SYN sent again after the SYN+ACK goes to the same backend")
            .given(&[&answered])
            .translates(&flow, &syn)
            .counts(&[SynAgain])
            .leaves(&[&answered.after_stale(&syn)]),
        case("another SYN on the port of a half-open conn starts a new one on the next backend")
            .translates(&flow, &syn)
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow])
            .translates(&other, &new_syn)
            .counts(&[Opened, HopLookup])
            .leaves(&[&other.opened_by(&new_syn)]),
        case("the backend's refusal returns to the client and is noted")
            .given(&[&flow])
            .translates(&flow, &reset)
            .counts(&[HopLookup])
            .leaves(&[&refused]),
        case("the same SYN after a refusal starts a new conn on the next backend")
            .translates(&flow, &syn)
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow])
            .translates(&flow, &reset)
            .counts(&[HopLookup])
            .leaves(&[&refused])
            .translates(&other, &syn)
            .counts(&[Opened, HopLookup])
            .leaves(&[&other]),
        case("an ACK that crosses the backend's RST leaves a closed conn, which is no load")
            .given(&[&crossed])
            .translates(&flow, &ack)
            .counts(&[Established])
            .tells(EventKind::Established, &crossed.after(&ack))
            .leaves(&[&crossed.after(&ack)]),
        case("a client's RST during the handshake goes to the backend and changes nothing")
            .given(&[&answered])
            .translates(&flow, &client_rst)
            .leaves(&[&answered.after_stale(&client_rst)]),
        case("the backend's SYN+ACK sent again returns again")
            .given(&[&answered])
            .translates(&flow, &flow.backend_syn_ack())
            .leaves(&[&answered.after_stale(&flow.backend_syn_ack())]),
        case("a backend that starts over with other numbers is believed")
            .given(&[&answered])
            .translates(&flow, &again)
            .leaves(&[&restarted])
            .from_client(&ack)
            .dropped(BadHandshake)
            .translates(&flow, &restarted.client_ack())
            .counts(&[Established])
            .tells(EventKind::Established, &restarted.after(&restarted.client_ack()))
            .leaves(&[&restarted.after(&restarted.client_ack())]),
    ]);
}

#[test]
fn an_ack_must_name_the_backends_syn() {
    let (flow, _) = flows();
    let answered = flow.answered();
    let wrong = |by: u32| answered.client().ack(answered.reverse.seq.wrapping_add(by));
    let never = |name: &str, flow: &Flow, packet| case(name).given(&[flow]).from_client(&packet).dropped(BadHandshake);
    run(&[
        never("an ACK one above the right number is dropped", &answered, wrong(1)),
        never("an ACK one below the right number is dropped", &answered, wrong(u32::MAX)),
        never("an ACK half the space away is dropped", &answered, wrong(1 << 31)),
        never("an ACK of zero is dropped", &answered, answered.client().ack(0)),
        never("data with a wrong ACK is dropped", &answered, wrong(2).payload(10)),
        never("an ACK before the SYN+ACK is dropped", &flow, flow.client().ack(BACKEND_ISN + 1)),
        never("an ACK of zero before the SYN+ACK is dropped", &flow, flow.client().ack(0)),
        never("a FIN without ACK during the handshake is dropped", &answered, answered.client().fin()),
        never("a segment without flags during the handshake is dropped", &answered, answered.client()),
        never("a SYN+ACK from the client is dropped", &answered, answered.client_ack().syn()),
    ]);
}

#[test]
fn a_half_open_conn_dies_of_age_and_of_eviction() {
    let (flow, _) = flows();
    let (_, other) = flows();
    let dead = other.aged(SYN_RECV_JIFFIES + 10_000);
    let dead_answered = dead.answered();
    let alive = flow.aged(SYN_RECV_JIFFIES - 10_000);
    let [forward_key, reverse_key] = flow.keys();
    let ack = flow.answered().client_ack();
    run(&[
        case("a SYN on a dead half-open conn opens a new one, wherever the ring points")
            .given(&[&dead])
            .translates(&flow, &flow.client_syn())
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow]),
        case("an ACK on a dead half-open conn is a packet without a conn, and clears it away")
            .given(&[&dead_answered])
            .from_client(&dead_answered.client_ack())
            .dropped(NoConn)
            .tells_refusal(EventKind::Miss, &dead, NoConn)
            .leaves(&[]),
        case("a SYN on an old but living half-open conn goes to the same backend")
            .given(&[&alive])
            .translates(&alive, &alive.client_syn())
            .counts(&[SynAgain])
            .leaves(&[&alive.after_stale(&alive.client_syn())]),
        case("a SYN on a conn whose reverse entry was evicted opens a new one")
            .given(&[&flow])
            .without_entry(reverse_key)
            .translates(&flow, &flow.client_syn())
            .counts(&[Opened, HopLookup])
            .leaves(&[&flow]),
        case("an ACK on a conn whose reverse entry was evicted belongs to no conn")
            .given(&[&flow.answered()])
            .without_entry(reverse_key)
            .from_client(&ack)
            .dropped(NoConn)
            .tells_refusal(EventKind::Miss, &flow, NoConn)
            .leaves(&[]),
        case("an ACK on a conn whose forward entry was evicted belongs to no conn")
            .given(&[&flow.answered()])
            .without_entry(forward_key)
            .from_client(&ack)
            .dropped(NoConn)
            .tells_refusal(EventKind::Miss, &flow, NoConn),
    ]);
}

#[test]
fn only_a_syn_opens_a_conn() {
    let (flow, _) = flows();
    let site = Site::new().service("10.80.1.243:3306", Scheduler::Rr, &[]).no_backend(Refusal::Drop);
    let rows = [
        ("an ACK", flag::ACK),
        ("data", flag::ACK | flag::PSH),
        ("a SYN+ACK", flag::SYN | flag::ACK),
        ("a FIN+ACK", flag::FIN | flag::ACK),
        ("a bare FIN", flag::FIN),
        ("a RST", flag::RST),
        ("a RST+ACK", flag::RST | flag::ACK),
        ("a SYN+RST", flag::SYN | flag::RST),
        ("a SYN+FIN", flag::SYN | flag::FIN),
        ("a segment without flags", 0),
        ("a segment with all flags", 0xff),
    ];
    let mut cases: Vec<Case> = rows
        .map(|(name, flags)| {
            case(format!("{name} without a conn is dropped and reported"))
                .from_client(&flow.client().flags(flags).payload(3))
                .dropped(NoConn)
                .tells_refusal(EventKind::Miss, &flow, NoConn)
        })
        .into();
    cases.push(
        case("a SYN for a service without backends is dropped if the service wants it")
            .at(&site)
            .from_client(&flow.client_syn())
            .dropped(NoBackend)
            .tells_refusal(EventKind::Refused, &flow, NoBackend),
    );
    run(&cases);
}

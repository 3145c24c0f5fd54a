//! The whole way of a conn between two directors: packets, event ring, core, wire, core, `lb_replica`, packets. Real
//! programs and real sockets, no agent and no servers.

use std::{
    thread,
    time::{Duration, Instant},
};

use lb_common::tcp::State;
use lb_tests::sync_pair::{Ends, Host, Setup, pair};
use lb_userspace::sync::{Running, State as Progress};

#[expect(clippy::disallowed_methods, reason = "a bound for what has to happen")]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn equal(both: [&Running; 2], conns: usize) -> bool {
    both.iter().all(|running| {
        let status = running.status();
        status.state == Progress::Equal && status.conns == conns
    })
}

/// The state of a conn, as both of its entries tell; `None`: it is not there.
fn state(host: &Host, ends: &Ends) -> Option<State> {
    let conns = &host.datapath.tables().conns;
    let forward = conns.get(&ends.flow()).unwrap()?;
    let reverse = conns.get(&forward.other_key()).unwrap().expect("both entries");
    Some(State::of(forward.seen, reverse.seen))
}

fn load(host: &Host) -> u64 {
    host.datapath.tables().loads.get(0).unwrap().active
}

#[test]
fn a_conn_opened_at_one_director_is_used_and_closed_at_the_other_and_both_know() {
    let [one, other] = pair(Setup { conns: 10_000, heartbeat: Duration::from_millis(50) }).unwrap();
    let (first, _) = one.start().unwrap();
    let (second, written) = other.start().unwrap();
    until("both are equal", || equal([&first, &second], 0));
    let opened = one.open(0..200, 5_000).unwrap();
    until("the peer's packet path has them", || written.lock().unwrap().len() == opened.len());
    until("both are equal again", || equal([&first, &second], 200));
    assert_eq!((load(&one), load(&other)), (200, 200));

    // The VIPs move: a query of a client, the answer, and the end, all at the other director.
    let ends = Ends::nth(7);
    let [client_ack, backend_ack] = Ends::acks(0, 100);
    let query = ends.client(1).ack(client_ack).payload(100);
    let sent = other.packet(true, &query).unwrap().expect("the query goes on");
    assert_eq!(sent[sent.len() - 100..], query.build()[query.build().len() - 100..], "byte for byte");
    let answer = ends.backend(1).ack(backend_ack).payload(500);
    let sent = other.packet(false, &answer).unwrap().expect("the answer goes on");
    let (whole, own) = (answer.build(), sent.len() - 500);
    assert_eq!(sent[own..], whole[whole.len() - 500..]);
    assert!(other.packet(true, &ends.client(101).ack(client_ack + 500).fin()).unwrap().is_some());
    assert!(other.packet(false, &ends.backend(501).ack(backend_ack + 1).fin()).unwrap().is_some());
    assert_eq!(state(&other, &ends), Some(State::TimeWait));
    until("the first director hears of it", || state(&one, &ends) == Some(State::TimeWait));
    until("it is no load any more", || (load(&one), load(&other)) == (199, 199));
    assert_eq!(state(&one, &Ends::nth(8)), Some(State::Established));
}

//! What the core makes of a look through the packet path's table, which tells of conns as they were a while ago.

#[path = "sync_adversary/pair.rs"]
#[expect(dead_code, reason = "what somebody on the line needs is not needed here")]
mod pair;

use std::time::{Duration, Instant};

use lb_common::tcp::{State, flag};
use lb_userspace::sync::{Action, Config, Conn, Half, Input, Key, Replication, Tenths};

use pair::{Director, Pair, config, conn};

/// A core that begins to look.
fn begun() -> (Replication, Instant) {
    #[expect(clippy::disallowed_methods, reason = "an origin for times: an Instant has no other")]
    let now = Instant::now() + Duration::from_secs(100_000);
    let mut core = Replication::new(config(1), now).expect("a config that makes sense");
    assert_eq!(core.poll_action(), Some(Action::Scan));
    (core, now)
}

/// What it wants to look at once more.
fn looks(core: &mut Replication) -> Vec<Key> {
    let mut looks = Vec::new();
    while let Some(action) = core.poll_action() {
        match action {
            Action::Look(key) => looks.push(key),
            Action::Send(_) | Action::Scan => {}
            other => panic!("{other:?}"),
        }
    }
    looks
}

fn known(core: &Replication) -> Vec<Key> {
    let mut known: Vec<Key> = core.conns().map(|conn| conn.key).collect();
    known.sort();
    known
}

#[test]
fn the_first_look_is_believed_and_costs_no_second_one() {
    let (mut core, now) = begun();
    for port in 1..=3 {
        core.handle(Input::Seen(conn(port)), now);
    }
    core.handle(Input::Scanned, now);
    assert_eq!(looks(&mut core), []);
    assert_eq!(known(&core), [1, 2, 3].map(|port| conn(port).key));
}

#[test]
fn what_has_ended_while_the_first_look_came_by_is_looked_at_once_more() {
    let (mut core, now) = begun();
    let expired = Input::Expired { key: conn(2).key, state: State::Close };
    core.handle(Input::Replaced(conn(1).key), now);
    core.handle(expired, now);
    // One that began and ended meanwhile, and one that is known since.
    core.handle(Input::Established(conn(3)), now);
    core.handle(Input::Replaced(conn(3).key), now);
    core.handle(Input::Established(conn(4)), now);
    for port in 1..=4 {
        core.handle(Input::Seen(conn(port)), now);
    }
    assert_eq!(looks(&mut core), [1, 2, 3].map(|port| conn(port).key));
    [1, 2, 3].into_iter().for_each(|port| core.handle(Input::NotFound(conn(port).key), now));
    core.handle(Input::Scanned, now);
    assert_eq!(looks(&mut core), []);
    assert_eq!(known(&core), [conn(4).key]);
}

#[test]
fn half_a_conn_is_looked_at_once_more() {
    let (mut core, now) = begun();
    core.handle(Input::SeenHalf(conn(1).key), now);
    core.handle(Input::Scanned, now);
    assert_eq!(looks(&mut core), [conn(1).key]);
    core.handle(Input::Found(conn(1)), now);
    assert_eq!(known(&core), [conn(1).key]);
}

#[test]
fn later_looks_tell_what_to_look_at_and_nothing_else() {
    let (mut core, now) = begun();
    core.handle(Input::Seen(conn(1)), now);
    core.handle(Input::Scanned, now);
    assert_eq!(looks(&mut core), []);
    let now = now + Duration::from_secs(20);
    core.handle_timeout(now);
    assert!(looks(&mut core).is_empty());
    let aged = |conn: Conn, tenths| Conn { age: Tenths(tenths), ..conn };
    let closed = |half: Half| Half { seen: half.seen | flag::FIN, ..half };
    // As it was; unknown; another one of the same key; closed, which its event should have told.
    core.handle(Input::Seen(aged(conn(1), 200)), now);
    assert_eq!(looks(&mut core), []);
    core.handle(Input::Seen(conn(2)), now);
    core.handle(Input::Seen(aged(conn(1), 20)), now);
    let conn_of_1 = aged(conn(1), 200);
    core.handle(Input::Seen(Conn { forward: closed(conn_of_1.forward), ..conn_of_1 }), now);
    assert_eq!(looks(&mut core), [2, 1, 1].map(|port| conn(port).key));
    let kept: Vec<Conn> = core.conns().collect();
    assert_eq!((kept.len(), kept[0].state()), (1, State::Established), "a look alone changes nothing");
    core.handle(Input::Found(Conn { forward: closed(conn_of_1.forward), ..conn_of_1 }), now);
    assert_eq!(core.conns().next().map(|conn| conn.state()), Some(State::CloseWait));
}

#[test]
fn an_end_does_not_take_a_conn_along_that_the_ring_could_not_tell_of() {
    let mut pair = Pair::equal();
    pair.run(Duration::from_secs(2));
    let (key, now) = (conn(1000).key, pair.now);
    // The client resets, and comes again at once from the same port; the ring has room for the first of both only.
    let old = Conn { age: Tenths(25), ..conn(1000) };
    let reset = Half { seen: old.forward.seen | flag::RST, ..old.forward };
    let other = &mut pair.directors[1];
    other.table.insert(key, (conn(1000), now));
    other.core.handle(Input::Closing(Conn { forward: reset, ..old }), now);
    // And the other director, by which the packets went before, says that the old one is over.
    pair.directors[0].lose(&old, now);
    pair.run(Duration::from_secs(1));
    let (left, _) = pair.directors[1].table.get(&key).expect("the new conn is there still");
    assert_eq!(left.age, Tenths(0));
    for director in &pair.directors {
        assert!(director.core.conns().any(|conn| conn.key == key && conn.state() == State::Established));
    }
}

#[test]
fn an_end_counts_also_for_a_conn_that_no_look_has_shown_yet() {
    let mut pair = Pair::equal();
    // The other director's process starts anew. Its first look shows nothing; its table holds ten conns.
    let table = std::mem::take(&mut pair.directors[1].table);
    pair.directors[1] = Director::new(Config { epoch: [9; 16], seed: [9; 32], ..config(2) }, pair.now);
    pair.directors[1].table = table;
    let now = pair.now;
    pair.directors[0].lose(&conn(1000), now);
    pair.run(Duration::from_secs(5));
    for director in &pair.directors {
        assert!(!director.table.contains_key(&conn(1000).key));
        assert_eq!(director.contents().0.len(), 9);
    }
}

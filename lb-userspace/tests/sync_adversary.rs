//! What somebody on the sync link can do who does not have the key: nothing, and every attempt is counted by its cause.
//! And what a peer can do that has the key and is wrong: as little.

#[path = "sync_adversary/pair.rs"]
mod pair;

use std::time::{Duration, Instant};

use lb_common::tcp::flag;
use lb_userspace::sync::{Config, Event, Input, Notice, Psk, Refused, Rejected, Services, State};

use pair::{Director, Pair, address, config, conn, vip};

const SECOND: Duration = Duration::from_secs(1);

/// Throws datagrams at a director; nothing may change but counters. Answers how many were refused.
fn attack(director: &mut Director, datagrams: &[Vec<u8>], now: Instant) -> u64 {
    let (before, refused) = (director.contents(), director.counters().all_refused());
    for datagram in datagrams {
        director.receive(datagram, now);
    }
    director.run(now);
    assert_eq!(director.contents(), before, "the tables are as they were");
    director.counters().all_refused() - refused
}

#[test]
fn a_replay_within_the_session_changes_nothing() {
    let mut pair = Pair::equal();
    let now = pair.now;
    // The conns end, so that their creation would be news.
    for port in 0..10 {
        pair.directors[0].lose(&conn(1000 + port), now);
    }
    pair.run(SECOND);
    assert_eq!(pair.directors[1].contents().0.len(), 0);
    let tape = pair.sent_by(0);
    let replayed = pair.directors[1].refused(Refused::Replayed);
    let refused = attack(&mut pair.directors[1], &tape, pair.now);
    let greetings = tape.iter().filter(|bytes| bytes[3] == 1).count() as u64;
    assert_eq!(pair.directors[1].refused(Refused::Replayed) - replayed, tape.len() as u64 - greetings);
    assert_eq!(refused, tape.len() as u64 - greetings, "greetings are heard, and lead to nothing");
    pair.run(SECOND);
    assert_eq!(pair.directors[1].core.state(), State::Equal, "the session goes on");
}

#[test]
fn a_stream_of_an_older_epoch_opens_nothing() {
    let mut old = Pair::equal();
    old.run(SECOND);
    let tape = old.sent_by(0);
    // The same director 2, restarted: another epoch, another seed. Director 1 is gone.
    let reborn = Config { epoch: [99; 16], seed: [98; 32], ..config(2) };
    let mut victim = Director::new(reborn, old.now);
    let mut answers = 0;
    let mut longest = 0;
    for datagram in &tape {
        victim.receive(datagram, old.now);
        let sent = victim.run(old.now);
        answers += sent.len();
        longest = longest.max(sent.iter().map(Vec::len).max().unwrap_or(0));
    }
    assert_eq!(victim.contents().0.len() + victim.contents().1.len(), 0);
    assert_ne!(victim.core.state(), State::Equal);
    assert!(victim.core.status().peer.is_none());
    let greetings = tape.iter().filter(|bytes| bytes[3] == 1).count();
    assert!(answers <= greetings + 1, "{answers} answers to {greetings} greetings");
    assert!(longest <= tape[0].len(), "an answer is not longer than the question");
    assert_eq!(victim.refused(Refused::UnknownSession), (tape.len() - greetings) as u64);
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let mut pair = Pair::equal();
    let now = pair.now;
    pair.directors[0].open(conn(2000), now);
    // Nothing of it arrives: the frame with the new conn and one greeting are kept.
    let mut frames = Vec::new();
    pair.run_with(Duration::from_millis(20), |from, bytes| {
        if from == 0 {
            frames.push(bytes.to_vec());
        }
        false
    });
    let greeting = pair.sent_by(0).into_iter().find(|bytes| bytes[3] == 1).expect("there was a greeting");
    frames.push(greeting);
    for frame in frames {
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                if frame[3] == 1 {
                    // A while later each, so that not the limit of greetings refuses it.
                    pair.now += Duration::from_millis(2);
                }
                let refused = attack(&mut pair.directors[1], &[damaged], pair.now);
                // Flags of versions to come are covered by the tag, as everything is.
                assert_eq!(refused, 1, "byte {at}, bit {bit} of a frame of {} bytes", frame.len());
            }
        }
        // Untouched it counts.
        let refused = pair.directors[1].counters().all_refused();
        pair.directors[1].receive(&frame, pair.now);
        pair.directors[1].run(pair.now);
        assert_eq!(pair.directors[1].counters().all_refused(), refused);
    }
    assert_eq!(pair.directors[1].contents().0.len(), 11);
}

#[test]
fn frames_that_are_cut_or_too_long_are_refused() {
    let mut pair = Pair::equal();
    let tape = pair.sent_by(0);
    let (frame, greeting) = (tape.last().unwrap().clone(), tape[0].clone());
    for frame in [frame, greeting] {
        for length in 0..frame.len() {
            pair.now += Duration::from_millis(2);
            assert_eq!(attack(&mut pair.directors[1], &[frame[..length].to_vec()], pair.now), 1, "{length} bytes");
        }
        for more in [1, 16, 1000, 60_000] {
            pair.now += Duration::from_millis(2);
            let longer = [frame.clone(), vec![0; more]].concat();
            assert_eq!(attack(&mut pair.directors[1], &[longer], pair.now), 1, "{more} bytes more");
        }
    }
    assert!(pair.directors[1].refused(Refused::Length) > 0);
}

#[test]
fn another_key_opens_nothing_and_both_say_so() {
    let other = Config { keys: vec![Psk::new([8; 32])], ..config(2) };
    let mut pair = Pair::new([config(1), other]);
    let now = pair.now;
    pair.directors[0].open(conn(1000), now);
    pair.run(2 * SECOND);
    for director in &pair.directors {
        assert!(director.core.status().peer.is_none());
        assert!(director.refused(Refused::UnknownKey) > 0);
    }
    assert_eq!(pair.directors[1].contents().0.len(), 0);
}

#[test]
fn a_key_of_the_same_name_opens_nothing_either() {
    // The name is one byte: an attacker finds a key with any name.
    let name = |key: u32| {
        format!("{:?}", Psk::new([key.to_be_bytes(), [0; 4], [0; 4], [0; 4]].concat().repeat(2).try_into().unwrap()))
    };
    let own = format!("{:?}", Psk::new([7; 32]));
    let found = (0..).find(|key| name(*key) == own).unwrap();
    let psk = Psk::new([found.to_be_bytes(), [0; 4], [0; 4], [0; 4]].concat().repeat(2).try_into().unwrap());
    let mut pair = Pair::new([config(1), Config { keys: vec![psk], ..config(2) }]);
    pair.run(2 * SECOND);
    for director in &pair.directors {
        assert!(director.core.status().peer.is_none());
        assert!(director.refused(Refused::Forged) > 0);
    }
}

#[test]
fn a_director_without_a_key_does_not_speak_to_one_with_a_key() {
    let unprotected = |node| Config { keys: vec![Psk::insecure()], insecure: true, ..config(node) };
    let mut pair = Pair::new([config(1), unprotected(2)]);
    pair.run(2 * SECOND);
    for director in &pair.directors {
        assert!(director.core.status().peer.is_none());
        assert!(director.refused(Refused::Unprotected) > 0);
    }
    // Two of them do speak, and say what they are.
    let mut pair = Pair::new([unprotected(1), unprotected(2)]);
    pair.run(2 * SECOND);
    assert_eq!(pair.directors[0].core.state(), State::Equal);
    assert!(pair.directors[0].core.status().insecure);
}

#[test]
fn keys_are_changed_one_director_at_a_time() {
    let (old, new) = (Psk::new([7; 32]), Psk::new([9; 32]));
    let steps: [[Vec<Psk>; 2]; 4] = [
        [vec![old.clone(), new.clone()], vec![old.clone()]],
        [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]],
        [vec![new.clone(), old.clone()], vec![new.clone(), old.clone()]],
        [vec![new.clone()], vec![new.clone(), old.clone()]],
    ];
    for [one, two] in steps {
        let mut pair = Pair::new([Config { keys: one, ..config(1) }, Config { keys: two, ..config(2) }]);
        pair.run(SECOND);
        assert_eq!(pair.directors[1].core.state(), State::Equal);
    }
}

#[test]
fn another_version_is_refused_loudly() {
    let mut pair = Pair::equal();
    let mut tape = pair.sent_by(0);
    tape.iter_mut().for_each(|frame| frame[2] = 2);
    assert_eq!(attack(&mut pair.directors[1], &tape, pair.now), tape.len() as u64);
    assert_eq!(pair.directors[1].refused(Refused::Version), tape.len() as u64);
}

#[test]
fn a_flood_of_greetings_is_cheap_and_stops_nobody() {
    let mut pair = Pair::new([config(1), config(2)]);
    pair.run(Duration::from_millis(50));
    let recorded = pair.sent_by(0).into_iter().find(|bytes| bytes[3] == 1).expect("there was a greeting");
    let mut pair = Pair::new([config(1), Config { epoch: [50; 16], seed: [51; 32], ..config(2) }]);
    // Forged ones and a real one that was recorded, 10,000 of each, in a second in which both directors greet.
    let victim_answers = std::cell::Cell::new(0_usize);
    for _ in 0..100 {
        let now = pair.now;
        for forged in 0..100_u8 {
            let mut noise = recorded.clone();
            noise[180] ^= forged | 1;
            pair.directors[1].receive(&noise, now);
            pair.directors[1].receive(&recorded, now);
        }
        pair.run_with(Duration::from_millis(10), |from, _| {
            victim_answers.set(victim_answers.get() + from);
            true
        });
    }
    let victim = &pair.directors[1];
    assert!(victim.refused(Refused::Limited) > 15_000, "{:?}", victim.counters());
    assert!(victim.refused(Refused::Forged) < 1500, "few are opened");
    assert!(victim_answers.get() < 150, "{} datagrams in answer to 20,000", victim_answers.get());
    // It met the real one all the same.
    assert_eq!(victim.core.state(), State::Equal);
    // And an open session does not even notice.
    let (before, now) = (victim.contents(), pair.now);
    (0..1000).for_each(|_| pair.directors[1].receive(&recorded, now));
    pair.run(SECOND);
    assert_eq!((pair.directors[1].contents(), pair.directors[1].core.state()), (before, State::Equal));
}

#[test]
fn a_third_director_is_not_let_in_while_the_peer_lives() {
    let mut pair = Pair::equal();
    let mut third = Director::new(config(3), pair.now);
    for _ in 0..1000 {
        pair.run(Duration::from_millis(1));
        for bytes in third.run(pair.now) {
            pair.directors[1].receive(&bytes, pair.now);
        }
        if let Some((from, bytes)) = pair.tape.last() {
            assert!(*from < 2);
            third.receive(bytes, pair.now);
        }
    }
    assert!(pair.directors[1].refused(Refused::ThirdNode) > 0);
    assert!(third.core.status().peer.is_none());
    assert_eq!(pair.directors[1].core.status().peer.unwrap().node, 1);
    // A director of one's own number is somebody who copied a config.
    let mut twin = Director::new(Config { epoch: [77; 16], ..config(2) }, pair.now);
    for bytes in twin.run(pair.now) {
        pair.directors[1].receive(&bytes, pair.now);
    }
    assert!(pair.directors[1].refused(Refused::OwnNode) > 0);
}

#[test]
fn records_that_do_not_fit_the_config_are_refused_one_by_one() {
    let mut pair = Pair::equal();
    let good = conn(3000);
    let mut unknown_service = conn(3001);
    unknown_service.key.vip = address(1, 244, 3306);
    let mut other_port = conn(3002);
    other_port.key.vip.set_port(3307);
    let unknown_backend = lb_userspace::sync::Conn { backend: address(2, 99, 3306), ..conn(3003) };
    let mut no_handshake = conn(3004);
    no_handshake.forward.seen = flag::SYN;
    let mut strange_flags = conn(3005);
    strange_flags.reverse.seen = 0xff;
    let (now, [one, two]) = (pair.now, &mut pair.directors);
    for conn in [good, unknown_service, other_port, unknown_backend, no_handshake, strange_flags] {
        one.open(conn, now);
    }
    let before = two.contents();
    pair.run(Duration::from_millis(50));
    let two = &pair.directors[1];
    assert_eq!(two.contents().0.len(), before.0.len() + 1, "one of them is good");
    for (cause, count) in [(Rejected::UnknownService, 2), (Rejected::UnknownBackend, 1), (Rejected::Implausible, 2)] {
        assert!(two.counters().rejected(cause) >= count, "{cause:?}: {:?}", two.counters());
    }
    // The operator sees it on both sides, and the good conns are not mistaken for dead ones because of the others.
    pair.run(10 * SECOND);
    assert!(pair.directors[0].core.status().peer.unwrap().refused >= 5);
    assert_eq!(pair.directors[1].core.state(), State::Diverged);
    assert_eq!(pair.directors[0].contents().0.len(), 16);
    assert_eq!(pair.directors[1].contents().0.len(), 11);
    // Once the services are there, the rest follows.
    let mut services = Services::default();
    for vip in [vip(), address(1, 244, 3306), address(1, 243, 3307)] {
        for backend in [167, 136, 99] {
            services.add(vip, address(2, backend, 3306));
        }
    }
    let now = pair.now;
    pair.directors[1].core.handle(Input::Services(services), now);
    pair.run(60 * SECOND);
    assert_eq!(pair.directors[1].contents().0.len(), 14);
}

#[test]
fn a_peer_gets_no_more_room_than_there_is() {
    let mut pair = Pair::new([Config { capacity: 2000, ..config(1) }, config(2)]);
    pair.run(SECOND);
    let now = pair.now;
    for port in 0..1200 {
        pair.directors[0].open(conn(10_000 + port), now);
    }
    pair.run(SECOND);
    assert_eq!(pair.directors[1].contents().0.len(), 1000);
    assert!(pair.directors[1].counters().rejected(Rejected::Full) >= 200);
}

#[test]
fn a_config_that_differs_is_told_and_stops_nothing() {
    let mut pair = Pair::new([config(1), Config { fingerprint: 2, ..config(2) }]);
    let now = pair.now;
    pair.directors[0].open(conn(1000), now);
    pair.run(SECOND);
    assert_eq!(pair.directors[1].core.state(), State::Equal);
    assert!(pair.directors.iter().all(|director| director.core.status().peer.unwrap().config_differs));
    let _ = Event::ConfigDiffers(true);
}

fn notice(length: usize, seed: usize) -> Notice {
    Notice::new(&(0..length).map(|at| (at * seed) as u8).collect::<Vec<_>>()).unwrap()
}

/// What a director has to say of other things than conns reaches the peer whole, in any length, over a line that loses
/// and reorders; it is told once, and counts no longer than the peer's session.
#[test]
fn a_notice_arrives_whole_and_is_forgotten_with_its_sender() {
    let mut pair = Pair::new([Config { datagram: 512, ..config(1) }, config(2)]);
    let long = notice(Notice::LONGEST, 7);
    let now = pair.now;
    // Said before there is anybody to hear it.
    pair.directors[0].core.handle(Input::Notice(long.clone()), now);
    pair.run(SECOND);
    assert_eq!(pair.directors[1].notices, [Some(long.clone())]);
    assert!(pair.sent_by(0).iter().all(|bytes| bytes.len() <= 512), "no frame is longer than the line takes");
    pair.run(3 * SECOND);
    assert_eq!(pair.directors[1].notices.len(), 1, "repetitions are no news");
    assert_eq!(pair.directors[0].notices, [], "nobody says anything there");

    // Every third frame is lost.
    let (mut frames, changed) = (0, notice(3000, 11));
    let now = pair.now;
    pair.directors[0].core.handle(Input::Notice(changed.clone()), now);
    pair.run_with(3 * SECOND, |_, _| {
        frames += 1;
        frames % 3 != 0
    });
    assert_eq!(pair.directors[1].notices[1..], [Some(changed.clone())]);

    // The line is away until the peer is taken for gone; the same process goes on afterwards.
    pair.run_with(3 * SECOND, |_, _| false);
    assert_eq!(pair.directors[1].notices[2..], [None]);
    pair.run(2 * SECOND);
    assert_eq!(pair.directors[1].notices[3..], [Some(changed)]);

    // It says goodbye, and is replaced by one that has nothing to say.
    let now = pair.now;
    pair.directors[0].core.handle(Input::Stop, now);
    pair.run(Duration::from_millis(20));
    assert_eq!(pair.directors[1].notices[4..], [None]);
    pair.directors[0] = Director::new(Config { epoch: [77; 16], seed: [78; 32], ..config(1) }, pair.now);
    pair.run(2 * SECOND);
    assert_eq!(pair.directors[1].core.state(), State::Equal);
    assert_eq!(pair.directors[1].notices.len(), 5);
}

/// It may say something without end: conns go on, and nothing grows.
#[test]
fn notices_that_change_all_the_time_hold_up_no_conn() {
    let mut pair = Pair::equal();
    for turn in 0..200 {
        let now = pair.now;
        pair.directors[0].core.handle(Input::Notice(notice(Notice::LONGEST, turn)), now);
        pair.directors[0].open(conn(3000 + turn as u16), now);
        pair.run(Duration::from_millis(10));
    }
    pair.run(SECOND);
    assert_eq!(pair.directors[1].contents().0.len(), 210);
    assert_eq!(pair.directors[1].core.state(), State::Equal);
    assert_eq!(pair.directors[1].notices.last(), Some(&Some(notice(Notice::LONGEST, 199))));
}

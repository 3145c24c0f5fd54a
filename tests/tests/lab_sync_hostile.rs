//! Somebody else on the sync path: records what the directors tell each other and plays it back, as it was and with every
//! bit flipped, from this session and from an older one; greets with another key; floods. Nothing of it changes a conn,
//! each datagram is counted by its cause, and the agents have time left.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_tests::checks::Sessions;
use lb_tests::lab::{Director, Lab, VrrpOptions, now, wait_for};
use lb_tests::survival::Scene;
use lb_userspace::control::protocol::{ConnView, SyncView};
use lb_userspace::sync::{Action, Config, Input, Psk, Replication, Timeouts};

const LIMIT: Duration = Duration::from_secs(30);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 80, 81);
const PORT: u16 = 8848;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
/// Datagrams sent at once: fewer than a socket holds.
const BATCH: usize = 200;

/// A host on the sync path that belongs to nobody.
struct Intruder(UdpSocket);

impl Intruder {
    fn enter(lab: &Lab) -> Result<Self> {
        lab.switch().ip_batch(&format!("addr add {OWN}/24 dev br-sync\nroute add {GROUP} dev br-sync\n"))?;
        lab.switch().enter(|| {
            let socket = UdpSocket::bind((GROUP, PORT))?;
            socket.join_multicast_v4(&GROUP, &OWN)?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(Self(socket))
        })
    }

    /// What is said until `until` has been said often enough.
    fn record(&self, until: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let (mut heard, mut buffer, started) = (Vec::new(), [0; 9000], now());
        while !until(&heard) {
            assert!(started.elapsed() < LIMIT, "{} frames heard", heard.len());
            if let Ok((length, _)) = self.0.recv_from(&mut buffer) {
                heard.push(buffer[..length].to_vec());
            }
        }
        heard
    }

    fn send(&self, datagram: &[u8]) {
        self.0.send_to(datagram, (GROUP, PORT)).unwrap();
    }
}

fn refused(view: &SyncView) -> u64 {
    view.refused.values().sum()
}

/// Sends all of it, and waits until both directors have counted every single datagram.
fn attack(lab: &Lab, intruder: &Intruder, what: &str, datagrams: &[Vec<u8>]) {
    let refused_by = |director: &Director| Ok(refused(&director.peer()?));
    let start = now();
    for batch in datagrams.chunks(BATCH) {
        let before: Vec<u64> = lab.directors().iter().map(refused_by).collect::<Result<_>>().unwrap();
        batch.iter().for_each(|datagram| intruder.send(datagram));
        for (director, before) in lab.directors().iter().zip(before) {
            let counted = || Ok((refused_by(director)? >= before + batch.len() as u64).then_some(()));
            wait_for(&format!("{what}: {} datagrams counted", batch.len()), LIMIT, counted)
                .unwrap_or_else(|error| panic!("{error:#}\n{:?}", director.peer().unwrap().refused));
        }
    }
    println!("{what}: {} datagrams, all counted on both, {:?}", datagrams.len(), start.elapsed());
}

/// Frames of a director that has another key.
fn stranger() -> Vec<Vec<u8>> {
    let config = Config {
        node: 4711,
        epoch: [7; 16],
        seed: [9; 32],
        keys: vec![Psk::new([5; 32])],
        insecure: false,
        fingerprint: 0,
        timeouts: Timeouts::new(|_| Duration::from_secs(60)),
        capacity: 1000,
        ends: 1000,
        datagram: 1400,
        heartbeat: Duration::from_millis(50),
        refresh: Duration::from_secs(1),
    };
    let (start, mut frames) = (now(), Vec::new());
    let mut core = Replication::new(config, start).unwrap();
    core.handle(Input::Scanned, start);
    for tick in 0..50 {
        core.handle_timeout(start + Duration::from_millis(tick * 250));
        while let Some(action) = core.poll_action() {
            if let Action::Send(frame) = action {
                frames.push(frame.to_vec());
            }
        }
    }
    frames
}

fn conns(director: &Director) -> Vec<(String, String, String)> {
    let conns: Vec<ConnView> = director.ctl(&["conns"]).unwrap();
    let mut all: Vec<_> = conns
        .iter()
        .map(|conn| (conn.client.to_string(), conn.destination.to_string(), conn.state.name().to_owned()))
        .collect();
    all.sort();
    all
}

/// The director that said it: the fifth and sixth byte of its header.
fn node(frame: &[u8]) -> &[u8] {
    &frame[4..6]
}

/// Frames of a session, of both directors.
fn are_of_both(frames: &[Vec<u8>]) -> bool {
    let mut said = frames.iter().filter(|frame| !is_greeting(frame)).map(|frame| node(frame));
    said.next().is_some_and(|first| said.any(|other| other != first))
}

/// By the fourth byte of its header.
fn is_greeting(frame: &[u8]) -> bool {
    frame.get(3) == Some(&1)
}

fn flip(frame: &[u8], bit: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[bit / 8] ^= 1 << (bit % 8);
    frame
}

#[test]
fn whoever_is_on_the_sync_path_without_the_key_changes_nothing_and_is_counted() {
    let scene = Scene::up(VrrpOptions::fast(), |agent, sync| (agent, sync)).unwrap();
    let lab = &scene.pair.lab;
    let intruder = Intruder::enter(lab).unwrap();
    // An older session of d2: its agent ends, and another one begins with another epoch.
    let older = intruder.record(|heard| heard.len() >= 20 && are_of_both(heard));
    scene.pair.stop(1).unwrap();
    scene.pair.start(1).unwrap();
    let mut sessions = Sessions::open(lab, 20).unwrap();
    scene.becomes_safe().unwrap();
    let heard = intruder.record(|heard| heard.len() >= 100 && are_of_both(heard));
    // Of each director one, so that either is told what the other one did not say.
    let longest = heard.iter().max_by_key(|frame| frame.len()).unwrap().clone();
    let of_other = |frame: &&Vec<u8>| !is_greeting(frame) && node(frame) != node(&longest);
    let latest = heard.iter().rfind(of_other).expect("a frame of the other director").clone();

    let settled: Vec<_> = lab.directors().iter().map(|director| director.peer().unwrap()).collect();
    let tables: Vec<_> = lab.directors().iter().map(conns).collect();
    let changes = scene.pair.history().unwrap().changes.len();
    // A greeting as it was is authentic: it may be answered, opens nothing, and is none of the frames that are counted.
    let (greetings, heard): (Vec<_>, Vec<_>) = heard.into_iter().partition(|frame| is_greeting(frame));
    let older: Vec<_> = older.into_iter().filter(|frame| !is_greeting(frame)).collect();
    greetings.iter().for_each(|greeting| intruder.send(greeting));
    println!("{} greetings played back", greetings.len());
    attack(lab, &intruder, "replay of this session", &heard);
    attack(lab, &intruder, "replay of an older session", &older);
    let flips = |frame: &[u8]| (0..frame.len() * 8).map(|bit| flip(frame, bit)).collect::<Vec<_>>();
    attack(lab, &intruder, "a bit flipped at every place of a heartbeat", &flips(&latest));
    attack(lab, &intruder, "a bit flipped at every place of the longest frame", &flips(&longest));
    let cut = (1..longest.len()).map(|length| longest[..length].to_vec()).collect::<Vec<_>>();
    attack(lab, &intruder, "cut after every byte", &cut);
    let long = [&longest[..], &[0; 500]].concat();
    attack(lab, &intruder, "longer than it was", &vec![long; 10]);
    let strangers = stranger();
    assert!(strangers.len() > 10);
    attack(lab, &intruder, "another key", &strangers);

    // As fast as it goes. The kernel may drop some; the agents must have time for each other.
    let (cpu, started) = (lab.d2().agent_cpu().unwrap(), now());
    let before = refused(&lab.d2().peer().unwrap());
    let flood = flood(&intruder, &strangers[0], &longest, started + Duration::from_secs(3));
    let busy = lab.d2().agent_cpu().unwrap().saturating_sub(cpu);
    let view = lab.d2().peer().unwrap();
    let counted = refused(&view) - before;
    let share = busy.as_secs_f64() / started.elapsed().as_secs_f64();
    println!("flood: {flood} sent, {counted} counted, {:.0} % of a CPU: {:?}", share * 100.0, view.refused);
    assert!(counted > 1000 && share < 1.0, "one thread, and never all of a CPU");
    let each = busy.as_secs_f64() / counted as f64;
    assert!(each < 50e-6, "{:.1} µs for each datagram of a flood", each * 1e6);

    scene.becomes_safe().unwrap();
    assert_eq!(scene.pair.history().unwrap().changes.len(), changes, "{}", scene.pair.told());
    for ((director, before), table) in lab.directors().iter().zip(&settled).zip(&tables) {
        let after = director.peer().unwrap();
        let entries =
            |view: &SyncView| (view.conns, view.counters.created, view.counters.removed, view.rejected.clone());
        assert_eq!(entries(&after), entries(before), "d{}", director.index() + 1);
        assert_eq!(conns(director), *table);
        println!("d{}: {:?}", director.index() + 1, after.refused);
        for cause in ["replayed", "forged", "unknown key", "unknown session", "not ours", "own node"] {
            assert!(after.refused.contains_key(cause), "nothing counted as {cause}: {:?}", after.refused);
        }
    }
    sessions.answer().unwrap();
}

/// Answers how many were sent.
fn flood(intruder: &Intruder, greeting: &[u8], frame: &[u8], until: Instant) -> u64 {
    let mut sent = 0;
    while now() < until {
        for bit in 0..100 {
            let one = if bit % 2 == 0 { greeting } else { frame };
            // A full queue is what a flood makes.
            let _ = intruder.0.send_to(&flip(one, bit % (one.len() * 8)), (GROUP, PORT));
            sent += 1;
        }
    }
    sent
}

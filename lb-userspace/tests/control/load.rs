//! Many conns, slow readers, many clients: memory stays bounded and nobody waits for somebody else.

use crate::agent::{Agent, command};
use lb_userspace::control::{
    client::Client,
    protocol::{ConnFilter, ErrorCode},
    server::Limits,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
    sync::atomic::Ordering::SeqCst,
    thread::sleep,
    time::Duration,
};

const CONNS: u64 = 200_000;
const LISTING: &[u8] = b"{\"version\":1,\"verb\":\"conns\"}\n";

/// Waits until `done`, at most 20 s.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("not within 20 s: {what}");
}

/// The largest resident memory of a process so far, in KiB.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn lbctl_prints_200_000_conns_in_bounded_memory() {
    let agent = Agent::start(CONNS);
    for (line, around) in [("conns", 2), ("conns -o json", 2)] {
        let mut child = command(line).arg("--socket").arg(&agent.socket).stdout(Stdio::piped()).spawn().unwrap();
        let (mut lines, mut peak) = (0, 0);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            line.unwrap();
            lines += 1;
            if lines % 10_000 == 0 {
                peak = peak_kib(child.id()).unwrap_or(0).max(peak);
            }
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(lines, CONNS + around, "{line}");
        // The whole listing is 60 MiB of JSON.
        assert!((1..16 << 10).contains(&peak), "{line}: {peak} KiB");
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_walk_and_nobody_else() {
    let agent = Agent::start(CONNS);
    let mut slow = UnixStream::connect(&agent.socket).unwrap();
    slow.write_all(LISTING).unwrap();
    let pushed = || agent.sample.pushed.load(SeqCst);
    let mut before = 0;
    wait_until("the walk stands still", || {
        sleep(Duration::from_millis(100));
        let now = pushed();
        std::mem::replace(&mut before, now) == now && now > 0
    });
    // What waits is bounded by the socket's buffer and a few chunks, far from 200,000.
    assert!(before < 5000, "{before} conns wait for a client that does not read");

    // Others are served as if nothing was.
    for _ in 0..20 {
        agent.lbctl("services --timeout 2s").ok();
    }
    let mut client = Client::connect(&agent.socket).unwrap();
    assert_eq!(client.conns(&ConnFilter::default()).unwrap().count() as u64, CONNS);
    assert_eq!(agent.sample.listings.load(SeqCst), 1);

    // The slow one gets everything in the end.
    slow.shutdown(std::net::Shutdown::Write).unwrap();
    let mut last = String::new();
    let lines = BufReader::new(slow).lines().inspect(|line| last.clone_from(line.as_ref().unwrap())).count();
    assert_eq!((lines as u64, last), (CONNS + 1, format!("{{\"end\":true,\"count\":{CONNS}}}")));
}

#[test]
fn a_client_that_never_reads_or_goes_away_ends_its_walk() {
    let agent = Agent::with_limits(CONNS, Limits { stall: Duration::from_millis(200), ..Limits::default() });
    let ended = |n| move |agent: &Agent| agent.sample.listings.load(SeqCst) == n;
    let mut stuck = UnixStream::connect(&agent.socket).unwrap();
    stuck.write_all(LISTING).unwrap();
    wait_until("the stuck client is dropped", || ended(1)(&agent));
    // It is told by the end of the stream, in the middle of a line or not, but never by a false end of the listing.
    let mut rest = String::new();
    stuck.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("\"end\""));

    let mut gone = UnixStream::connect(&agent.socket).unwrap();
    gone.write_all(LISTING).unwrap();
    gone.read_exact(&mut [0; 1000]).unwrap();
    drop(gone);
    wait_until("the walk for a gone client ends", || ended(2)(&agent));
    assert!(agent.sample.pushed.load(SeqCst) < 2 * 5000);
}

#[test]
fn a_limit_ends_the_walk_early() {
    let agent = Agent::start(CONNS);
    let filter = ConnFilter { limit: Some(7), ..ConnFilter::default() };
    let mut client = Client::connect(&agent.socket).unwrap();
    assert_eq!(client.conns(&filter).unwrap().count(), 7);
    assert_eq!(agent.sample.pushed.load(SeqCst), 7);
}

#[test]
fn one_client_too_many_is_told_to_come_back() {
    let agent = Agent::with_limits(0, Limits { clients: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&agent.socket).unwrap()).collect();
    for client in &mut clients {
        client.status().unwrap();
    }
    agent.lbctl("status").fails(1, "the agent already serves 3 clients; try again");
    let error = Client::connect(&agent.socket).unwrap().status().unwrap_err();
    let lb_userspace::control::client::ClientError::Refused(error) = error else { panic!("{error}") };
    assert_eq!(error.code, ErrorCode::Busy);
    clients.pop();
    wait_until("a place is free", || agent.lbctl("status").code == Some(0));
    clients[0].status().unwrap();
}

#[test]
fn stopping_the_agent_ends_running_listings() {
    let mut agent = Agent::start(CONNS);
    let mut stuck = UnixStream::connect(&agent.socket).unwrap();
    stuck.write_all(LISTING).unwrap();
    stuck.read_exact(&mut [0; 1000]).unwrap();
    agent.stop();
    assert_eq!(agent.sample.listings.load(SeqCst), 1);
    assert!(!agent.socket.exists());
}

#[test]
fn hostile_clients_do_not_harm_the_others() {
    let agent = Agent::start(10);
    for input in [&b"\xff\x00\n"[..], &[b'['; 100_000], b"{\"version\":1,\"verb\":\"conns\"", b"\n\n\n\n"] {
        let mut client = UnixStream::connect(&agent.socket).unwrap();
        // The server may close before it has read everything.
        let _ = client.write_all(input);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(String::from_utf8_lossy(&answer).contains("\"code\":\"bad_request\""), "{input:?}");
    }
    agent.lbctl("status").ok();
}

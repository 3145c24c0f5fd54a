//! The life of a conn at its ends: a client that uses its port again at once, and silence that lasts too long.

use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use lb_common::counter::Counter;
use lb_tests::lab::{EchoServer, EchoSession, Lab, LabOptions, Offload, Segment, Tap, addr, now, wait_for};
use lb_tests::packet::{difference, tcp};
use lb_userspace::datapath::{self, Tables};

const MODES: [(&str, Offload); 2] = [("tc", Offload::On), ("xdp", Offload::Off)];
const PORT: u16 = 50_000;
/// A SYN that is lost is sent again after a second: a connection that takes less lost none.
const AT_ONCE: Duration = Duration::from_millis(900);

fn lab(mode: &str, offload: Offload, no_conn: &str, timeouts: &str) -> (Lab, EchoServer) {
    let lab = LabOptions { servers: 1, offload, mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let mut options = lab.agent_options().mode(mode);
    options.extra = format!("[timeouts]\n{timeouts}");
    no_conn.clone_into(&mut options.services[0].no_conn);
    lab.d1().start_agent(&options).unwrap();
    let server = &lab.servers()[0];
    let echo = EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)).unwrap();
    (lab, echo)
}

fn tables(lab: &Lab) -> Tables {
    Tables::open(&datapath::versioned(&lab.d1().pin_directory())).unwrap()
}

/// Conns of the established and of the half-open table.
fn conns(tables: &Tables) -> (usize, usize) {
    let (mut established, mut half_open) = (0, 0);
    tables.conns.for_each_slice(|slice| established += slice.len()).unwrap();
    tables.half_open.for_each_slice(|slice| half_open += slice.len()).unwrap();
    (established.div_ceil(2), half_open.div_ceil(2))
}

fn open(lab: &Lab, number: u64) -> EchoSession {
    let open = || EchoSession::open(addr::SERVICE, number, Duration::from_secs(5));
    lab.client().host().enter(open).unwrap()
}

/// Opens and ends a session again and again from one port; each time the old conn is in the state that `end` leaves.
fn reuse(lab: &Lab, how: &str, rounds: u64, end: impl Fn(EchoSession) + Sync) {
    let tables = tables(lab);
    let reused = || tables.counter(Counter::Reused).unwrap();
    let before = reused();
    let mut slowest = Duration::ZERO;
    let work = || {
        for round in 0..rounds {
            let started = now();
            let session = EchoSession::open_from(PORT, addr::SERVICE, round, Duration::from_secs(5))?;
            slowest = slowest.max(started.elapsed());
            end(session);
        }
        Ok(())
    };
    lab.client().host().enter(work).unwrap_or_else(|error| panic!("{how}: {error:#}"));
    println!("{how}: {rounds} connections from one port, slowest {slowest:.1?}, {} keys taken over", reused() - before);
    assert!(slowest < AT_ONCE, "{how}: {slowest:?}");
    assert!(reused() - before >= rounds - 1, "{how}: {} keys taken over", reused() - before);
}

#[test]
fn a_client_may_use_its_port_again_at_once() {
    const ROUNDS: u64 = 50;
    for (mode, offload) in MODES {
        let (lab, _echo) = lab(mode, offload, "drop", "");
        // The client's kernel forgets its own TIME_WAIT, as one with many connections has to.
        lab.client().host().sysctl("ipv4/tcp_max_tw_buckets", "0").unwrap();
        reuse(&lab, &format!("{mode}: the server closed first"), ROUNDS, |session| {
            session.leave(Duration::from_secs(2)).unwrap();
        });
        // Each begins while the last one of the kind before is still in the table.
        reuse(&lab, &format!("{mode}: the client reset"), ROUNDS, |session| session.reset().unwrap());
        reuse(&lab, &format!("{mode}: the client closed first"), ROUNDS, |session| {
            drop(session);
            // The server's FIN; without it the server itself is not ready for another SYN.
            thread::sleep(Duration::from_millis(20));
        });
        // Taken over, not piled up.
        assert_eq!(conns(&tables(&lab)), (1, 0), "{mode}");
    }
}

#[test]
fn a_silent_conn_goes_and_a_busy_one_stays() {
    for (mode, offload) in MODES {
        let (lab, _echo) = lab(mode, offload, "rst", "established = \"3s\"");
        let tables = tables(&lab);
        let (mut silent, mut busy) = (open(&lab, 1), open(&lab, 2));
        assert_eq!(conns(&tables), (2, 0));
        let started = now();
        let gone = wait_for("the end of the silent conn", Duration::from_secs(15), || {
            busy.talk()?;
            Ok((conns(&tables).0 == 1).then(|| started.elapsed()))
        })
        .unwrap();
        println!("{mode}: silent for 3 s, gone after {gone:.1?}");
        assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&gone), "{gone:?}");
        for _ in 0..50 {
            busy.talk().unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        // Whoever speaks up later is told at once.
        let started = now();
        assert!(silent.talk().is_err(), "{mode}: the conn came back");
        assert!(started.elapsed() < Duration::from_secs(4), "{mode}: {:?}", started.elapsed());
        busy.talk().unwrap();
    }
}

#[test]
fn closed_and_half_open_conns_go_after_their_own_time() {
    for (mode, offload) in MODES {
        let timeouts = "syn_recv = \"2s\"\nfin_wait = \"2s\"\nclose_wait = \"2s\"\ntime_wait = \"2s\"\nclose = \"2s\"";
        let (lab, _echo) = lab(mode, offload, "drop", timeouts);
        let tables = tables(&lab);
        let mut stays = open(&lab, 0);
        for number in 1..=10 {
            let session = open(&lab, number);
            match number % 3 {
                0 => session.reset().unwrap(),
                1 => session.leave(Duration::from_secs(2)).unwrap(),
                _ => drop(session),
            }
        }
        // A server that does not answer leaves the conn half open.
        lab.servers()[0].host().deafen().unwrap();
        let attempt = || Ok(EchoSession::open(addr::SERVICE, 11, Duration::from_millis(500)).is_err());
        assert!(lab.client().host().enter(attempt).unwrap(), "{mode}: a deaf server answered");
        assert_eq!(conns(&tables), (11, 1), "{mode}");
        lab.servers()[0].host().hear_again().unwrap();

        let started = now();
        wait_for("the end of the closed conns", Duration::from_secs(15), || {
            Ok((conns(&tables) == (1, 0)).then_some(()))
        })
        .unwrap();
        println!("{mode}: closed and half-open conns gone after {:.1?}", started.elapsed());
        assert!(started.elapsed() > Duration::from_secs(1), "{mode}: too early");
        stays.talk().unwrap();
    }
}

/// What a packet of a forgotten conn gets with `no_conn = "rst"`: from the VIP, at the number where its sender waits.
#[test]
fn a_packet_without_a_conn_is_answered_with_a_rst_that_its_sender_believes() {
    for (mode, offload) in [("tc", Offload::On), ("xdp", Offload::Off), ("xdp-generic", Offload::Off)] {
        let (lab, _echo) = lab(mode, offload, "rst", "");
        let (client, client_mac) = (lab.client(), addr::link(lab.client().address()));
        client.host().deafen().unwrap();
        let tap = Tap::open(client.host(), "eth0").unwrap();
        let director_mac = addr::link(lab.d1().address(Segment::Client).unwrap());
        for (payload, options) in [(0, 0), (1, 12), (16, 0), (100, 40), (1448, 12)] {
            let lost = tcp().from((client.address(), PORT)).to(addr::SERVICE).seq(5).ack(77).payload(payload);
            let lost = lost.tcp_options(&vec![1; options]).macs(client_mac, director_mac);
            let rst = tcp().from(addr::SERVICE).to((client.address(), PORT)).seq(77).rst().id(0).window(0);
            tap.send(&lost.build().into()).unwrap();
            let answer = tap.receive(Duration::from_secs(2)).unwrap().expect(mode);
            assert_eq!(
                difference(&rst.macs(director_mac, client_mac).build(), &answer.bytes),
                None,
                "{mode}, {payload}"
            );
        }
    }
}

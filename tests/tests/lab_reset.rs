//! Who is told when a conn is over: real sockets at both ends get a RST that they believe, from somebody who is neither of
//! them, and hang on nothing.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use lb_common::conn::FlowKey;
use lb_tests::bench::cpu_time;
use lb_tests::checks::Pair;
use lb_tests::lab::{
    AgentOptions, Director, EchoServer, EchoSession, Lab, LabOptions, Offload, Server, VrrpOptions, addr, now,
    talk_all, wait_for,
};
use lb_userspace::control::protocol::Status;
use lb_userspace::datapath::{self, Ends, Numbers, Scan, Tables};
use lb_userspace::reset::{End, Resetter};
use mysql::prelude::Queryable as _;

const MODES: [(&str, Offload); 2] = [("tc", Offload::On), ("xdp", Offload::Off)];
const PATIENCE: Duration = Duration::from_secs(10);

fn lab(mode: &str, offload: Offload, timeouts: &str) -> (Lab, EchoServer) {
    let lab = LabOptions { servers: 1, offload, mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let mut options = lab.agent_options().mode(mode);
    options.extra = format!("[timeouts]\n{timeouts}");
    lab.d1().start_agent(&options).unwrap();
    let server = &lab.servers()[0];
    let echo = EchoServer::start(server.host(), SocketAddrV4::new(server.address(), addr::MYSQL_PORT)).unwrap();
    (lab, echo)
}

fn open(lab: &Lab, sessions: u64) -> Vec<EchoSession> {
    let open = || (0..sessions).map(|number| EchoSession::open(addr::SERVICE, number, PATIENCE)).collect();
    lab.client().host().enter(open).unwrap()
}

/// Every client's socket says `ECONNRESET`, and so does the server's for each of them.
fn all_are_reset(what: &str, sessions: &mut [EchoSession], echo: &EchoServer, before: usize) {
    for session in sessions.iter_mut() {
        assert_eq!(session.end(PATIENCE).unwrap(), ErrorKind::ConnectionReset, "{what}: a client");
    }
    wait_for("the server's ends", PATIENCE, || Ok((echo.reset() - before == sessions.len()).then_some(())))
        .unwrap_or_else(|error| panic!("{what}: {} of {}: {error:#}", echo.reset() - before, sessions.len()));
}

#[test]
fn both_ends_of_an_idle_conn_are_reset_when_its_time_is_over() {
    const IDLE: u64 = 20;
    for (mode, offload) in MODES {
        // What comes later is dropped: only the director's own RSTs can end these sessions.
        let (lab, echo) = lab(mode, offload, "established = \"3s\"");
        // Nobody has allowed the director to send anything for these conns.
        lab.d1().firewall_default_drop().unwrap();
        let mut idle = open(&lab, IDLE);
        let mut busy = open(&lab, 1).remove(0);
        // Ends that have heard and said different amounts.
        for (rounds, session) in idle.iter_mut().enumerate() {
            (0..rounds).for_each(|_| session.talk().unwrap());
        }
        assert_eq!((echo.open(), echo.reset()), (IDLE as usize + 1, 0), "{mode}");
        let started = now();
        while started.elapsed() < Duration::from_secs(6) {
            busy.talk().unwrap();
            thread::sleep(Duration::from_millis(200));
        }
        all_are_reset(mode, &mut idle, &echo, 0);
        busy.talk().unwrap();
        assert_eq!(echo.open(), 1, "{mode}");
        assert_eq!(lab.d1().firewall_drops().unwrap(), 0, "{mode}: the firewall saw a packet of a conn");
        println!("{mode}: {IDLE} idle conns, both ends reset; a busy one goes on");
    }
}

/// As the agent has them reset.
fn ends(conn: &Ends) -> [End; 2] {
    let end = |flow: FlowKey, own: Numbers, other: Numbers| End { flow, acked: own.ack, sent: other.seq };
    [end(conn.forward.swapped(), conn.client, conn.backend), end(conn.reverse.swapped(), conn.backend, conn.client)]
}

#[test]
fn a_thousand_conns_of_one_backend_are_reset_at_once() {
    const SESSIONS: u64 = 1000;
    let (lab, echo) = lab("tc", Offload::On, "");
    let tables = Tables::open(&datapath::versioned(&lab.d1().pin_directory())).unwrap();
    let mut sessions = open(&lab, SESSIONS);
    // In the middle of a conversation: some ends have not acknowledged yet what they got.
    assert_eq!(talk_all(&mut sessions).0, SESSIONS as usize);

    let resetter = lab.d1().host().enter(|| Ok(Resetter::open()?)).unwrap();
    let (started, cpu) = (now(), cpu_time().unwrap());
    let (mut scan, mut found) = (Scan::new(), Vec::new());
    while let Some(slice) = tables.next_conns_of(0, &mut scan).unwrap() {
        found.extend(slice.iter().flat_map(ends));
    }
    let searched = started.elapsed();
    let sent = resetter.reset(&found);
    println!(
        "{} ends found in {searched:.1?}, {} segments sent in {:.1?}; {:.1?} of CPU, the receivers' share included",
        found.len(),
        sent.segments,
        started.elapsed() - searched,
        cpu_time().unwrap() - cpu
    );
    assert_eq!((found.len() as u64, sent.unknown, sent.refused), (2 * SESSIONS, 0, 0), "{:?}", sent.error);

    all_are_reset("a thousand", &mut sessions, &echo, 0);
    assert_eq!(echo.open(), 0);
}

/// Waits until the checks of a director say so of a server.
fn until(director: &Director, server: &Server, state: &str) {
    let at = SocketAddrV4::new(server.address(), addr::MYSQL_PORT);
    let is_so = |status: Status| status.checks.iter().any(|check| check.address == at && check.state == state);
    wait_for(state, PATIENCE, || Ok(is_so(director.ctl(&["status"])?).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", director.agent_log().unwrap()));
}

/// Established sockets of the server's kernel towards the client, whatever becomes of the process that has them.
fn sockets(lab: &Lab, server: &Server) -> usize {
    let hex = |address: std::net::Ipv4Addr, port: u16| format!("{:08X}:{port:04X}", address.to_bits().swap_bytes());
    let local = hex(server.address(), addr::MYSQL_PORT);
    let remote = hex(lab.client().address(), 0);
    let table = server.host().check(&["cat", "/proc/net/tcp"]).unwrap();
    let is_ours = |line: &&str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.len() > 3 && fields[1] == local && fields[2][..8] == remote[..8] && fields[3] == "01"
    };
    table.lines().filter(is_ours).count()
}

/// A server that is only wedged, and one whose host was cut off and comes back after the directors have changed places:
/// the server's ends go, too, and nobody waits for the server's own timeouts.
#[test]
fn the_ends_of_a_wedged_or_returning_server_are_reset_by_whoever_knows_them() {
    const SESSIONS: usize = 20;
    let lab = LabOptions { directors: 2, ..LabOptions::default() }.up().unwrap();
    let check = "[service.check]\nlevel = \"greeting\"\ninter = \"300ms\"\nfastinter = \"200ms\"\ntimeout = \"500ms\"";
    let agent = AgentOptions { check: check.to_owned(), ..lab.agent_options() };
    let pair = Pair::of(lab, VrrpOptions::fast(), agent).unwrap().synced().unwrap();
    let (lab, d1, d2) = (&pair.lab, pair.director(0), pair.director(1));
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    pair.start(0).unwrap();
    pair.gets(0).unwrap();
    pair.start(1).unwrap();
    for director in [d1, d2] {
        until(director, rs1, "up");
        until(director, rs2, "up");
    }
    let open = || (0..SESSIONS).map(|_| lab.client().connect(addr::SERVICE).unwrap()).collect::<Vec<_>>();
    let answer =
        |open: &mut [mysql::Conn]| open.iter_mut().filter_map(|session| session.query_drop("SELECT 1").ok()).count();
    let gone = |what: &str| {
        wait_for(what, PATIENCE, || Ok((sockets(lab, rs1) == 0).then_some(())))
            .unwrap_or_else(|error| panic!("{error:#}: {} are left", sockets(lab, rs1)));
    };

    let mut sessions = open();
    assert_eq!(sockets(lab, rs1), SESSIONS / 2);
    rs1.freeze().unwrap();
    let frozen = now();
    until(d1, rs1, "down");
    // Its kernel lives, and is told at once; the process learns of it when it wakes.
    gone("ends of a frozen server");
    println!("frozen: {} ends reset {:.1?} later, while it is frozen", SESSIONS / 2, frozen.elapsed());
    assert_eq!(answer(&mut sessions), SESSIONS / 2);
    rs1.thaw().unwrap();
    for director in [d1, d2] {
        until(director, rs1, "up");
    }
    drop(sessions);
    wait_for("everybody to leave", PATIENCE, || Ok((sockets(lab, rs1) + sockets(lab, rs2) == 0).then_some(())))
        .unwrap();

    let mut sessions = open();
    assert_eq!(sockets(lab, rs1), SESSIONS / 2);
    rs1.host().ip_batch("link set eth0 down\n").unwrap();
    for director in [d1, d2] {
        until(director, rs1, "down");
    }
    assert_eq!(answer(&mut sessions), SESSIONS / 2);
    assert_eq!(sockets(lab, rs1), SESSIONS / 2, "it heard nothing");
    d1.ctl_text(&["failover"]).unwrap();
    pair.takes(1).unwrap();
    rs1.host().ip_batch("link set eth0 up\n").unwrap();
    let back = now();
    gone("ends of a server that is back");
    println!("back, with the other director Active: {} ends reset {:.1?} later", SESSIONS / 2, back.elapsed());
    until(d2, rs1, "up");
    assert_eq!(answer(&mut sessions), SESSIONS / 2, "the others never noticed");
}

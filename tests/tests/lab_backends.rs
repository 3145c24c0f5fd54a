//! What the checks do to the traffic: real agents, real MariaDB servers, real sessions.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_common::tcp::State;
use lb_tests::{
    health,
    lab::{
        AgentOptions, Director, EchoServer, EchoSession, Lab, LabOptions, MariadbOptions, Server, addr, binary, now,
        talk_all, wait_for,
    },
};
use lb_userspace::control::protocol::{CheckView, ConnView, Status};
use mysql::prelude::Queryable;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket},
};

const LIMIT: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Twice as fast as the defaults, so that a verdict takes a second.
const PACE: &str = "inter = \"300ms\"\nfastinter = \"200ms\"\ndowninter = \"300ms\"\ntimeout = \"500ms\"\n";

fn options(lab: &Lab, level: &str, keys: &[&str]) -> AgentOptions {
    let file = health::password_file(lab.d1().host(), health::PASSWORD).unwrap();
    let login = format!("user = {:?}\npassword_file = {:?}\n", health::USER, file.display().to_string());
    AgentOptions {
        check: format!("[service.check]\nlevel = {level:?}\n{login}{PACE}relogin = \"1s\""),
        backend_keys: keys.iter().map(|&keys| keys.to_owned()).collect(),
        ..lab.agent_options()
    }
}

fn lab(servers: usize) -> Lab {
    let lab = LabOptions { servers, mariadb: Some(MariadbOptions::default()), ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    for server in lab.servers() {
        let (user, password) = (health::USER, health::PASSWORD);
        server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    }
    lab
}

fn address(server: &Server) -> SocketAddrV4 {
    SocketAddrV4::new(server.address(), 3306)
}

fn check(director: &Director, server: &Server) -> CheckView {
    let status: Status = director.ctl(&["status"]).unwrap();
    status.checks.into_iter().find(|check| check.address == address(server)).unwrap()
}

fn until(director: &Director, server: &Server, state: &str) -> CheckView {
    let found = wait_for(&format!("{} to be {state}", server.address()), LIMIT, || {
        Ok(Some(check(director, server)).filter(|check| check.state == state))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {:#?}\n{}", check(director, server), director.agent_log().unwrap()))
}

/// Sessions through the VIP, each with the server that answers it.
fn sessions(lab: &Lab, count: usize) -> Vec<(mysql::Conn, u32)> {
    let open = || {
        let mut session = lab.client().connect(addr::SERVICE).unwrap();
        let id: u32 = session.query_first("SELECT @@server_id").unwrap().unwrap();
        (session, id)
    };
    (0..count).map(|_| open()).collect()
}

/// Which server new sessions reach.
fn reached(lab: &Lab, count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = sessions(lab, count).into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Application sessions that a server knows of.
fn known_to(server: &Server) -> usize {
    server.processlist().unwrap().iter().filter(|session| session.user == addr::USER).count()
}

#[test]
fn a_wedged_server_loses_its_sessions_on_both_ends_and_gets_new_ones_when_it_wakes() {
    let lab = lab(2);
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let d1 = lab.d1();
    for server in [rs1, rs2] {
        server.sql("SET GLOBAL wait_timeout = 600").unwrap();
        server.sql("SET GLOBAL interactive_timeout = 900").unwrap();
    }
    let agent = options(&lab, "auth", &["max_conn = \"auto\""]);
    d1.start_agent(&AgentOptions { extra: "[timeouts]\nestablished = \"auto\"".into(), ..agent }).unwrap();
    until(d1, rs1, "up");
    until(d1, rs2, "up");
    let mut open = sessions(&lab, 100);
    assert_eq!(open.iter().filter(|(_, id)| *id == rs1.id()).count(), 50);

    // The check's own connection is kept, and it is not among the balanced ones.
    let conns: Vec<ConnView> = d1.ctl(&["conns"]).unwrap();
    assert_eq!(conns.len(), 100);

    rs1.freeze().unwrap();
    let frozen = now();
    let down = until(d1, rs1, "down");
    println!("wedged: down after {:?}: {}", frozen.elapsed(), down.cause);
    assert!(down.cause.contains("wedged") || down.cause.contains("no answer"), "{}", down.cause);
    // Every session of the dead one is reset although nobody says anything in it; the others live.
    let (mut lost, mut kept) = (0, 0);
    for (session, id) in &mut open {
        let asked = now();
        match session.query_first::<u32, _>("SELECT 1") {
            Ok(_) => kept += 1,
            Err(error) => {
                assert_eq!(*id, rs1.id(), "{error}");
                // Who is not told waits for the answer until the patience of a session is over.
                assert!(asked.elapsed() < ms(5000), "it hung for {:?}", asked.elapsed());
                lost += 1;
            }
        }
    }
    assert_eq!((lost, kept), (50, 50));
    // New ones go elsewhere.
    assert_eq!(reached(&lab, 6), [rs2.id()]);
    drop(open);

    rs1.thaw().unwrap();
    until(d1, rs1, "up");
    // The RSTs waited for it.
    wait_for("the server's ends to be gone", LIMIT, || Ok((known_to(rs1) == 0).then_some(()))).unwrap();
    assert_eq!(reached(&lab, 6), [rs2.id(), rs1.id()]);

    // The checks read it with their next login.
    rs1.sql("SET GLOBAL max_connections = 40").unwrap();
    let told =
        |most| move |check: &CheckView| check.server.as_ref().and_then(|server| server.max_connections) == Some(most);
    wait_for("the new limit", LIMIT, || Ok(Some(check(d1, rs1)).filter(told(40)))).unwrap();
    // What the server allows is known, and followed.
    let facts = check(d1, rs1).server.unwrap();
    assert_eq!((facts.wait_timeout_seconds, facts.max_connections), (Some(900), Some(40)));
    // Of 40 connections four are for checks and operators.
    rs2.stop().unwrap();
    until(d1, rs2, "down");
    let mut all = sessions(&lab, 36);
    let conns: Vec<ConnView> = d1.ctl(&["conns", "--state", "ESTABLISHED"]).unwrap();
    assert_eq!(conns.len(), 36, "nothing is left of what was reset: {conns:?}");
    assert!(conns.iter().all(|conn| (900..=960).contains(&conn.expires_seconds)), "{conns:?}");
    let refused = lab.client().connect(addr::SERVICE).map(drop).unwrap_err();
    println!("max_conn = \"auto\": 36 of 40, then {refused:#}");
    assert_eq!(check(d1, rs1).state, "up", "neither full nor dead");
    all.truncate(35);
    wait_for("room", LIMIT, || Ok(lab.client().connect(addr::SERVICE).ok())).unwrap();
    drop(all);

    // The password is nowhere but in its file.
    rs1.sql(&format!("ALTER USER {}@'192.168.80.%' IDENTIFIED BY 'another'", health::USER)).unwrap();
    wait_for("access denied", LIMIT, || Ok(check(d1, rs1).trouble)).unwrap();
    assert_eq!(check(d1, rs1).state, "up", "the verdict stays");
    let pid = d1.agent_pid().unwrap();
    let mut seen = d1.agent_log().unwrap();
    for form in [&["status"][..], &["status", "-o", "json"], &["services", "-o", "json"]] {
        seen += &d1.ctl_text(form).unwrap();
    }
    for file in ["cmdline", "environ"] {
        seen += &String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap());
    }
    for map in ["services", "backends", "control"] {
        let path = d1.pin_directory().join(format!("v1/{map}"));
        seen += &d1.host().check(&["bpftool", "map", "dump", "pinned", &path.display().to_string()]).unwrap();
    }
    // All that the agent and its logs left behind, and what it says of a file with the password in the wrong place.
    let config = d1.host().directory().join("agent.toml");
    let wrong = d1.host().directory().join("wrong.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let keys = format!("password = \"{0}\"\npass = {0}\npassword_file = \"{0}\"\n", health::PASSWORD);
    std::fs::write(
        &wrong,
        text.replace("password_file", "passwd_file").replace("[service.check]\n", &format!("[service.check]\n{keys}")),
    )
    .unwrap();
    for file in [&config, &wrong] {
        let mut command = d1.host().command(binary("lb-agent").unwrap()).unwrap();
        let output = command.args(["check", "--config"]).arg(file).output().unwrap();
        seen += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    std::fs::remove_file(&wrong).unwrap();
    for file in std::fs::read_dir(d1.host().directory()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() && file.file_name() != Some("check.pw".as_ref()) {
            seen += &String::from_utf8_lossy(&std::fs::read(&file).unwrap());
        }
    }
    assert!(seen.contains("unknown key `password`"), "{seen}");
    assert!(seen.contains("1045") && seen.contains(health::USER), "{seen}");
    assert!(!seen.contains(health::PASSWORD), "the password leaked");
}

#[test]
fn drain_disable_kill_and_the_backup_do_what_the_operator_wants() {
    let lab = lab(3);
    let [rs1, rs2, rs3] = lab.servers() else { panic!("three servers") };
    let d1 = lab.d1();
    d1.start_agent(&options(&lab, "auth", &["", "", "backup = true"])).unwrap();
    for server in [rs1, rs2] {
        until(d1, server, "up");
    }
    until(d1, rs3, "standby");
    let lbctl = |words: &[&str]| d1.ctl_text(words).unwrap();
    let [a1, a2] = [rs1, rs2].map(|server| address(server).to_string());

    let mut open = sessions(&lab, 20);
    let answered = |open: &mut [(mysql::Conn, u32)], id: u32| {
        let of = open.iter_mut().filter(|(_, of)| *of == id);
        of.filter_map(|(session, _)| session.query_first::<u32, _>("SELECT 1").ok()).count()
    };
    const DEADLINE: Duration = Duration::from_secs(4);
    let drained = now();
    let answer = lbctl(&["backend", "drain", &a1, "--deadline", "4s"]);
    println!("{}", answer.trim());
    assert!(answer.contains("10 conns left, the oldest"), "{answer}");
    assert_eq!(reached(&lab, 4), [rs2.id()]);
    assert_eq!(answered(&mut open, rs1.id()), 10, "they go on");
    assert_eq!(until(d1, rs1, "draining").left.map(|left| left.conns), Some(10));
    // The next agent keeps the appointment.
    d1.kill_agent().unwrap();
    d1.restart_agent().unwrap();
    assert!(until(d1, rs1, "draining").deadline_seconds.is_some_and(|left| left < 4));
    wait_for("the deadline", LIMIT, || Ok((known_to(rs1) == 0).then_some(()))).unwrap();
    let took = drained.elapsed();
    println!("a drain of {DEADLINE:?} over a restart of the agent: the rest reset after {took:?}");
    assert!(took >= DEADLINE - ms(100), "{took:?}");
    assert_eq!((answered(&mut open, rs1.id()), answered(&mut open, rs2.id())), (0, 10));
    lbctl(&["backend", "enable", &a1]);
    until(d1, rs1, "up");

    // Nobody of the first tier is left: the backup takes over, and gives nothing back but new conns.
    lbctl(&["backend", "disable", &a1]);
    lbctl(&["backend", "disable", &a2]);
    assert_eq!(reached(&lab, 4), [rs3.id()]);
    let mut on_backup = sessions(&lab, 4);
    assert_eq!(answered(&mut open, rs2.id()), 10, "disabled, not killed");
    // It outlives the agent.
    d1.kill_agent().unwrap();
    d1.restart_agent().unwrap();
    assert_eq!(check(d1, rs1).state, "disabled");
    assert_eq!(reached(&lab, 4), [rs3.id()]);
    lbctl(&["backend", "enable", &a1]);
    assert_eq!(reached(&lab, 4), [rs1.id()]);
    assert_eq!(answered(&mut on_backup, rs3.id()), 4);

    lbctl(&["backend", "kill", &a2]);
    wait_for("the killed sessions' ends", LIMIT, || Ok((known_to(rs2) == 0).then_some(()))).unwrap();
    assert_eq!((answered(&mut open, rs2.id()), answered(&mut on_backup, rs3.id())), (0, 4));
    let conns: Vec<ConnView> = d1.ctl(&["conns", "--backend", &a2]).unwrap();
    // Those that ended before are remembered for their time.
    assert!(conns.iter().all(|conn| conn.state == State::TimeWait), "{conns:?}");
    println!("{}", lbctl(&["status"]));
}

#[test]
fn a_server_that_comes_back_gets_its_share_step_by_step() {
    let lab = lab(2);
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let d1 = lab.d1();
    const RAMP: Duration = Duration::from_secs(8);
    d1.start_agent(&options(&lab, "auth", &["slow_start = \"8s\""])).unwrap();
    until(d1, rs1, "up");
    until(d1, rs2, "up");
    rs1.stop().unwrap();
    until(d1, rs1, "down");
    rs1.start().unwrap();
    until(d1, rs1, "up");
    let started = now();
    let share = || {
        let work = lab.client().many_connections(80, 1, 4).unwrap();
        assert_eq!(work.failed_connections, 0, "{:?}", work.errors);
        *work.by_backend.get(&rs1.address()).unwrap_or(&0)
    };
    let mut shares: Vec<(Duration, u64)> = Vec::new();
    while started.elapsed() < RAMP {
        shares.push((started.elapsed(), share()));
        thread::sleep(ms(700));
    }
    wait_for("the whole share", LIMIT, || Ok((check(d1, rs1).warm_percent == 100).then_some(()))).unwrap();
    let last = share();
    println!("of 80 new sessions each: {shares:?}, then {last}");
    assert_eq!(last, 40);
    // Half of the ramp behind it, a share of x/(1+x): at most a third; the machine may be slow, so only the order counts.
    let (first, middle) = (shares[0].1, shares[shares.len() / 2].1);
    assert!(first < 25 && first <= middle && middle < 40, "{shares:?}");
}

/// Connects `count` times at once and says something in every session that comes to be: the sessions, and how many were
/// refused or reset.
fn rush(address: SocketAddrV4, count: usize) -> Result<(Vec<TcpStream>, usize)> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let stream =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        match connect(stream.as_raw_fd(), &SockaddrIn::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => open.push((TcpStream::from(stream), false)),
            Err(errno) => return Err(errno.into()),
        }
    }
    let (mut served, mut refused, end) = (Vec::new(), 0, now() + LIMIT);
    while !open.is_empty() && now() < end {
        thread::sleep(ms(5));
        let mut waiting = Vec::with_capacity(open.len());
        for (mut stream, asked) in open {
            let state = if asked { stream.read(&mut [0; 64]) } else { stream.write(&[1; 16]) };
            match state {
                Ok(0) => refused += 1,
                Ok(_) if asked => served.push(stream),
                Ok(_) => waiting.push((stream, true)),
                // The handshake runs, or the answer is not there yet.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    waiting.push((stream, asked));
                }
                Err(_) => refused += 1,
            }
        }
        open = waiting;
    }
    ensure!(open.is_empty(), "{} neither served nor refused; {} served, {refused} refused", open.len(), served.len());
    Ok((served, refused))
}

/// The servers count, not we: never one more than the limit, at no moment.
#[test]
fn of_five_thousand_that_come_at_once_a_backend_gets_as_many_as_it_may_have() {
    const CROWD: usize = 5000;
    const MOST: usize = 100;
    let lab = LabOptions { mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let d1 = lab.d1();
    let backend_keys = vec![format!("max_conn = {MOST}"); 2];
    d1.start_agent(&AgentOptions { backend_keys, ..lab.agent_options() }).unwrap();
    let servers: Vec<EchoServer> =
        lab.servers().iter().map(|server| EchoServer::start(server.host(), address(server)).unwrap()).collect();
    let began = now();
    let (mut served, refused) = lab.client().host().enter(|| rush(addr::SERVICE, CROWD)).unwrap();
    let most: Vec<usize> = servers.iter().map(EchoServer::most).collect();
    println!(
        "{CROWD} at once: {} served, {refused} told so, in {:?}; at most {most:?} at a server",
        served.len(),
        began.elapsed()
    );
    assert_eq!(served.len() + refused, CROWD);
    assert!(most.iter().all(|most| *most <= MOST), "{most:?}");
    // Two that want the last place may both be refused it: then it is for the next one.
    let again = lab.client().host().enter(|| rush(addr::SERVICE, 50)).unwrap();
    assert_eq!(served.len() + again.0.len(), 2 * MOST, "{} of 50 more", again.0.len());
    assert!(servers.iter().all(|server| server.most() == MOST), "{most:?}");
    // Who leaves makes room for exactly one.
    served.truncate(served.len() - 10);
    wait_for(
        "room",
        LIMIT,
        || Ok((servers.iter().map(EchoServer::open).sum::<usize>() <= 2 * MOST - 10).then_some(())),
    )
    .unwrap();
    let (later, _) = lab.client().host().enter(|| rush(addr::SERVICE, 50)).unwrap();
    assert_eq!(later.len(), 10);
    assert!(servers.iter().all(|server| server.most() == MOST), "{most:?}");
}

/// A host that is cut off without a word: only the director can tell its clients.
#[test]
fn ten_thousand_sessions_of_a_dead_host_are_reset_within_a_second_of_the_verdict() {
    const SESSIONS: u64 = 10_000;
    let lab = LabOptions { mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let d1 = lab.d1();
    let section = format!("[service.check]\nlevel = \"tcp\"\n{PACE}");
    d1.start_agent(&AgentOptions { check: section, ..lab.agent_options() }).unwrap();
    let echo = |server: &Server| EchoServer::start(server.host(), address(server)).unwrap();
    let (one, two) = (echo(rs1), echo(rs2));
    until(d1, rs1, "up");
    until(d1, rs2, "up");
    let second = address(rs2).to_string();
    d1.ctl_text(&["backend", "disable", &second]).unwrap();
    let open = |count| {
        let open = || (0..count).map(|number| EchoSession::open(addr::SERVICE, number, LIMIT)).collect();
        lab.client().host().enter(open).unwrap()
    };
    let mut dead: Vec<EchoSession> = open(SESSIONS);
    let busy = dead.split_off((SESSIONS - SESSIONS / 10) as usize);
    d1.ctl_text(&["backend", "enable", &second]).unwrap();
    d1.ctl_text(&["backend", "disable", &address(rs1).to_string()]).unwrap();
    let mut living: Vec<EchoSession> = open(100);
    assert_eq!((one.open() as u64, two.open()), (SESSIONS, 100));
    d1.ctl_text(&["backend", "enable", &address(rs1).to_string()]).unwrap();
    // Nine of ten say nothing; the rest talk until the end.
    let (cutting, cut_off) = mpsc::channel::<()>();
    let talker = thread::spawn(move || {
        let mut busy = busy;
        let mut talks = 0;
        while cut_off.try_recv() == Err(TryRecvError::Empty) {
            talks += talk_all(&mut busy).0;
        }
        let over = busy.iter_mut().map(|session| session.talk().or_else(|_| session.talk()));
        (talks, over.filter(Result::is_err).count())
    });
    thread::sleep(ms(200));
    rs1.host().ip_batch("link set eth0 down\n").unwrap();
    let cut = now();
    let down =
        wait_for("the verdict", LIMIT, || Ok(Some(check(d1, rs1)).filter(|check| check.state == "down"))).unwrap();
    let verdict = now();
    for (number, session) in dead.iter_mut().enumerate() {
        let end = session.end(LIMIT).unwrap_or_else(|error| panic!("session {number}: {error:#}"));
        assert_eq!(end, ErrorKind::ConnectionReset, "session {number}");
    }
    let took = verdict.elapsed();
    drop(cutting);
    let (talks, over) = talker.join().unwrap();
    assert!(talks as u64 > SESSIONS / 10 && over as u64 == SESSIONS / 10, "{talks} talks, then {over} ended");
    println!("cut off: {} after {:?}; {SESSIONS} clients reset within {took:?} of it", down.cause, verdict - cut);
    assert_eq!(talk_all(&mut living).0, 100, "the others never noticed");
    // The goal is a second; a machine with other work gets room.
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Who reconnects is served, from whatever port.
    let mut again = open(SESSIONS / 10);
    assert_eq!(talk_all(&mut again).0, again.len());
    assert_eq!(one.reset(), 0, "it heard nothing yet");
    drop(again);
    // The host is back: its own ends are told at last.
    rs1.host().ip_batch("link set eth0 up\n").unwrap();
    until(d1, rs1, "up");
    let up = now();
    wait_for("the server's ends to be reset", LIMIT, || Ok((one.reset() as u64 == SESSIONS).then_some(()))).unwrap();
    println!("back: the server's {SESSIONS} ends reset within {:?}", up.elapsed());
    assert_eq!(talk_all(&mut living).0, 100, "the others never noticed");
}

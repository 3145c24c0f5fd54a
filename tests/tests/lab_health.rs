//! Checks of real MariaDB servers, from a director's own network, without an agent: levels and logins, each verdict, and the
//! way back. What clients of the VIP live through is in `lab_illness`.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_tests::{
    checks::at_length,
    health::{self, Act, Checks, break_off, drip, garbage, linger, longest, scripted},
    lab::{AgentOptions, Lab, LabOptions, MariadbOptions, Segment, Server, ServiceOptions, addr, wait_for},
};
use lb_userspace::{
    control::protocol::Status,
    health::{Cadence, Condition, Level, Plan, Tls},
};
use mysql::prelude::Queryable as _;
use nix::sys::signal::Signal;

/// A user that MariaDB lets in by ed25519 only.
const ED25519: &str = "lb_ed25519";
const LIMIT: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Five times as fast as the defaults.
fn cadence() -> Cadence {
    Cadence { inter: ms(200), fastinter: ms(100), downinter: ms(200), timeout: ms(300), rise: 2, fall: 3, jitter: 10 }
}

/// Servers that look names up, so that they keep a host cache, and that block a host after its first broken login.
fn lab() -> Lab {
    let extra = ["--max-connect-errors=1", "--log-bin", "--gtid-strict-mode=ON"];
    let options = MariadbOptions {
        performance_schema: true,
        resolve_names: true,
        ed25519: true,
        extra: extra.map(str::to_owned).to_vec(),
    };
    let lab = LabOptions { clients: 0, mariadb: Some(options), ..LabOptions::default() }.up().unwrap();
    for server in lab.servers() {
        create_user(server).unwrap();
    }
    lab
}

fn create_user(server: &Server) -> Result<()> {
    let (user, password) = (health::USER, health::PASSWORD);
    server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'"))?;
    server.sql(&format!("GRANT SLAVE MONITOR ON *.* TO {user}@'192.168.80.%'"))?;
    server.sql(&format!("CREATE USER {ED25519}@'192.168.80.%' IDENTIFIED VIA ed25519 USING PASSWORD('{password}')"))?;
    Ok(())
}

fn plan(lab: &Lab, level: Level, condition: Condition) -> Plan {
    Plan {
        level,
        cadence: cadence(),
        user: Some(health::USER.into()),
        password_file: Some(health::password_file(lab.d1().host(), health::PASSWORD).unwrap()),
        tls: Tls::Prefer,
        condition,
        relogin: ms(500),
        ..Plan::default()
    }
}

fn address(server: &Server) -> SocketAddrV4 {
    SocketAddrV4::new(server.address(), 3306)
}

/// What the server has against this host, and how many logins it never saw the end of.
fn grudges(server: &Server) -> (String, String) {
    let aborted = server.sql("SHOW GLOBAL STATUS LIKE 'Aborted_connects'").unwrap();
    let errors = server
        .sql("SELECT COALESCE(SUM(SUM_CONNECT_ERRORS + COUNT_HANDSHAKE_ERRORS), 0) FROM performance_schema.host_cache")
        .unwrap();
    (aborted[0][1].clone(), errors[0][0].clone())
}

#[test]
fn by_every_level_and_login_the_verdict_is_right_and_there_is_a_way_back() {
    let lab = lab();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let d1 = lab.d1().host();
    let auth = plan(&lab, Level::Auth, Condition::default());
    let checks = Checks::start(
        d1,
        &[
            (address(rs1), auth.clone()),
            (address(rs2), plan(&lab, Level::Query, Condition { writable: true, ..Condition::default() })),
            (address(rs1), Plan { level: Level::Tcp, ..auth.clone() }),
            (SocketAddrV4::new(rs1.address(), 3307), auth.clone()),
            (address(rs2), Plan { user: Some(ED25519.into()), ..auth.clone() }),
        ],
        None,
    )
    .unwrap();
    let up = |backend: usize, what: &str| checks.until(backend, what, LIMIT, |h| h.up && !h.full).unwrap();
    let promise = cadence().inter + cadence().detection();
    let down = |backend: usize, what: &str, cause: &str| {
        let found = checks.until(backend, what, LIMIT, |h| !h.up && h.cause.contains(cause)).unwrap();
        println!("{what}: down after {:?} (at most {promise:?} by the cadence): {}", found.1, found.0.cause);
    };

    for backend in [0, 1, 2, 4] {
        up(backend, "the first pass");
        assert_eq!(checks.changes(backend).len(), 1, "up with the first pass: {}", checks.story(backend));
    }
    down(3, "nothing listens", "refused");
    let facts = checks.view(0).unwrap().facts.unwrap();
    assert!(facts.version.contains("MariaDB"), "{facts:?}");
    assert_eq!((facts.wait_timeout, facts.max_connections), (Some(Duration::from_secs(28_800)), Some(2000)));

    rs1.kill9().unwrap();
    down(0, "killed", "refused");
    down(2, "killed, seen by TCP alone", "refused");
    rs1.start().unwrap();
    up(0, "started again");
    up(2, "started again, TCP");

    // Frozen long enough for many checks: the kernel accepts, nobody greets.
    let before = grudges(rs1);
    rs1.freeze().unwrap();
    down(0, "frozen", "wedged");
    thread::sleep(ms(1500));
    rs1.thaw().unwrap();
    up(0, "thawed");
    assert_eq!(grudges(rs1), before, "a frozen server has nothing against us when it wakes");

    let firewall = |verdict| health::firewall(rs1.host(), verdict).unwrap();
    firewall(Some("drop"));
    down(0, "filtered", "no answer to the TCP handshake");
    down(2, "filtered, TCP", "no answer to the TCP handshake");
    firewall(None);
    up(0, "no longer filtered");
    rs2.sql("SET GLOBAL read_only = 1").unwrap();
    down(1, "read only", "not writable: read_only = 1");
    rs2.sql("SET GLOBAL read_only = 0").unwrap();
    up(1, "writable again");

    // The limit is reached by others; the check's own connection is one of those that are in.
    let before = checks.changes(0).len();
    rs1.sql("SET GLOBAL max_connections = 10").unwrap();
    // Root is let in beyond the limit, so somebody without privileges has to fill it.
    let (user, password) = (addr::USER, addr::PASSWORD);
    rs1.sql(&format!("CREATE OR REPLACE USER {user}@localhost IDENTIFIED BY '{password}'")).unwrap();
    let crowd = health::crowd(&rs1.socket(), user, password, LIMIT).unwrap();
    let (health, took) = checks.until(0, "too many connections", LIMIT, |h| h.full).unwrap();
    println!("full after {took:?}");
    assert!(health.up, "full is not dead");
    drop(crowd);
    up(0, "room again");
    assert_eq!(checks.changes(0).len(), before + 2, "never down: {}", checks.story(0));
    rs1.sql("SET GLOBAL max_connections = 2000").unwrap();

    let trouble = |what: &str, text: &str| {
        let found =
            checks.until(0, what, LIMIT, |h| h.trouble.as_ref().is_some_and(|t| t.text().contains(text))).unwrap();
        assert!(found.0.up, "{what}: the verdict stays: {}", checks.story(0));
        println!("{what} after {:?}: {}", found.1, found.0.trouble.unwrap().text());
    };
    let alter = |password: &str| {
        rs1.sql(&format!("ALTER USER {}@'192.168.80.%' IDENTIFIED BY '{password}'", health::USER)).unwrap();
    };
    alter("another one");
    trouble("access denied", "1045");
    alter(health::PASSWORD);
    checks.until(0, "the password is right again", LIMIT, |h| h.trouble.is_none()).unwrap();

    // Somebody else on this host breaks off a login: the host is blocked.
    d1.enter(|| break_off(address(rs1))).unwrap();
    trouble("blocked", "FLUSH HOSTS");
    rs1.sql("FLUSH HOSTS").unwrap();
    checks.until(0, "no longer blocked", LIMIT, |h| h.trouble.is_none()).unwrap();

    // This director has no port left to ask from. That is nothing that the server has done.
    let before = checks.changes(3).len();
    d1.sysctl("ipv4/ip_local_port_range", "61000 61000").unwrap();
    let last = d1.enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 61000))?)).unwrap();
    trouble("no local port", "could not be made");
    checks.until(2, "no local port, TCP", LIMIT, |h| h.up && h.trouble.is_some()).unwrap();
    checks.until(3, "down stays down", LIMIT, |h| !h.up && h.trouble.is_some()).unwrap();
    drop(last);
    d1.sysctl("ipv4/ip_local_port_range", "32768 60999").unwrap();
    checks.until(0, "ports again", LIMIT, |h| h.up && h.trouble.is_none()).unwrap();
    checks.until(3, "refused again", LIMIT, |h| !h.up && h.trouble.is_none()).unwrap();
    assert_eq!(checks.changes(3).len(), before + 2, "the alarm came and went, nothing else: {}", checks.story(3));
    checks.stop();
}

#[test]
fn a_replica_that_lags_is_down_and_so_is_a_server_that_is_none() {
    let lab = lab();
    let [source, replica] = lab.servers() else { panic!("two servers") };
    source.sql("CREATE USER repl@'192.168.80.%' IDENTIFIED BY 'repl'").unwrap();
    source.sql("GRANT REPLICATION SLAVE ON *.* TO repl@'192.168.80.%'").unwrap();
    replica.sql("RESET MASTER").unwrap();
    let gtid = &source.sql("SELECT @@gtid_current_pos").unwrap()[0][0];
    replica.sql(&format!("SET GLOBAL gtid_slave_pos = '{gtid}'")).unwrap();
    replica
        .sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='{}', MASTER_USER='repl', MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos",
            source.address()
        ))
        .unwrap();
    replica.sql("START SLAVE").unwrap();
    let condition = Condition { replica: Some(Duration::from_secs(2)), ..Condition::default() };
    let plan = plan(&lab, Level::Query, condition);
    let checks =
        Checks::start(lab.d1().host(), &[(address(replica), plan.clone()), (address(source), plan)], None).unwrap();
    checks.until(0, "the replica", LIMIT, |h| h.up).unwrap();
    checks.until(1, "no replica", LIMIT, |h| !h.up && h.cause.contains("not a replica")).unwrap();
    // It replicates, but stands still for longer than it may: its SQL thread waits for a lock.
    source.sql("CREATE DATABASE lag").unwrap();
    source.sql("CREATE TABLE lag.t (n INT)").unwrap();
    wait_for("the table", LIMIT, || Ok(replica.sql("SELECT * FROM lag.t").is_ok().then_some(()))).unwrap();
    let mut holder = mysql::Conn::new(
        mysql::OptsBuilder::new().socket(Some(replica.socket().display().to_string())).user(Some("root")),
    )
    .unwrap();
    holder.query_drop("LOCK TABLES lag.t READ").unwrap();
    source.sql("INSERT INTO lag.t VALUES (1)").unwrap();
    let (health, took) = checks.until(0, "lag", LIMIT, |h| !h.up && h.cause.contains("behind")).unwrap();
    println!("a lock on the replica: down after {took:?}: {}", health.cause);
    holder.query_drop("UNLOCK TABLES").unwrap();
    checks.until(0, "no lag", LIMIT, |h| h.up).unwrap();
    assert_eq!(lab.d1().address(Segment::Server).map(|a| a.octets()[2]), Some(80));
    checks.stop();
}

/// A week of checks at one per second is 604,800; with a login every five seconds it is 120,960 logins. `LB_LONG` runs
/// them all, else as many as fit into a few seconds, by every level: not one of them may leave a trace.
#[test]
fn checks_leave_no_trace_on_a_server_that_forgives_nothing() {
    let lab = lab();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let fast =
        Cadence { inter: ms(1), fastinter: ms(1), downinter: ms(1), timeout: Duration::from_secs(5), ..cadence() };
    let with = |level, relogin| Plan { cadence: fast, relogin, ..plan(&lab, level, Condition::default()) };
    let before = grudges(rs1);
    health::reuse_ports(lab.d1().host()).unwrap();
    let checks = Checks::start(
        lab.d1().host(),
        &[
            (address(rs1), with(Level::Tcp, ms(1))),
            (address(rs1), with(Level::Greeting, ms(1))),
            (address(rs1), with(Level::Auth, ms(1))),
            (address(rs1), with(Level::Query, ms(1))),
            (address(rs1), with(Level::Auth, Duration::from_secs(5))),
            (address(rs2), Plan { user: None, password_file: None, ..with(Level::Greeting, ms(1)) }),
        ],
        None,
    )
    .unwrap();
    let (limit, all, logins) = at_length((60, 6_000, 2_000), (1500, 604_800, 120_960));
    let counts = || (0..6).map(|backend| checks.count(backend)).collect::<Vec<u64>>();
    wait_for("all the checks", Duration::from_secs(limit), || {
        let counts = counts();
        let enough = counts.iter().all(|count| *count >= 1000) && counts[2] + counts[3] >= logins;
        Ok((enough && counts.iter().sum::<u64>() >= all).then_some(()))
    })
    .unwrap();
    let counts = counts();
    for backend in 0..6 {
        assert_eq!(checks.changes(backend).len(), 1, "{}", checks.story(backend));
        assert_eq!(checks.view(backend).unwrap().history.len(), 1, "{}", checks.story(backend));
    }
    checks.stop();
    let connections = rs1.sql("SHOW GLOBAL STATUS LIKE 'Connections'").unwrap().remove(0).remove(1);
    println!(
        "{} checks: {counts:?} by tcp, greeting, auth, query, auth kept, greeting without a user; connections by the \
         server's own count: {connections}; Aborted_connects and errors in the host cache: {:?}",
        counts.iter().sum::<u64>(),
        grudges(rs1)
    );
    assert_eq!(grudges(rs1), before);
    assert_eq!(before.0, "0");
    assert!(connections.parse::<u64>().unwrap() >= logins, "{connections}");
    // Without a user every login is denied, which counts as aborted, but against nobody.
    assert_eq!(grudges(rs2).1, "0");
    // The error log is quiet, too.
    let log = std::fs::read_to_string(rs1.log_path()).unwrap();
    assert!(!log.contains("Aborted connection") && !log.contains("communication packets"), "{log}");
}

/// The kernel acknowledges a handshake for whoever does not come to it in time, and then the server has a connection: the
/// agent sleeps while its SYNs are answered at last.
#[test]
fn a_director_that_falls_asleep_in_the_middle_of_a_check_leaves_no_trace_either() {
    const SERVICES: u16 = 8;
    let lab = lab();
    let (rs1, d1) = (&lab.servers()[0], lab.d1());
    let file = health::password_file(d1.host(), health::PASSWORD).unwrap();
    let mut agent = AgentOptions {
        check: format!(
            "[service.check]\nlevel = \"tcp\"\nuser = {:?}\npassword_file = {:?}\ninter = \"100ms\"\ntimeout = \"5s\"",
            health::USER,
            file.display().to_string()
        ),
        ..lab.agent_options()
    };
    let mut service = agent.services.remove(0);
    service.backends.truncate(1);
    let of = |at| {
        let listen = SocketAddrV4::new(addr::VIP, 4000 + at);
        ServiceOptions { name: format!("mysql{at}"), listen, ..service.clone() }
    };
    agent.services = (0..SERVICES).map(of).collect();
    lab.take_vips(d1).unwrap();
    d1.start_agent(&agent).unwrap();
    let all_are_up = || {
        let status: Status = d1.ctl(&["status"]).unwrap();
        status.checks.iter().filter(|check| check.state == "up").count() == usize::from(SERVICES)
    };
    wait_for("all to be up", LIMIT, || Ok(all_are_up().then_some(()))).unwrap();
    for _ in 0..2 {
        health::firewall(rs1.host(), Some("drop")).unwrap();
        thread::sleep(ms(400));
        d1.signal_agent(Signal::SIGSTOP).unwrap();
        health::firewall(rs1.host(), None).unwrap();
        // A SYN is sent again after a second, and the ACK of its answer 200 ms after that.
        thread::sleep(ms(1700));
        d1.signal_agent(Signal::SIGCONT).unwrap();
        thread::sleep(ms(300));
        assert!(all_are_up(), "{}", d1.agent_log().unwrap());
    }
    d1.stop_agent().unwrap();
    let connections = rs1.sql("SHOW GLOBAL STATUS LIKE 'Connections'").unwrap().remove(0).remove(1);
    println!("asleep in the middle of {SERVICES} checks: {connections} connections, {:?}", grudges(rs1));
    assert_eq!(grudges(rs1), ("0".to_owned(), "0".to_owned()));
}

#[test]
fn what_is_no_mysql_server_is_down_and_delays_nobody() {
    let lab = LabOptions { clients: 0, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let [server] = lab.servers() else { panic!("one server") };
    let say = |port, act| {
        let address = SocketAddrV4::new(server.address(), port);
        scripted(server.host(), address, act).unwrap();
        address
    };
    let acts: [(u16, Act, &str); 7] = [
        (4001, garbage, "wrong sequence number"),
        (4002, |mut s| s.write_all(&[5, 0, 0, 0, 9, 1, 2, 3, 4]).and_then(|()| linger(s)), "not a greeting"),
        (4003, longest, "senseless"),
        (4004, drip, "wedged"),
        (4005, |_| Ok(()), "closed by the server"),
        (4006, linger, "wedged"),
        // Greets like a server, then asks for one thing after the other without end.
        (4007, endless, "endless login"),
    ];
    let plan = plan(&lab, Level::Auth, Condition::default());
    let mut targets: Vec<_> = acts.iter().map(|(port, act, _)| (say(*port, *act), plan.clone())).collect();
    // Somebody who is well, to TCP at least, among all of these.
    targets.push((say(4008, linger), Plan { level: Level::Tcp, ..plan }));
    let checks = Checks::start(lab.d1().host(), &targets, Some(true)).unwrap();
    for (backend, (port, _, cause)) in acts.iter().enumerate() {
        let (health, took) =
            checks.until(backend, &format!("port {port}"), LIMIT, |h| !h.up && h.cause.contains(cause)).unwrap();
        println!("{port}: down after {took:?}: {}", health.cause);
    }
    let well = acts.len();
    wait_for("twenty good checks", LIMIT, || Ok((checks.count(well) >= 20).then_some(()))).unwrap();
    assert_eq!(checks.changes(well).len(), 0, "{}", checks.story(well));
    println!("a check among them was late by {:?} at most", checks.view(well).unwrap().lateness);
    checks.stop();
}

fn endless(mut stream: TcpStream) -> std::io::Result<()> {
    let mut greeting = b"\x4a\0\0\0\x0a9.7.1\0\x07\0\0\0AAAAAAAA\0\x01\x82\x2d\x02\0\x08\0\x15".to_vec();
    greeting.extend([0; 10]);
    greeting.extend(b"BBBBBBBBBBBB\0caching_sha2_password\0");
    let length = greeting.len() - 4;
    greeting[0] = length as u8;
    stream.write_all(&greeting)?;
    for turn in 1.. {
        if stream.read(&mut [0; 1024])? == 0 {
            break;
        }
        let request = b"\xfemysql_native_password\0CCCCCCCCCCCCCCCCCCCC\0";
        stream.write_all(&[request.len() as u8, 0, 0, (2 * turn) as u8])?;
        stream.write_all(request)?;
    }
    Ok(())
}

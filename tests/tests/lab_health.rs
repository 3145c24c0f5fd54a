//! Checks of real MariaDB servers, from a director's own network: each way to be ill, the verdict, and the way back.

use std::{
    io::Read as _,
    net::{SocketAddrV4, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    health::{self, Checks},
    lab::{Lab, LabOptions, MariadbOptions, Segment, Server, wait_for},
};
use lb_userspace::health::{Cadence, Condition, Level, Plan, Tls};

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
    let options =
        MariadbOptions { performance_schema: true, resolve_names: true, extra: extra.map(str::to_owned).to_vec() };
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
fn every_way_to_be_ill_has_its_verdict_and_its_way_back() {
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
        ],
        None,
    )
    .unwrap();
    let up = |backend: usize, what: &str| checks.until(backend, what, LIMIT, |h| h.up && !h.full).unwrap();
    let down = |backend: usize, what: &str, cause: &str| {
        let found = checks.until(backend, what, LIMIT, |h| !h.up && h.cause.contains(cause)).unwrap();
        println!("{what}: down after {:?}: {}", found.1, found.0.cause);
    };

    for backend in 0..3 {
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

    rs1.stop().unwrap();
    down(0, "stopped", "refused");
    rs1.start().unwrap();
    up(0, "started again");

    // Frozen long enough for many checks: the kernel accepts, nobody greets.
    let before = grudges(rs1);
    rs1.freeze().unwrap();
    down(0, "frozen", "wedged");
    std::thread::sleep(ms(1500));
    rs1.thaw().unwrap();
    up(0, "thawed");
    assert_eq!(grudges(rs1), before, "a frozen server has nothing against us when it wakes");

    let rules = |verdict: &str| {
        format!(
            "table inet ill\ndelete table inet ill\ntable inet ill {{\n chain input {{\n type filter hook input priority \
             filter;\n tcp dport 3306 {verdict}\n }}\n}}\n"
        )
    };
    let firewall = |rules: &str| rs1.host().check_with_input(&["nft", "-f", "-"], rules).map(drop).unwrap();
    firewall(&rules("drop"));
    down(0, "filtered", "no answer to the TCP handshake");
    down(2, "filtered, TCP", "no answer to the TCP handshake");
    firewall("delete table inet ill\n");
    up(0, "no longer filtered");
    firewall(&rules("reject with tcp reset"));
    down(0, "rejected with RST", "refused");
    firewall("delete table inet ill\n");
    up(0, "no longer rejected");
    firewall(&rules("reject"));
    down(0, "rejected with ICMP", "refused");
    firewall("delete table inet ill\n");
    up(0, "no longer rejected");

    rs1.host().ip_batch("link set eth0 down\n").unwrap();
    down(0, "unplugged", "");
    rs1.host().ip_batch("link set eth0 up\n").unwrap();
    up(0, "plugged in again");

    rs2.sql("SET GLOBAL read_only = 1").unwrap();
    down(1, "read only", "not writable: read_only = 1");
    rs2.sql("SET GLOBAL read_only = 0").unwrap();
    up(1, "writable again");

    // The limit is reached by others; the check's own connection is one of those that are in.
    let before = checks.changes(0).len();
    rs1.sql("SET GLOBAL max_connections = 10").unwrap();
    let crowd = crowd(rs1).unwrap();
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
    checks.stop();
}

/// Logs in until the server has no room; the connections as they are.
fn crowd(server: &Server) -> Result<Vec<mysql::Conn>> {
    let options = || {
        mysql::OptsBuilder::new()
            .socket(Some(server.socket().display().to_string()))
            .user(Some(lb_tests::lab::addr::USER))
            .pass(Some(lb_tests::lab::addr::PASSWORD))
    };
    // Root is let in beyond the limit, so somebody without privileges has to fill it.
    let (user, password) = (lb_tests::lab::addr::USER, lb_tests::lab::addr::PASSWORD);
    server.sql(&format!("CREATE OR REPLACE USER {user}@localhost IDENTIFIED BY '{password}'"))?;
    let mut crowd = Vec::new();
    wait_for("a full server", LIMIT, || match mysql::Conn::new(options()) {
        Ok(conn) => {
            crowd.push(conn);
            Ok(None)
        }
        Err(mysql::Error::MySqlError(error)) if error.code == 1040 => Ok(Some(())),
        Err(other) => Err(other).context("log in"),
    })?;
    Ok(crowd)
}

fn break_off(address: SocketAddrV4) -> Result<()> {
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.read(&mut [0; 256])?;
    }
    Ok(())
}

#[test]
fn a_replica_whose_replication_stops_is_down() {
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
    let condition = Condition { replica: Some(Duration::from_secs(5)), ..Condition::default() };
    let plan = plan(&lab, Level::Query, condition);
    let checks =
        Checks::start(lab.d1().host(), &[(address(replica), plan.clone()), (address(source), plan)], None).unwrap();
    checks.until(0, "the replica", LIMIT, |h| h.up).unwrap();
    checks.until(1, "no replica", LIMIT, |h| !h.up && h.cause.contains("not a replica")).unwrap();
    for (stop, start, cause) in [
        ("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD", "SQL thread is not running"),
        ("STOP SLAVE IO_THREAD", "START SLAVE IO_THREAD", "IO thread is not running"),
    ] {
        replica.sql(stop).unwrap();
        let (health, took) = checks.until(0, stop, LIMIT, |h| !h.up).unwrap();
        assert!(health.cause.contains(cause), "{health:?}");
        println!("{stop}: down after {took:?}: {}", health.cause);
        replica.sql(start).unwrap();
        checks.until(0, start, LIMIT, |h| h.up).unwrap();
    }
    assert_eq!(lab.d1().address(Segment::Server).map(|a| a.octets()[2]), Some(80));
    checks.stop();
}

/// A week of checks at one per second is 604,800; with a login every five seconds it is 120,960 logins. Here as many
/// as fit into a few seconds, by every level, and not one of them may leave a trace.
#[test]
fn checks_leave_no_trace_on_a_server_that_forgives_nothing() {
    let lab = lab();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    let fast =
        Cadence { inter: ms(1), fastinter: ms(1), downinter: ms(1), timeout: Duration::from_secs(5), ..cadence() };
    let with = |level, relogin| Plan { cadence: fast, relogin, ..plan(&lab, level, Condition::default()) };
    let before = grudges(rs1);
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
    wait_for("a thousand checks of each kind", Duration::from_secs(60), || {
        Ok((0..6).all(|backend| checks.count(backend) >= 1000).then_some(()))
    })
    .unwrap();
    let counts: Vec<u64> = (0..6).map(|backend| checks.count(backend)).collect();
    for backend in 0..6 {
        assert_eq!(checks.changes(backend).len(), 1, "{}", checks.story(backend));
        assert_eq!(checks.view(backend).unwrap().history.len(), 1, "{}", checks.story(backend));
    }
    checks.stop();
    println!("{counts:?} checks by tcp, greeting, auth, query, auth kept, greeting without a user");
    assert_eq!(grudges(rs1), before);
    assert_eq!(before.0, "0");
    // Without a user every login is denied, which counts as aborted, but against nobody.
    assert_eq!(grudges(rs2).1, "0");
    // The error log is quiet, too.
    let log = std::fs::read_to_string(rs1.log_path()).unwrap();
    assert!(!log.contains("Aborted connection") && !log.contains("communication packets"), "{log}");
}

//! Checks of a real MySQL of today: caching_sha2_password by the fast path, by TLS and by RSA, and what a wedge or a
//! broken login leaves behind. HAProxy's mysql-check cannot log in here at all.

use std::{io::Read as _, net::SocketAddrV4, net::TcpStream, path::PathBuf, time::Duration};

use lb_tests::{
    checks::at_length,
    health::{self, Checks},
    lab::{Lab, LabOptions, Mysql, Server, wait_for},
};
use lb_userspace::health::{Cadence, Condition, Level, Plan, Tls};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn plan(password_file: PathBuf, tls: Tls) -> Plan {
    Plan {
        level: Level::Auth,
        cadence: Cadence {
            inter: ms(200),
            fastinter: ms(100),
            downinter: ms(200),
            // A first login by RSA takes the server some time on a busy machine.
            timeout: ms(1000),
            ..Cadence::default()
        },
        user: Some(health::USER.into()),
        password_file: Some(password_file),
        tls,
        relogin: ms(300),
        ..Plan::default()
    }
}

fn errors(mysql: &Mysql) -> Vec<Vec<String>> {
    mysql
        .sql("SELECT IP, HOST_VALIDATED, SUM_CONNECT_ERRORS, COUNT_HANDSHAKE_ERRORS FROM performance_schema.host_cache")
        .unwrap()
}

fn aborted(mysql: &Mysql) -> String {
    mysql.sql("SHOW GLOBAL STATUS LIKE 'Aborted_connects'").unwrap().remove(0).remove(1)
}

#[test]
fn a_mysql_of_today_is_checked_by_every_way_to_log_in() {
    let lab: Lab = LabOptions { clients: 0, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let [server] = lab.servers() else { panic!("one server") };
    let mysql = Mysql::start(server.host(), server.address(), &["--max-connect-errors=1"]).unwrap();
    let address = SocketAddrV4::new(server.address(), 3306);
    let (user, password) = (health::USER, health::PASSWORD);
    mysql.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    let d1 = lab.d1().host();
    let file = health::password_file(d1, password).unwrap();
    println!("{}", mysql.sql("SELECT VERSION()").unwrap()[0][0]);

    // The server's cache of scrambles is empty after a start and after FLUSH PRIVILEGES: the first login must prove the
    // password itself. The next ones take the fast path.
    for (how, tls) in [("RSA", Tls::Off), ("TLS", Tls::Require)] {
        mysql.sql("FLUSH PRIVILEGES").unwrap();
        let checks = Checks::start(d1, &[(address, plan(file.clone(), tls))], None).unwrap();
        checks.until(0, how, LIMIT, |h| h.up).unwrap();
        assert_eq!(checks.changes(0).len(), 1, "{how}: {}", checks.story(0));
        let used = mysql
            .sql(&format!(
                "SELECT COALESCE(MAX(s.VARIABLE_VALUE <> ''), 0) FROM performance_schema.status_by_thread s \
                 JOIN performance_schema.threads t USING (THREAD_ID) \
                 WHERE s.VARIABLE_NAME = 'Ssl_cipher' AND t.PROCESSLIST_USER = '{user}'"
            ))
            .unwrap();
        assert_eq!(used[0][0], if tls == Tls::Off { "0" } else { "1" }, "{how}: TLS or not");
        // Some more logins, which now find the cache filled.
        let before = checks.count(0);
        wait_for("fast logins", LIMIT, || Ok((checks.count(0) > before + 10).then_some(()))).unwrap();
        assert_eq!(checks.changes(0).len(), 1, "{how}: {}", checks.story(0));
        checks.stop();
    }

    // Without TLS the server lets nobody in who does not use it.
    mysql.sql("SET GLOBAL require_secure_transport = ON").unwrap();
    let verify = |name: Option<&str>| Plan {
        tls_ca: Some(mysql.data().join("ca.pem")),
        tls_name: name.map(str::to_owned),
        ..plan(file.clone(), Tls::Verify)
    };
    let checks = Checks::start(
        d1,
        &[(address, plan(file.clone(), Tls::Prefer)), (address, verify(None)), (address, plan(file.clone(), Tls::Off))],
        None,
    )
    .unwrap();
    checks.until(0, "TLS if offered", LIMIT, |h| h.up).unwrap();
    checks.until(1, "a certificate of the authority", LIMIT, |h| h.up).unwrap();
    let (denied, _) = checks.until(2, "no TLS", LIMIT, |h| h.trouble.is_some()).unwrap();
    assert!(!denied.up && denied.trouble.unwrap().text().contains("3159"));
    checks.stop();
    mysql.sql("SET GLOBAL require_secure_transport = OFF").unwrap();
    assert!(errors(&mysql).iter().all(|row| row[2] == "0" && row[3] == "0"), "{:?}", errors(&mysql));

    // A wedge of many checks: when the server wakes, nothing is held against us.
    let checks = Checks::start(d1, &[(address, plan(file.clone(), Tls::Prefer))], Some(true)).unwrap();
    let before = aborted(&mysql);
    mysql.signal(Signal::SIGSTOP).unwrap();
    checks.until(0, "wedged", LIMIT, |h| !h.up && h.cause.contains("wedged")).unwrap();
    std::thread::sleep(ms(2500));
    mysql.signal(Signal::SIGCONT).unwrap();
    checks.until(0, "awake", LIMIT, |h| h.up).unwrap();
    assert_eq!(aborted(&mysql), before);
    assert!(errors(&mysql).iter().all(|row| row[2] == "0" && row[3] == "0"), "{:?}", errors(&mysql));

    // Somebody else here breaks off logins: the host is blocked, and that is what is said.
    d1.enter(|| {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address)?;
            let _ = stream.read(&mut [0; 256])?;
        }
        Ok(())
    })
    .unwrap();
    let (blocked, _) = checks.until(0, "blocked", LIMIT, |h| h.trouble.is_some()).unwrap();
    assert!(blocked.up, "blocked is not dead");
    assert!(blocked.trouble.unwrap().text().contains("host_cache"));
    mysql.sql("TRUNCATE TABLE performance_schema.host_cache").unwrap();
    checks.until(0, "no longer blocked", LIMIT, |h| h.trouble.is_none()).unwrap();
    checks.stop();

    // A certificate for another name is refused; last, because a handshake that breaks off counts.
    let checks = Checks::start(d1, &[(address, verify(Some("db.example.org")))], None).unwrap();
    let (refused, _) = checks.until(0, "another name", LIMIT, |h| h.cause.contains("TLS")).unwrap();
    assert!(!refused.up);
    println!("{}", refused.cause);
    checks.stop();
}

/// A week of checks at one per second is 604,800; with a login every five seconds it is 120,960 logins. `LB_LONG` runs
/// them all, else as many as fit into a few seconds: not one of them may leave a trace.
#[test]
fn checks_leave_no_trace_on_a_mysql_of_today_that_forgives_nothing() {
    let lab: Lab = LabOptions { clients: 0, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let [server] = lab.servers() else { panic!("one server") };
    let mysql = Mysql::start(server.host(), server.address(), &["--max-connect-errors=1"]).unwrap();
    let address = SocketAddrV4::new(server.address(), 3306);
    let (user, password) = (health::USER, health::PASSWORD);
    mysql.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    let d1 = lab.d1().host();
    let file = health::password_file(d1, password).unwrap();
    let fast = Cadence {
        inter: ms(1),
        fastinter: ms(1),
        downinter: ms(1),
        timeout: Duration::from_secs(5),
        ..Cadence::default()
    };
    let with = |level, tls, relogin| Plan { level, cadence: fast, relogin, ..plan(file.clone(), tls) };
    let targets = [
        with(Level::Tcp, Tls::Off, ms(1)),
        with(Level::Greeting, Tls::Off, ms(1)),
        with(Level::Auth, Tls::Off, ms(1)),
        with(Level::Auth, Tls::Require, ms(1)),
        with(Level::Query, Tls::Off, ms(1)),
        with(Level::Auth, Tls::Off, Duration::from_secs(5)),
    ];
    let checks = Checks::start(d1, &targets.map(|plan| (address, plan)), None).unwrap();
    let (limit, all, logins) = at_length((60, 4_000, 1_000), (1500, 604_800, 120_960));
    let counts = || (0..6).map(|backend| checks.count(backend)).collect::<Vec<u64>>();
    wait_for("all the checks", Duration::from_secs(limit), || {
        let counts = counts();
        let enough = counts.iter().all(|count| *count >= 200) && counts[2..5].iter().sum::<u64>() >= logins;
        Ok((enough && counts.iter().sum::<u64>() >= all).then_some(()))
    })
    .unwrap();
    let counts = counts();
    for backend in 0..6 {
        assert_eq!(checks.changes(backend).len(), 1, "{}", checks.story(backend));
        assert_eq!(checks.view(backend).unwrap().history.len(), 1, "{}", checks.story(backend));
    }
    checks.stop();
    let connections = mysql.sql("SHOW GLOBAL STATUS LIKE 'Connections'").unwrap().remove(0).remove(1);
    println!(
        "{} checks: {counts:?} by tcp, greeting, auth, auth with TLS, query, auth kept; connections by the server's own \
         count: {connections}; Aborted_connects: {}, host cache: {:?}",
        counts.iter().sum::<u64>(),
        aborted(&mysql),
        errors(&mysql)
    );
    assert!(connections.parse::<u64>().unwrap() >= logins, "{connections}");
    assert_eq!(aborted(&mysql), "0");
    assert!(errors(&mysql).iter().all(|row| row[2] == "0" && row[3] == "0"), "{:?}", errors(&mysql));
}

#[test]
fn every_way_to_be_ill_has_its_verdict_on_a_mysql_of_today() {
    let lab: Lab = LabOptions { clients: 0, servers: 2, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let [one, two] = lab.servers() else { panic!("two servers") };
    let start = |server: &Server, id: &str| {
        let id = format!("--server-id={id}");
        let extra = ["--log-bin=bin", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", id.as_str()];
        Mysql::start(server.host(), server.address(), &extra).unwrap()
    };
    let (mut source, replica) = (start(one, "1"), start(two, "2"));
    let (user, password) = (health::USER, health::PASSWORD);
    for statement in [
        format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'"),
        format!("GRANT REPLICATION CLIENT ON *.* TO {user}@'192.168.80.%'"),
        "CREATE USER repl@'192.168.80.%' IDENTIFIED BY 'repl'".into(),
        "GRANT REPLICATION SLAVE ON *.* TO repl@'192.168.80.%'".into(),
        "CREATE USER crowd@localhost IDENTIFIED BY 'crowd'".into(),
    ] {
        source.sql(&statement).unwrap();
    }
    let change = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{}', SOURCE_USER='repl', SOURCE_PASSWORD='repl', \
         SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1",
        source.address()
    );
    for statement in ["RESET BINARY LOGS AND GTIDS", &change, "START REPLICA"] {
        replica.sql(statement).unwrap();
    }
    let d1 = lab.d1().host();
    let file = health::password_file(d1, password).unwrap();
    let asks = |condition| Plan { level: Level::Query, condition, ..plan(file.clone(), Tls::Prefer) };
    let writable = asks(Condition { writable: true, ..Condition::default() });
    let replicates = asks(Condition { replica: Some(Duration::from_secs(5)), ..Condition::default() });
    let at = |mysql: &Mysql| SocketAddrV4::new(mysql.address(), 3306);
    let checks = Checks::start(d1, &[(at(&source), writable), (at(&replica), replicates)], None).unwrap();
    let up = |backend: usize, what: &str| checks.until(backend, what, LIMIT, |h| h.up && !h.full).unwrap();
    let down = |backend: usize, what: &str, cause: &str| {
        let (health, took) = checks.until(backend, what, LIMIT, |h| !h.up && h.cause.contains(cause)).unwrap();
        println!("{what}: down after {took:?}: {}", health.cause);
    };
    up(0, "the first pass");
    // Its check user comes by the replication.
    up(1, "the replica");

    for (how, kill) in [("killed", true), ("stopped", false)] {
        source.end(kill).unwrap();
        down(0, how, "refused");
        source.start_again().unwrap();
        up(0, "started again");
    }
    for (verdict, cause) in [("drop", "no answer"), ("reject with tcp reset", "refused")] {
        health::firewall(one.host(), Some(verdict)).unwrap();
        down(0, verdict, cause);
        health::firewall(one.host(), None).unwrap();
        up(0, "no firewall");
    }
    one.host().ip_batch("link set eth0 down\n").unwrap();
    down(0, "unplugged", "");
    one.host().ip_batch("link set eth0 up\n").unwrap();
    up(0, "plugged in again");
    source.sql("SET GLOBAL read_only = 1").unwrap();
    down(0, "read only", "not writable: read_only = 1");
    source.sql("SET GLOBAL read_only = 0").unwrap();
    up(0, "writable again");

    source.sql("SET GLOBAL max_connections = 10").unwrap();
    let before = checks.changes(0).len();
    let crowd = health::crowd(&source.socket(), "crowd", "crowd", LIMIT).unwrap();
    let (full, took) = checks.until(0, "too many connections", LIMIT, |h| h.full).unwrap();
    assert!(full.up, "full is not dead");
    println!("full after {took:?}");
    drop(crowd);
    up(0, "room again");
    assert_eq!(checks.changes(0).len(), before + 2, "never down: {}", checks.story(0));
    source.sql(&format!("ALTER USER {user}@'192.168.80.%' IDENTIFIED BY 'another one'")).unwrap();
    let (denied, took) = checks.until(0, "access denied", LIMIT, |h| h.trouble.is_some()).unwrap();
    assert!(denied.up, "the verdict stays: {}", checks.story(0));
    println!("denied after {took:?}: {}", denied.trouble.unwrap().text());
    source.sql(&format!("ALTER USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    for backend in [0, 1] {
        checks.until(backend, "the password is right again", LIMIT, |h| h.up && h.trouble.is_none()).unwrap();
    }

    for (stop, start, cause) in [
        ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD", "SQL thread is not running"),
        ("STOP REPLICA IO_THREAD", "START REPLICA IO_THREAD", "IO thread is not running"),
    ] {
        replica.sql(stop).unwrap();
        down(1, stop, cause);
        replica.sql(start).unwrap();
        up(1, start);
    }
    checks.stop();
}

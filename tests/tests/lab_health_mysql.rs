//! Checks of a real MySQL of today: caching_sha2_password by the fast path, by TLS and by RSA, and what a wedge or a
//! broken login leaves behind. HAProxy's mysql-check cannot log in here at all.

use std::{io::Read as _, net::SocketAddrV4, net::TcpStream, path::PathBuf, time::Duration};

use lb_tests::{
    checks::at_length,
    health::{self, Checks},
    lab::{Lab, LabOptions, Mysql, wait_for},
};
use lb_userspace::health::{Cadence, Level, Plan, Tls};
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

/// A director, and a server that blocks a host after its first broken login.
struct Stand {
    // Ends before its host does.
    mysql: Mysql,
    lab: Lab,
    address: SocketAddrV4,
    /// With the password of the check user.
    file: PathBuf,
}

impl Stand {
    fn up() -> Self {
        let lab = LabOptions { clients: 0, servers: 1, mariadb: None, ..LabOptions::default() }.up().unwrap();
        let server = &lab.servers()[0];
        let mysql = Mysql::start(server.host(), server.address(), &["--max-connect-errors=1"]).unwrap();
        let address = SocketAddrV4::new(server.address(), 3306);
        let user = format!("CREATE USER {}@'192.168.80.%' IDENTIFIED BY '{}'", health::USER, health::PASSWORD);
        mysql.sql(&user).unwrap();
        let file = health::password_file(lab.d1().host(), health::PASSWORD).unwrap();
        Self { mysql, lab, address, file }
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
    let Stand { mysql, lab, address, file } = Stand::up();
    let (d1, user) = (lab.d1().host(), health::USER);
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
    let Stand { mysql, lab, address, file } = Stand::up();
    let d1 = lab.d1().host();
    health::reuse_ports(d1).unwrap();
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

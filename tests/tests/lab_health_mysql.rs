//! Checks of a real MySQL of today: caching_sha2_password by the fast path, by TLS and by RSA, and what a wedge or a
//! broken login leaves behind. HAProxy's mysql-check cannot log in here at all.

use std::{io::Read as _, net::SocketAddrV4, net::TcpStream, path::PathBuf, time::Duration};

use lb_tests::{
    health::{self, Checks},
    lab::{Lab, LabOptions, Mysql},
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
        lb_tests::lab::wait_for("fast logins", LIMIT, || Ok((checks.count(0) > before + 10).then_some(()))).unwrap();
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

//! Each way to be ill, as clients of the VIP live through it: the verdict, how soon it comes, where new sessions go, what
//! becomes of open ones, and the way back. One table at the end, for MariaDB and for a MySQL of today.

use std::{cell::Cell, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use lb_tests::{
    health::{self, Act, break_off, drip, garbage, longest, scripted},
    lab::{Host, wait_for},
    ward::{Make, Verdict, Ward},
};

const LIMIT: Duration = Duration::from_secs(30);

/// New connections to the server's port reach another one; open ones go on.
fn impostor(host: &Host, port: Option<u16>) -> Result<()> {
    let mut rules = "table ip impostor\ndelete table ip impostor\n".to_owned();
    if let Some(port) = port {
        rules += "table ip impostor {\n chain pre {\n type nat hook prerouting priority dstnat;\n";
        rules += &format!(" tcp dport 3306 tcp flags & (syn | ack) == syn redirect to :{port}\n }}\n}}\n");
    }
    host.check_with_input(&["nft", "-f", "-"], &rules).map(drop)
}

/// An account that cannot enter a server without room; root can.
fn crowd_of(ward: &Ward, at: usize) {
    ward.sql_on(at, "CREATE USER crowd@localhost IDENTIFIED BY 'crowd'").unwrap();
}

fn fill(ward: &Ward, at: usize) -> Result<health::Crowd> {
    ward.sql_on(at, "SET GLOBAL max_connections = 20")?;
    health::crowd(&ward.socket(at), "crowd", "crowd", LIMIT)
}

#[test]
fn every_illness_of_a_mariadb_has_its_verdict_and_nobody_hangs() {
    every_illness(Make::Mariadb);
}

#[test]
fn every_illness_of_a_mysql_of_today_has_its_verdict_and_nobody_hangs() {
    every_illness(Make::Mysql);
}

fn every_illness(make: Make) {
    use Verdict::{Alarm, Down, Full, Gone};
    let mut ward = Ward::new(make).unwrap();
    ward.falls_ill("mysqld stopped", Gone, "", Ward::stop, Ward::start);
    ward.falls_ill("mysqld killed (-9)", Gone, "", Ward::kill9, Ward::start);
    ward.falls_ill("mysqld frozen (SIGSTOP)", Down, "", Ward::freeze, Ward::thaw);
    ward.falls_ill("host unplugged", Down, "", |w| w.plug(false), |w| w.plug(true));
    for (name, verdict) in [
        ("port filtered: drop", "drop"),
        ("port rejecting: RST", "reject with tcp reset"),
        ("port rejecting: ICMP", "reject"),
    ] {
        let firewall = |w: &Ward, verdict| health::firewall(w.host(), verdict);
        ward.falls_ill(name, Down, "", |w| firewall(w, Some(verdict)), |w| firewall(w, None));
    }

    crowd_of(&ward, 0);
    let crowd = Cell::new(None);
    ward.falls_ill(
        "max_connections reached (1040)",
        Full,
        "",
        |w| {
            crowd.set(Some(fill(w, 0)?));
            Ok(())
        },
        |w| {
            drop(crowd.take());
            // Whoever is refused takes root's place for a moment.
            wait_for("a place for root", LIMIT, || match w.sql("SET GLOBAL max_connections = 2000") {
                Ok(()) => Ok(Some(())),
                Err(error) if format!("{error:#}").contains("1040") => Ok(None),
                Err(error) => Err(error),
            })
        },
    );
    ward.falls_ill(
        "host blocked (1129)",
        Alarm,
        "FLUSH HOSTS",
        |w| {
            let address = w.address();
            w.lab.d1().host().enter(|| break_off(address))
        },
        |w| w.sql("TRUNCATE TABLE performance_schema.host_cache"),
    );
    let alter = |w: &Ward, to: &str| w.sql(&format!("ALTER USER {}@'192.168.80.%' IDENTIFIED BY '{to}'", health::USER));
    ward.falls_ill("access denied (1045)", Alarm, "1045", |w| alter(w, "another"), |w| alter(w, health::PASSWORD));
    ward.falls_ill(
        "read_only flipped",
        Down,
        "not writable: read_only = 1",
        |w| w.sql("SET GLOBAL read_only = 1"),
        |w| w.sql("SET GLOBAL read_only = 0"),
    );
    let replica = if make == Make::Mariadb { "SLAVE" } else { "REPLICA" };
    for thread in ["SQL", "IO"] {
        let (stop, start) = (format!("STOP {replica} {thread}_THREAD"), format!("START {replica} {thread}_THREAD"));
        let name = format!("replication stopped: {thread} thread");
        ward.falls_ill(&name, Down, "thread is not running", |w| w.sql(&stop), |w| w.sql(&start));
    }
    let acts: [(u16, Act, &str, &str); 3] = [
        (4001, garbage, "server answers garbage", "wrong sequence number"),
        (4002, drip, "greeting of 1 byte/s", "wedged"),
        (4003, longest, "greeting of 16 MiB", "senseless"),
    ];
    for (port, act, name, cause) in acts {
        scripted(ward.host(), SocketAddrV4::new(*ward.address().ip(), port), act).unwrap();
        ward.falls_ill(name, Down, cause, |w| impostor(w.host(), Some(port)), |w| impostor(w.host(), None));
    }
    ward.print();
}

#[test]
fn load_never_takes_the_last_server_out() {
    let ward = Ward::new(Make::Mariadb).unwrap();
    ward.stop().unwrap();
    ward.until("the first one is down", |check| check.state == "down").unwrap();
    crowd_of(&ward, 1);
    let crowd = fill(&ward, 1).unwrap();
    wait_for("the second one is full", LIMIT, || Ok((ward.check(1)?.state == "full").then_some(()))).unwrap();
    // It is the server that says no, and its text helps an operator; nobody is refused on the way to it.
    let refused = format!("{:#}", ward.session().unwrap_err());
    assert!(refused.contains("1040"), "{refused}");
    // Room is used at once, whatever the checks still say.
    drop(crowd);
    let (session, id) = wait_for("a session", LIMIT, || Ok(ward.session().ok())).unwrap();
    assert_eq!(id, ward.lab.servers()[1].id());
    drop(session);
    ward.sql_on(1, "SET GLOBAL max_connections = 2000").unwrap();
    wait_for("room again", LIMIT, || Ok((ward.check(1)?.state == "up").then_some(()))).unwrap();
}

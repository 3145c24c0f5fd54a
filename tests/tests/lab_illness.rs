//! Each way to be ill, as clients of the VIP live through it: the verdict, how soon it comes, where new sessions go, what
//! becomes of open ones, and the way back. One table at the end.

use std::{
    cell::Cell,
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_tests::{
    health::{self, drip, linger},
    lab::{AgentOptions, Host, Lab, LabOptions, MariadbOptions, Server, addr, now, wait_for},
};
use lb_userspace::{
    control::protocol::{CheckView, Status},
    health::Cadence,
};
use mysql::prelude::Queryable as _;

const LIMIT: Duration = Duration::from_secs(30);
/// Sessions through the VIP that are open when somebody falls ill.
const OPEN: usize = 8;
/// A session that is not told hangs for minutes; one that is told answers in milliseconds. Between them is room enough.
const HANGS: Duration = Duration::from_secs(5);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn cadence() -> Cadence {
    Cadence { inter: ms(200), fastinter: ms(100), downinter: ms(200), timeout: ms(400), rise: 2, fall: 3, jitter: 10 }
}

/// A check logs in anew after so long: what only a login can notice is noticed then.
const RELOGIN: Duration = Duration::from_millis(400);

/// What the checks are to say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The process is gone, and its sessions with it.
    Gone,
    Down,
    Full,
    /// The verdict stays, with an alarm.
    Alarm,
}

impl Verdict {
    fn holds(self, check: &CheckView) -> bool {
        match self {
            Self::Gone | Self::Down => check.state == "down",
            Self::Full => check.state == "full",
            Self::Alarm => check.state == "up" && check.trouble.is_some(),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Gone | Self::Down => "down",
            Self::Full => "full",
            Self::Alarm => "as before, alarm",
        }
    }
}

/// Two replicas behind the VIP, and their source.
struct Ward {
    lab: Lab,
    rows: Vec<[String; 7]>,
}

impl Ward {
    fn new() -> Self {
        let options = MariadbOptions {
            performance_schema: true,
            resolve_names: true,
            extra: ["--max-connect-errors=1", "--log-bin"].map(str::to_owned).to_vec(),
            ..MariadbOptions::default()
        };
        let lab = LabOptions { servers: 3, mariadb: Some(options), ..LabOptions::default() }.up().unwrap();
        lab.take_vips(lab.d1()).unwrap();
        let (user, password) = (health::USER, health::PASSWORD);
        for server in lab.servers() {
            // Without names to look up in vain, a server knows the way to its clients and no other.
            server.host().ip_batch(&way_to_clients()).unwrap();
            server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
            server.sql(&format!("GRANT SLAVE MONITOR ON *.* TO {user}@'192.168.80.%'")).unwrap();
        }
        let [rs1, rs2, source] = lab.servers() else { panic!("three servers") };
        source.sql("CREATE USER repl@'192.168.80.%' IDENTIFIED BY 'repl'").unwrap();
        source.sql("GRANT REPLICATION SLAVE ON *.* TO repl@'192.168.80.%'").unwrap();
        let place = source.sql("SHOW MASTER STATUS").unwrap().remove(0);
        for replica in [rs1, rs2] {
            let change = format!(
                "CHANGE MASTER TO MASTER_HOST='{}', MASTER_USER='repl', MASTER_PASSWORD='repl', \
                 MASTER_LOG_FILE='{}', MASTER_LOG_POS={}, MASTER_CONNECT_RETRY=1",
                source.address(),
                place[0],
                place[1]
            );
            replica.sql(&change).unwrap();
            replica.sql("START SLAVE").unwrap();
        }
        let mut agent = lab.agent_options();
        agent.services[0].backends.truncate(2);
        let file = health::password_file(lab.d1().host(), password).unwrap();
        let Cadence { inter, fastinter, downinter, timeout, rise, fall, .. } = cadence();
        let check = format!(
            "[service.check]\nlevel = \"query\"\ncondition = \"writable, replica\"\nmax_lag = \"10s\"\nuser = {user:?}\n\
             password_file = {:?}\ninter = {inter:?}\nfastinter = {fastinter:?}\ndowninter = {downinter:?}\n\
             timeout = {timeout:?}\nrelogin = {RELOGIN:?}\nrise = {rise}\nfall = {fall}\n",
            file.display().to_string(),
        );
        // Durations as the file wants them.
        let check = check.lines().map(|line| match line.split_once(" = ") {
            Some((key, value)) if value.ends_with("ms") => format!("{key} = \"{value}\"\n"),
            _ => format!("{line}\n"),
        });
        lab.d1().start_agent(&AgentOptions { check: check.collect(), ..agent }).unwrap();
        let ward = Self { lab, rows: Vec::new() };
        ward.until("up at first", |check| check.state == "up");
        wait_for("the other one", LIMIT, || Ok((ward.check(1).state == "up").then_some(()))).unwrap();
        ward
    }

    fn rs1(&self) -> &Server {
        &self.lab.servers()[0]
    }

    fn check(&self, server: usize) -> CheckView {
        let status: Status = self.lab.d1().ctl(&["status"]).unwrap();
        let at = SocketAddrV4::new(self.lab.servers()[server].address(), addr::MYSQL_PORT);
        status.checks.into_iter().find(|check| check.address == at).unwrap()
    }

    /// Waits until the checks say so of the first server; answers what they say, and when that was so.
    fn until(&self, what: &str, wanted: impl Fn(&CheckView) -> bool) -> CheckView {
        let found = wait_for(what, LIMIT, || Ok(Some(self.check(0)).filter(|check| wanted(check))));
        found.unwrap_or_else(|error| panic!("{error:#}: {:#?}\n{}", self.check(0), self.lab.d1().agent_log().unwrap()))
    }

    /// Sessions through the VIP, each with the server that answers it.
    fn sessions(&self, count: usize) -> Vec<(mysql::Conn, u32)> {
        let open = || -> Result<(mysql::Conn, u32)> {
            let mut session = self.lab.client().connect(addr::SERVICE)?;
            let id: Option<u32> = session.query_first("SELECT @@server_id")?;
            Ok((session, id.unwrap_or(0)))
        };
        (0..count).map(|_| open().unwrap()).collect()
    }

    /// Sessions of applications that the first server knows of.
    fn known(&self) -> usize {
        self.rs1().processlist().unwrap().iter().filter(|session| session.user == addr::USER).count()
    }

    /// Makes the first server ill and well again, and looks at everything.
    fn falls_ill(
        &mut self,
        name: &str,
        verdict: Verdict,
        cause: &str,
        make: impl FnOnce(&Self) -> Result<()>,
        heal: impl FnOnce(&Self) -> Result<()>,
    ) {
        let (well, ill) = (self.lab.servers()[1].id(), self.rs1().id());
        let mut open = self.sessions(OPEN);
        let of = |open: &[(mysql::Conn, u32)], id| open.iter().filter(|(_, of)| *of == id).count();
        assert_eq!((of(&open, ill), of(&open, well)), (OPEN / 2, OPEN / 2), "{name}");

        let began = now();
        make(self).unwrap();
        let found = self.until(name, |check| verdict.holds(check));
        let took = began.elapsed();
        let said = found.trouble.clone().unwrap_or_else(|| found.cause.clone());
        assert!(said.contains(cause), "{name}: {said}");

        // New ones: all at once, and none waits.
        let asked = now();
        let mut new = self.sessions(4);
        let there = of(&new, ill);
        assert_eq!(there, if verdict == Verdict::Alarm { 2 } else { 0 }, "{name}: new sessions");
        assert!(asked.elapsed() < HANGS, "{name}: new sessions took {:?}", asked.elapsed());

        // Open ones: told at once, or never disturbed.
        let (mut kept, mut slowest) = (0, Duration::ZERO);
        for (session, id) in &mut open {
            let asked = now();
            let answer = session.query_first::<u32, _>("SELECT 1");
            slowest = slowest.max(asked.elapsed());
            assert!(*id == ill || answer.is_ok(), "{name}: a session of the other server: {answer:?}");
            kept += usize::from(*id == ill && answer.is_ok());
        }
        let stays = matches!(verdict, Verdict::Full | Verdict::Alarm);
        assert_eq!(kept, if stays { OPEN / 2 } else { 0 }, "{name}: open sessions");
        assert!(slowest < HANGS, "{name}: an open session hung for {slowest:?}");
        new.retain_mut(|(session, _)| session.query_drop("SELECT 1").is_ok());
        assert_eq!(new.len(), 4, "{name}: the new ones live");

        heal(self).unwrap();
        let healed = now();
        self.until(name, |check| check.state == "up" && check.trouble.is_none());
        let back = healed.elapsed();
        // Nothing is left of what was reset, at its own end either.
        let left = if stays { OPEN / 2 + there } else { 0 };
        wait_for(&format!("{name}: the server's own ends"), LIMIT, || Ok((self.known() == left).then_some(())))
            .unwrap_or_else(|error| panic!("{error:#}: {} of {left}", self.known()));
        drop((open, new));
        wait_for("everybody to leave", LIMIT, || Ok((self.known() == 0).then_some(()))).unwrap();
        let both = self.sessions(4);
        assert_eq!((of(&both, ill), of(&both, well)), (2, 2), "{name}: it serves again");
        drop(both);
        wait_for("everybody to leave", LIMIT, || Ok((self.known() == 0).then_some(()))).unwrap();

        let detection = cadence().detection();
        let times = |took: Duration| took.as_secs_f64() / detection.as_secs_f64();
        // For other work on the machine, there is room; something that waits for a timeout of TCP does not fit in.
        assert!(took < 10 * detection && back < 20 * detection, "{name}: {took:?}, back after {back:?}");
        self.rows.push([
            name.to_owned(),
            verdict.word().to_owned(),
            format!("{took:.0?} = {:.1}", times(took)),
            if there > 0 { "as before" } else { "other server" }.to_owned(),
            match verdict {
                Verdict::Gone => "end with the process",
                Verdict::Down => "reset, both ends",
                Verdict::Full | Verdict::Alarm => "go on",
            }
            .to_owned(),
            format!("{slowest:.0?}"),
            format!("{back:.0?} = {:.1}", times(back)),
        ]);
    }

    fn print(&self) {
        let titles = ["illness", "verdict", "after", "new sessions", "open sessions", "told within", "up again after"];
        let rows = std::iter::once(titles.map(str::to_owned)).chain(self.rows.iter().cloned()).collect::<Vec<_>>();
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let Cadence { inter, fastinter, timeout, fall, .. } = cadence();
        println!(
            "inter {inter:?}, fastinter {fastinter:?}, timeout {timeout:?}, fall {fall}, login every {RELOGIN:?}; \
             in units of timeout + (fall - 1) × fastinter = {:?}",
            cadence().detection()
        );
        for row in &rows {
            let cells: Vec<String> =
                row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at))).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}

/// It goes away with the link.
fn way_to_clients() -> String {
    format!("route replace 10.80.1.0/24 via {}\n", addr::INTERNAL_VIP)
}

/// New connections to the server's port reach another one; open ones go on.
fn impostor(host: &Host, port: Option<u16>) -> Result<()> {
    let mut rules = "table ip impostor\ndelete table ip impostor\n".to_owned();
    if let Some(port) = port {
        rules += "table ip impostor {\n chain pre {\n type nat hook prerouting priority dstnat;\n";
        rules += &format!(" tcp dport 3306 tcp flags & (syn | ack) == syn redirect to :{port}\n }}\n}}\n");
    }
    host.check_with_input(&["nft", "-f", "-"], &rules).map(drop)
}

/// What it does with a connection.
type Act = fn(TcpStream) -> std::io::Result<()>;

/// What no MySQL server can be made to do. One thread per connection; they end with the program.
fn scripted(ward: &Ward, port: u16, act: Act) {
    let address = SocketAddrV4::new(ward.rs1().address(), port);
    let listener = ward.rs1().host().enter(|| Ok(TcpListener::bind(address)?)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || act(stream));
        }
    });
}

fn garbage(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")?;
    linger(stream)
}

/// The longest packet there is, and all of it.
fn longest(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(&[0xff, 0xff, 0xff, 0])?;
    stream.write_all(&vec![10; 0xff_ffff])
}

fn break_off(address: SocketAddrV4) -> Result<()> {
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.read(&mut [0; 256])?;
    }
    Ok(())
}

#[test]
fn every_illness_has_its_verdict_and_nobody_hangs() {
    use Verdict::{Alarm, Down, Full, Gone};
    let mut ward = Ward::new();
    ward.falls_ill("mysqld stopped", Gone, "", |w| w.rs1().stop(), |w| w.rs1().start());
    ward.falls_ill("mysqld killed (-9)", Gone, "", |w| w.rs1().kill9(), |w| w.rs1().start());
    ward.falls_ill("mysqld frozen (SIGSTOP)", Down, "", |w| w.rs1().freeze(), |w| w.rs1().thaw());
    ward.falls_ill(
        "host unplugged",
        Down,
        "",
        |w| w.rs1().host().ip_batch("link set eth0 down\n"),
        |w| w.rs1().host().ip_batch(&format!("link set eth0 up\n{}", way_to_clients())),
    );
    for (name, verdict) in [
        ("port filtered: drop", "drop"),
        ("port rejecting: RST", "reject with tcp reset"),
        ("port rejecting: ICMP", "reject"),
    ] {
        let firewall = |w: &Ward, verdict| health::firewall(w.rs1().host(), verdict);
        ward.falls_ill(name, Down, "", |w| firewall(w, Some(verdict)), |w| firewall(w, None));
    }

    let sql = |w: &Ward, text: &str| w.rs1().sql(text).map(drop);
    // Root is let in beyond the limit, so somebody without privileges has to fill it.
    let (user, password) = ("crowd", "crowd");
    sql(&ward, &format!("CREATE USER {user}@localhost IDENTIFIED BY '{password}'")).unwrap();
    let crowd = Cell::new(None);
    ward.falls_ill(
        "max_connections reached (1040)",
        Full,
        "",
        |w| {
            sql(w, "SET GLOBAL max_connections = 20")?;
            crowd.set(Some(health::crowd(&w.rs1().socket(), user, password, LIMIT)?));
            Ok(())
        },
        |w| {
            drop(crowd.take());
            sql(w, "SET GLOBAL max_connections = 2000")
        },
    );
    ward.falls_ill(
        "host blocked (1129)",
        Alarm,
        "FLUSH HOSTS",
        |w| w.lab.d1().host().enter(|| break_off(SocketAddrV4::new(w.rs1().address(), addr::MYSQL_PORT))),
        |w| sql(w, "FLUSH HOSTS"),
    );
    let alter =
        |w: &Ward, to: &str| sql(w, &format!("ALTER USER {}@'192.168.80.%' IDENTIFIED BY '{to}'", health::USER));
    ward.falls_ill("access denied (1045)", Alarm, "1045", |w| alter(w, "another"), |w| alter(w, health::PASSWORD));
    ward.falls_ill(
        "read_only flipped",
        Down,
        "not writable: read_only = 1",
        |w| sql(w, "SET GLOBAL read_only = 1"),
        |w| sql(w, "SET GLOBAL read_only = 0"),
    );
    for thread in ["SQL", "IO"] {
        let (stop, start) = (format!("STOP SLAVE {thread}_THREAD"), format!("START SLAVE {thread}_THREAD"));
        let name = format!("replication stopped: {thread} thread");
        ward.falls_ill(&name, Down, "thread is not running", |w| sql(w, &stop), |w| sql(w, &start));
    }
    let acts: [(u16, Act, &str, &str); 3] = [
        (4001, garbage, "server answers garbage", "wrong sequence number"),
        (4002, drip, "greeting of 1 byte/s", "wedged"),
        (4003, longest, "greeting of 16 MiB", "senseless"),
    ];
    for (port, act, name, cause) in acts {
        scripted(&ward, port, act);
        ward.falls_ill(name, Down, cause, |w| impostor(w.rs1().host(), Some(port)), |w| impostor(w.rs1().host(), None));
    }
    ward.print();
}

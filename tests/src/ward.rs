//! Two replicas behind the VIP, which can be made ill, and their source: real servers of either make.

use std::{
    cell::{Ref, RefCell, RefMut},
    net::SocketAddrV4,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_userspace::{
    control::protocol::{CheckView, Status},
    health::Cadence,
};
use mysql::prelude::Queryable as _;
use nix::sys::signal::Signal;

use crate::{
    health,
    lab::{AgentOptions, Host, Lab, LabOptions, MariadbOptions, Mysql, Server, addr, now, wait_for},
};

const LIMIT: Duration = Duration::from_secs(30);
/// Sessions through the VIP that are open when somebody falls ill.
const OPEN: usize = 8;
/// A session that is not told hangs for minutes; one that is told answers in milliseconds. Between them is room enough.
const HANGS: Duration = Duration::from_secs(5);
/// A check logs in anew after so long: what only a login can notice is noticed then.
const RELOGIN: Duration = Duration::from_millis(400);

/// Whose servers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Debian's MariaDB.
    Mariadb,
    /// A MySQL of today.
    Mysql,
}

/// What the checks are to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The process is gone, and its sessions with it.
    Gone,
    /// It takes no sessions, and those that are open are reset.
    Down,
    /// It takes no new sessions.
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

/// The servers, and what was seen. The first one falls ill, the second serves on, the third is the source of both.
#[derive(Debug)]
pub struct Ward {
    // Ends before its hosts do.
    mysqls: Vec<RefCell<Mysql>>,
    /// The network.
    pub lab: Lab,
    cadence: Cadence,
    rows: Vec<[String; 7]>,
}

/// It goes away with the link. Without names to look up in vain, a server knows the way to its clients and no other.
fn way_to_clients() -> String {
    format!("route replace 10.80.1.0/24 via {}\n", addr::INTERNAL_VIP)
}

impl Ward {
    /// Starts everything, and waits until both replicas are up.
    ///
    /// # Errors
    /// When something does not start.
    pub fn new(make: Make) -> Result<Self> {
        let options = MariadbOptions {
            performance_schema: true,
            resolve_names: true,
            extra: ["--max-connect-errors=1", "--log-bin"].map(str::to_owned).to_vec(),
            ..MariadbOptions::default()
        };
        let mariadb = (make == Make::Mariadb).then_some(options);
        let lab = LabOptions { servers: 3, mariadb, ..LabOptions::default() }.up()?;
        lab.take_vips(lab.d1())?;
        let ms = Duration::from_millis;
        // A first login by RSA takes a MySQL some time on a busy machine.
        let timeout = if make == Make::Mysql { ms(1000) } else { ms(400) };
        let (inter, fastinter, downinter) = (ms(200), ms(100), ms(200));
        let cadence = Cadence { inter, fastinter, downinter, timeout, rise: 2, fall: 3, jitter: 10 };
        let mut ward = Self { mysqls: Vec::new(), lab, cadence, rows: Vec::new() };
        for server in ward.lab.servers() {
            server.host().ip_batch(&way_to_clients())?;
        }
        match make {
            Make::Mariadb => ward.replicate_mariadb()?,
            Make::Mysql => ward.replicate_mysql()?,
        }
        ward.start_agent()?;
        ward.until("up at first", |check| check.state == "up")?;
        wait_for("the other one", LIMIT, || Ok((ward.check(1)?.state == "up").then_some(())))?;
        Ok(ward)
    }

    fn replicate_mariadb(&self) -> Result<()> {
        for at in 0..3 {
            self.sql_on(
                at,
                &format!("CREATE USER {}@'192.168.80.%' IDENTIFIED BY '{}'", health::USER, health::PASSWORD),
            )?;
            self.sql_on(at, &format!("GRANT SLAVE MONITOR ON *.* TO {}@'192.168.80.%'", health::USER))?;
        }
        self.sql_on(2, "CREATE USER repl@'192.168.80.%' IDENTIFIED BY 'repl'")?;
        self.sql_on(2, "GRANT REPLICATION SLAVE ON *.* TO repl@'192.168.80.%'")?;
        let place = self.sql_on(2, "SHOW MASTER STATUS")?.remove(0);
        for replica in [0, 1] {
            let change = format!(
                "CHANGE MASTER TO MASTER_HOST='{}', MASTER_USER='repl', MASTER_PASSWORD='repl', \
                 MASTER_LOG_FILE='{}', MASTER_LOG_POS={}, MASTER_CONNECT_RETRY=1",
                self.server(2).address(),
                place[0],
                place[1]
            );
            self.sql_on(replica, &change)?;
            self.sql_on(replica, "START SLAVE")?;
        }
        Ok(())
    }

    fn replicate_mysql(&mut self) -> Result<()> {
        for server in self.lab.servers() {
            let id = format!("--server-id={}", server.id());
            let gtid = ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"];
            let extra = [&gtid[..], &["--max-connect-errors=1", "--log-bin=bin", &id]].concat();
            self.mysqls.push(Mysql::start(server.host(), server.address(), &extra)?.into());
        }
        for statement in [
            format!("CREATE USER {}@'192.168.80.%' IDENTIFIED BY '{}'", health::USER, health::PASSWORD),
            format!("GRANT REPLICATION CLIENT ON *.* TO {}@'192.168.80.%'", health::USER),
            "CREATE USER repl@'192.168.80.%' IDENTIFIED BY 'repl'".to_owned(),
            "GRANT REPLICATION SLAVE ON *.* TO repl@'192.168.80.%'".to_owned(),
            format!("CREATE DATABASE {}", addr::DATABASE),
            format!("CREATE USER {}@'10.80.1.%' IDENTIFIED BY '{}'", addr::USER, addr::PASSWORD),
            format!("GRANT ALL ON {}.* TO {}@'10.80.1.%'", addr::DATABASE, addr::USER),
        ] {
            self.sql_on(2, &statement)?;
        }
        let change = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{}', SOURCE_USER='repl', SOURCE_PASSWORD='repl', \
             SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1",
            self.server(2).address()
        );
        for replica in [0, 1] {
            for statement in ["RESET BINARY LOGS AND GTIDS", &change, "START REPLICA"] {
                self.sql_on(replica, statement)?;
            }
        }
        // The accounts come with the rest; this is the last thing the source was told.
        let granted = format!("SELECT db FROM mysql.db WHERE user = '{}'", addr::USER);
        for replica in [0, 1] {
            wait_for("the accounts", LIMIT, || Ok((!self.sql_on(replica, &granted)?.is_empty()).then_some(())))?;
        }
        Ok(())
    }

    fn start_agent(&self) -> Result<()> {
        let mut agent = self.lab.agent_options();
        agent.services[0].backends.truncate(2);
        let file = health::password_file(self.lab.d1().host(), health::PASSWORD)?;
        let Cadence { inter, fastinter, downinter, timeout, rise, fall, .. } = self.cadence;
        let time = |time: Duration| format!("\"{}ms\"", time.as_millis());
        let check = format!(
            "[service.check]\nlevel = \"query\"\ncondition = \"writable, replica\"\nmax_lag = \"10s\"\n\
             user = {:?}\npassword_file = {:?}\ninter = {}\nfastinter = {}\ndowninter = {}\ntimeout = {}\n\
             relogin = {}\nrise = {rise}\nfall = {fall}\n",
            health::USER,
            file.display().to_string(),
            time(inter),
            time(fastinter),
            time(downinter),
            time(timeout),
            time(RELOGIN),
        );
        self.lab.d1().start_agent(&AgentOptions { check, ..agent })
    }

    fn server(&self, at: usize) -> &Server {
        &self.lab.servers()[at]
    }

    fn mysql_of(&self, at: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.server(at).address(), addr::MYSQL_PORT)
    }

    fn mysql(&self, at: usize) -> Option<Ref<'_, Mysql>> {
        self.mysqls.get(at).map(RefCell::borrow)
    }

    fn patient(&self) -> Option<RefMut<'_, Mysql>> {
        self.mysqls.first().map(RefCell::borrow_mut)
    }

    /// The host of the first server.
    pub fn host(&self) -> &Host {
        self.server(0).host()
    }

    /// Where the first server listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.mysql_of(0)
    }

    /// Runs a statement as root on a server.
    ///
    /// # Errors
    /// The server's own.
    pub fn sql_on(&self, at: usize, statement: &str) -> Result<Vec<Vec<String>>> {
        match self.mysql(at) {
            Some(mysql) => mysql.sql(statement),
            None => self.server(at).sql(statement),
        }
    }

    /// Runs a statement as root on the first server.
    ///
    /// # Errors
    /// The server's own.
    pub fn sql(&self, statement: &str) -> Result<()> {
        self.sql_on(0, statement).map(drop)
    }

    /// The unix socket of a server.
    pub fn socket(&self, at: usize) -> PathBuf {
        self.mysql(at).map_or_else(|| self.server(at).socket(), |mysql| mysql.socket())
    }

    /// Ends the first server in order.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.patient().map_or_else(|| self.server(0).stop(), |mut mysql| mysql.end(false))
    }

    /// Kills the first server.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill9(&self) -> Result<()> {
        self.patient().map_or_else(|| self.server(0).kill9(), |mut mysql| mysql.end(true))
    }

    /// Starts the first server again.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start(&self) -> Result<()> {
        self.patient().map_or_else(|| self.server(0).start(), |mut mysql| mysql.start_again())
    }

    /// The first server gets no CPU any more.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Result<()> {
        self.patient().map_or_else(|| self.server(0).freeze(), |mysql| mysql.signal(Signal::SIGSTOP))
    }

    /// It gets CPU again.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Result<()> {
        self.patient().map_or_else(|| self.server(0).thaw(), |mysql| mysql.signal(Signal::SIGCONT))
    }

    /// Takes the first server's host off the network, or puts it back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn plug(&self, into: bool) -> Result<()> {
        let batch =
            if into { format!("link set eth0 up\n{}", way_to_clients()) } else { "link set eth0 down\n".into() };
        self.host().ip_batch(&batch)
    }

    /// What the checks of a server say.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn check(&self, server: usize) -> Result<CheckView> {
        let status: Status = self.lab.d1().ctl(&["status"])?;
        let at = self.mysql_of(server);
        status.checks.into_iter().find(|check| check.address == at).with_context(|| format!("no checks of {at}"))
    }

    /// Waits until the checks say so of the first server; answers what they say.
    ///
    /// # Errors
    /// When they do not; the message holds what they say.
    pub fn until(&self, what: &str, wanted: impl Fn(&CheckView) -> bool) -> Result<CheckView> {
        wait_for(what, LIMIT, || Ok(Some(self.check(0)?).filter(|check| wanted(check))))
            .with_context(|| format!("{:#?}\n{}", self.check(0), self.lab.d1().agent_log().unwrap_or_default()))
    }

    /// Opens a session through the VIP; answers it with the server that it is of.
    ///
    /// # Errors
    /// The login fails.
    pub fn session(&self) -> Result<(mysql::Conn, u32)> {
        let mut session = self.lab.client().connect(addr::SERVICE)?;
        let id: Option<u32> = session.query_first("SELECT @@server_id")?;
        Ok((session, id.unwrap_or(0)))
    }

    fn sessions(&self, count: usize) -> Vec<(mysql::Conn, u32)> {
        (0..count).map(|_| self.session().unwrap()).collect()
    }

    /// Sessions of applications that the first server knows of.
    fn known(&self) -> Result<usize> {
        let sessions = self.sql_on(0, "SHOW PROCESSLIST")?;
        Ok(sessions.iter().filter(|session| session[1] == addr::USER).count())
    }

    /// Makes the first server ill and well again, and looks at everything.
    ///
    /// # Panics
    /// When something is not as it must be.
    pub fn falls_ill(
        &mut self,
        name: &str,
        verdict: Verdict,
        cause: &str,
        make: impl FnOnce(&Self) -> Result<()>,
        heal: impl FnOnce(&Self) -> Result<()>,
    ) {
        let (well, ill) = (self.server(1).id(), self.server(0).id());
        let mut open = self.sessions(OPEN);
        let of = |open: &[(mysql::Conn, u32)], id| open.iter().filter(|(_, of)| *of == id).count();
        assert_eq!((of(&open, ill), of(&open, well)), (OPEN / 2, OPEN / 2), "{name}");

        let began = now();
        make(self).unwrap();
        let found = self.until(name, |check| verdict.holds(check)).unwrap();
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
        self.until(name, |check| check.state == "up" && check.trouble.is_none()).unwrap();
        let back = healed.elapsed();
        // Nothing is left of what was reset, at its own end either.
        let left = if stays { OPEN / 2 + there } else { 0 };
        wait_for(&format!("{name}: the server's own ends"), LIMIT, || Ok((self.known()? == left).then_some(())))
            .unwrap_or_else(|error| panic!("{error:#}: {:?} of {left}", self.known()));
        drop((open, new));
        wait_for("everybody to leave", LIMIT, || Ok((self.known()? == 0).then_some(()))).unwrap();
        let both = self.sessions(4);
        assert_eq!((of(&both, ill), of(&both, well)), (2, 2), "{name}: it serves again");
        drop(both);
        wait_for("everybody to leave", LIMIT, || Ok((self.known()? == 0).then_some(()))).unwrap();

        let detection = self.cadence.detection();
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

    /// Prints what was seen, as a table.
    pub fn print(&self) {
        let titles = ["illness", "verdict", "after", "new sessions", "open sessions", "told within", "up again after"];
        let rows = std::iter::once(titles.map(str::to_owned)).chain(self.rows.iter().cloned()).collect::<Vec<_>>();
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let Cadence { inter, fastinter, timeout, fall, .. } = self.cadence;
        println!(
            "inter {inter:?}, fastinter {fastinter:?}, timeout {timeout:?}, fall {fall}, login every {RELOGIN:?}; \
             in units of timeout + (fall - 1) × fastinter = {:?}",
            self.cadence.detection()
        );
        for row in &rows {
            let cells: Vec<String> =
                row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at))).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}

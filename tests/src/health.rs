//! Checks of backends inside a host of the lab: the part `health` of the agent with real sockets, without the agent.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_userspace::health::{
    Health, Plan,
    io::{Report, Target, Watch, WatchView},
};

use crate::lab::{Host, now, wait_for};

/// A user of MariaDB or MySQL that checks log in as.
pub const USER: &str = "lb_check";
/// Its password: long enough that no test finds it by chance.
pub const PASSWORD: &str = "Zx7-check-pw-Qq9";

/// Checks that run in a host until they are dropped.
pub struct Checks {
    reports: Arc<Mutex<Vec<(Instant, Report)>>>,
    watch: Arc<Watch>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    started: Instant,
}

impl Checks {
    /// Starts checks of `targets` from `host`, all backends of service 0 in this order; `known` as for [`Target`].
    ///
    /// # Errors
    /// When the runtime does not start.
    pub fn start(host: &Host, targets: &[(SocketAddrV4, Plan)], known: Option<bool>) -> Result<Self> {
        let targets: Vec<Target> = targets
            .iter()
            .enumerate()
            .map(|(backend, (address, plan))| Target {
                service: 0,
                backend,
                address: *address,
                plan: Arc::new(plan.clone()),
                known,
            })
            .collect();
        let started = now();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (made, making) = mpsc::sync_channel(1);
        let (host, noted) = (host.clone(), Arc::clone(&reports));
        let thread = thread::spawn(move || {
            let run = || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
                runtime.block_on(async {
                    let (watch, mut received) = Watch::start(targets, u64::from(std::process::id()))?;
                    let watch = Arc::new(watch);
                    let _ = made.send(Arc::clone(&watch));
                    drop(made);
                    let note = async {
                        while let Some(report) = received.recv().await {
                            noted.lock().unwrap_or_else(PoisonError::into_inner).push((now(), report));
                        }
                    };
                    tokio::select! {
                        _ = stopped => {}
                        () = note => {}
                    }
                    watch.stop().await;
                    Ok(())
                })
            };
            if let Err(error) = host.enter(run) {
                eprintln!("checks: {error:#}");
            }
        });
        let watch = making.recv().context("the checks did not start")?;
        Ok(Self { reports, watch, stop: Some(stop), thread: Some(thread), started })
    }

    fn reports(&self) -> MutexGuard<'_, Vec<(Instant, Report)>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every change of a backend's health so far, with the time since the start.
    pub fn changes(&self, backend: usize) -> Vec<(Duration, Health)> {
        let of_backend = |(at, report): &(Instant, Report)| match report {
            Report::Health { backend: of, health, .. } if *of == backend => {
                Some((at.duration_since(self.started), health.clone()))
            }
            _ => None,
        };
        self.reports().iter().filter_map(of_backend).collect()
    }

    /// Waits until the health of a backend is as wanted, and returns it with how long that took.
    ///
    /// # Errors
    /// When it is not within `limit`; the message holds its last checks.
    pub fn until(
        &self,
        backend: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Health) -> bool,
    ) -> Result<(Health, Duration)> {
        let began = now();
        let found = wait_for(what, limit, || {
            let last = self.changes(backend).pop().map(|(_, health)| health);
            Ok(last.filter(|health| wanted(health)))
        });
        match found {
            Ok(health) => Ok((health, began.elapsed())),
            Err(error) => bail!("{error:#}; {}", self.story(backend)),
        }
    }

    /// The last checks of a backend, for messages.
    pub fn story(&self, backend: usize) -> String {
        let Some(view) = self.view(backend) else { return "not checked".into() };
        let lines: Vec<String> =
            view.history.iter().map(|l| format!("{} × {} {} ({:?})", l.count, l.word, l.text, l.latency)).collect();
        format!("last checks: {}; changes: {:?}", lines.join("; "), self.changes(backend))
    }

    /// What there is to show of a backend.
    pub fn view(&self, backend: usize) -> Option<WatchView> {
        self.watch.view(0, backend)
    }

    /// Number of checks of a backend that the history still knows.
    pub fn count(&self, backend: usize) -> u64 {
        self.view(backend).map_or(0, |view| view.history.iter().map(|line| line.count).sum())
    }

    /// Ends the checks, their connections in order.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A host's own firewall does with packets to its MySQL server what `verdict` says in nft's words; `None`: nothing.
///
/// # Errors
/// When nft refuses it.
pub fn firewall(host: &Host, verdict: Option<&str>) -> Result<()> {
    let mut rules = "table inet ill\ndelete table inet ill\n".to_owned();
    if let Some(verdict) = verdict {
        rules += "table inet ill {\n chain input {\n type filter hook input priority filter;\n";
        rules += &format!(" tcp dport 3306 {verdict}\n }}\n}}\n");
    }
    host.check_with_input(&["nft", "-f", "-"], &rules).map(drop)
}

/// Lets a host use a port again a second after a connection of it has ended, as a host with many short connections must:
/// by default it takes a minute, and there are 28,000.
///
/// # Errors
/// When the kernel refuses.
pub fn reuse_ports(host: &Host) -> Result<()> {
    host.sysctl("ipv4/tcp_tw_reuse", "1")
}

/// Connections that fill a server, until they are dropped.
///
/// One refused login is not enough: it may have counted a connection that was about to end, and what then comes in
/// is the check. So whatever room there is again is taken again.
pub struct Crowd {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

/// Logs in over the unix socket, without privileges, until the server has no room, and keeps it so.
///
/// # Errors
/// When a login fails in another way, or the server takes everybody within `limit`.
pub fn crowd(socket: &Path, user: &str, password: &str, limit: Duration) -> Result<Crowd> {
    let socket = Some(socket.display().to_string());
    let options: mysql::Opts = mysql::OptsBuilder::new().socket(socket).user(Some(user)).pass(Some(password)).into();
    let enter = move || match mysql::Conn::new(options.clone()) {
        Ok(conn) => Ok(Some(conn)),
        Err(mysql::Error::MySqlError(error)) if error.code == 1040 => Ok(None),
        Err(other) => Err(other).context("log in"),
    };
    let mut inside = Vec::new();
    wait_for("a full server", limit, || {
        let conn = enter()?;
        let full = conn.is_none();
        inside.extend(conn);
        Ok(full.then_some(()))
    })?;
    let (end, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // A server that is stopped meanwhile is the business of the test.
            inside.extend(enter().ok().flatten());
        }
    });
    Ok(Crowd { end: Some(end), thread: Some(thread) })
}

/// A file with a password that only root can read.
///
/// # Errors
/// When it cannot be written.
pub fn password_file(host: &Host, password: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = host.directory().join("check.pw");
    std::fs::write(&path, format!("{password}\n")).context("write the password")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).context("protect the password")?;
    Ok(path)
}

/// A server that never says anything, until the client leaves.
///
/// # Errors
/// When the connection breaks.
pub fn linger(mut stream: TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// A greeting at a byte a second: never enough to go on, never silent.
///
/// # Errors
/// When the connection breaks.
pub fn drip(mut stream: TcpStream) -> io::Result<()> {
    for byte in [0x4a, 0, 0, 0, 10].into_iter().chain(std::iter::repeat_n(b'5', 60)) {
        stream.write_all(&[byte])?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The beginning of another protocol.
///
/// # Errors
/// When the connection breaks.
pub fn garbage(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")?;
    linger(stream)
}

/// The longest packet there is, and all of it.
///
/// # Errors
/// When the connection breaks.
pub fn longest(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&[0xff, 0xff, 0xff, 0])?;
    stream.write_all(&vec![10; 0xff_ffff])
}

/// What a scripted server does with a connection.
pub type Act = fn(TcpStream) -> io::Result<()>;

/// Does on `host` what no MySQL server can be made to do. One thread per connection; they end with the program.
///
/// # Errors
/// When the address cannot be listened at.
pub fn scripted(host: &Host, address: SocketAddrV4, act: Act) -> Result<()> {
    let listener = host.enter(|| Ok(TcpListener::bind(address)?))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || act(stream));
        }
    });
    Ok(())
}

/// Breaks three logins off behind the greeting, which a server holds against the calling thread's host.
///
/// # Errors
/// When nothing listens there.
pub fn break_off(address: SocketAddrV4) -> Result<()> {
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.read(&mut [0; 256])?;
    }
    Ok(())
}

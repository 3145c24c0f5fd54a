//! The real server on a socket of its own, with a handler that holds sample data, and ways to run the real `lbctl`.

use lb_common::{
    backend::BackendState,
    conn::{Origin, Proto},
    counter::Counter,
    service::Scheduler,
    tcp::State,
};
use lb_userspace::control::{
    protocol::{
        ApiError, BackendAction, BackendAnswer, BackendCommand, BackendTraffic, BackendView, ConnFilter, ConnView,
        DiffView, ErrorCode, FailoverAnswer, FailoverStep, InterfaceView, Mode, ServiceView, StatsView, Status,
        SyncView, TableView, Traffic,
    },
    server::{ConnSink, ControlSocket, Handler, Limits, Reply, serve_with},
};
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};

pub(crate) const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 80, 1, 243), 3306);
pub(crate) const FIRST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 80, 167), 3306);
pub(crate) const SECOND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 80, 136), 3306);

/// The data behind the socket.
pub(crate) struct Sample {
    services: Mutex<Vec<ServiceView>>,
    readings: AtomicU64,
    pub(crate) conns: u64,
    /// Conns handed to the sink, over all listings.
    pub(crate) pushed: AtomicU64,
    /// Listings that have come to their end, one way or another.
    pub(crate) listings: AtomicU64,
}

fn backend(address: SocketAddrV4, weight: u16) -> BackendView {
    BackendView {
        address,
        forward: "Masq".to_owned(),
        weight,
        state: BackendState::Up,
        word: String::new(),
        active: 9,
        inactive: 2,
        left: None,
        disagreement: None,
    }
}

impl Sample {
    pub(crate) fn new(conns: u64) -> Self {
        let service = |name: &str, port, backends| ServiceView {
            name: name.to_owned(),
            listen: SocketAddrV4::new(*VIP.ip(), port),
            protocol: Proto::Tcp,
            scheduler: Scheduler::Wrr,
            backends,
            active: 18,
            inactive: 4,
        };
        let services = vec![
            service("rw", 3306, vec![backend(FIRST, 3), backend(SECOND, 1)]),
            service("ro", 3307, vec![backend(SECOND, 1)]),
        ];
        Self {
            services: Mutex::new(services),
            readings: AtomicU64::new(0),
            conns,
            pushed: AtomicU64::new(0),
            listings: AtomicU64::new(0),
        }
    }

    /// The conn of this number: clients count up from 10.80.1.0:40000, the backends alternate.
    pub(crate) fn conn(number: u64) -> ConnView {
        let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 80, 1, 0).to_bits() + u32::try_from(number / 10).unwrap());
        let port = 40_000 + u16::try_from(number % 10).unwrap();
        ConnView {
            protocol: Proto::Tcp,
            expires_seconds: 28_860 - number % 100,
            state: if number % 5 == 4 { State::TimeWait } else { State::Established },
            client: SocketAddrV4::new(client, port),
            vip: VIP,
            destination: if number.is_multiple_of(2) { FIRST } else { SECOND },
            service: "rw".to_owned(),
            idle_seconds: number % 100,
            age_seconds: number % 1000,
            bytes_in: 1000 + number,
            bytes_out: 9000 + number,
            origin: if number.is_multiple_of(7) { Origin::Peer } else { Origin::Local },
            client_port_at_backend: (number.is_multiple_of(11)).then_some(1024),
        }
    }

    pub(crate) fn status() -> Status {
        let interface = |name: &str, ifindex, mode| InterfaceView {
            name: name.to_owned(),
            ifindex,
            mode,
            why: "mode = \"auto\": the driver supports it".to_owned(),
            link_id: 90 + ifindex,
            program_id: 151,
            attached_seconds: Some(7200),
        };
        Status {
            version: 1,
            agent_version: "0.1.0".to_owned(),
            abi: 1,
            pid: 4242,
            uptime_seconds: 61,
            config_path: "/etc/lb/lb.toml".into(),
            pin_dir: "/sys/fs/bpf/lb/v1".into(),
            interfaces: vec![interface("ext0", 2, Mode::Xdp), interface("int0", 3, Mode::Tc)],
            tables: vec![TableView { name: "conns".to_owned(), entries: 40, capacity: 200_000, bytes: 32 << 20 }],
            services: 2,
            backends: 3,
            backends_up: 3,
            events_lost: 0,
            warnings: vec!["rp_filter is strict on int0: sysctl -w net.ipv4.conf.int0.rp_filter=2".to_owned()],
            checks: Vec::new(),
            vrrp: None,
            sync: None,
        }
    }
}

impl Handler for Sample {
    fn status(&self) -> Reply<'_, Status> {
        Box::pin(async { Ok(Self::status()) })
    }

    fn services(&self) -> Reply<'_, Vec<ServiceView>> {
        Box::pin(async { Ok(self.services.lock().unwrap().clone()) })
    }

    fn conns(&self, filter: &ConnFilter, sink: &mut ConnSink) -> Result<(), ApiError> {
        if let Some(name) = &filter.service
            && !self.services.lock().unwrap().iter().any(|s| s.name == *name)
        {
            return Err(ApiError::new(ErrorCode::UnknownService, format!("no service is called '{name}'")));
        }
        for number in 0..self.conns {
            self.pushed.fetch_add(1, SeqCst);
            if sink.push(&Self::conn(number)).is_break() {
                break;
            }
        }
        self.listings.fetch_add(1, SeqCst);
        Ok(())
    }

    fn stats(&self) -> Reply<'_, Vec<StatsView>> {
        let n = 1 + self.readings.fetch_add(1, SeqCst);
        let traffic = |k: u64| Traffic {
            conns: 100 * n * k,
            in_packets: 1000 * n * k,
            out_packets: 2000 * n * k,
            in_bytes: 100_000 * n * k,
            out_bytes: 200_000_000 * n * k,
        };
        let backend = |address, k| BackendTraffic { address, traffic: traffic(k) };
        let backends = vec![backend(FIRST, 3), backend(SECOND, 1)];
        let view = StatsView { name: "rw".to_owned(), listen: VIP, protocol: Proto::Tcp, total: traffic(4), backends };
        Box::pin(async { Ok(vec![view]) })
    }

    fn counters(&self) -> Reply<'_, Vec<(Counter, u64)>> {
        let counters = Counter::ALL.iter().map(|c| (*c, if *c == Counter::NoConn { 7 } else { 0 })).collect();
        Box::pin(async { Ok(counters) })
    }

    fn backend(&self, command: BackendCommand) -> Reply<'_, BackendAnswer> {
        Box::pin(async move {
            let mut services = self.services.lock().unwrap();
            let (service, backend) = command.find(&services).map(|(s, b)| (s.name.clone(), b.address))?;
            let backends = services.iter_mut().filter(|s| s.name == service).flat_map(|s| &mut s.backends);
            let backend = backends.into_iter().find(|b| b.address == backend).expect("find found it");
            match command.action {
                BackendAction::Drain { .. } | BackendAction::Disable => {
                    (backend.weight, backend.state) = (0, BackendState::Draining);
                }
                BackendAction::Undrain | BackendAction::Enable => {
                    (backend.weight, backend.state) = (1, BackendState::Up);
                }
                BackendAction::Kill => backend.active = 0,
                BackendAction::Weight { weight } => backend.weight = weight,
            }
            Ok(BackendAnswer { service, backend: backend.clone() })
        })
    }

    fn failover(&self, drill: bool, force: bool) -> Reply<'_, FailoverAnswer> {
        let step = |role: &str, gap_us| FailoverStep {
            role: role.to_owned(),
            peer: Some(Ipv4Addr::new(10, 80, 1, 242)),
            gap_us,
            conns: [40, 40],
        };
        let mut steps = vec![step("Backup", 1500)];
        steps.extend(drill.then(|| step("Active", 900)));
        let refusal = ApiError::new(ErrorCode::NotSynced, "the peer lacks conns");
        Box::pin(async move { if force { Err(refusal) } else { Ok(FailoverAnswer { steps }) } })
    }

    fn peer(&self) -> Reply<'_, SyncView> {
        Box::pin(async { Err(ApiError::new(ErrorCode::NoSync, "there is no [sync] in the config")) })
    }

    fn diff(&self, limit: u64) -> Reply<'_, Vec<DiffView>> {
        let conn = DiffView {
            client: "10.80.1.1:40000".parse().unwrap(),
            vip: "10.80.1.243:3306".parse().unwrap(),
            destination: "192.168.80.167:3306".parse().unwrap(),
            state: State::Established,
            idle_seconds: 75,
            ended: false,
            why: "waits".to_owned(),
        };
        Box::pin(async move { Ok(vec![conn; usize::try_from(limit.min(2)).unwrap()]) })
    }
}

/// A served socket. Dropping it stops the server.
pub(crate) struct Agent {
    pub(crate) sample: Arc<Sample>,
    pub(crate) socket: PathBuf,
    pub(crate) dir: TempDir,
    serving: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl Agent {
    pub(crate) fn start(conns: u64) -> Self {
        Self::with_limits(conns, Limits::default())
    }

    pub(crate) fn with_limits(conns: u64, limits: Limits) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("run/lb/agent.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sample = Arc::new(Sample::new(conns));
        let serving = {
            let _inside = runtime.enter();
            let listener = ControlSocket::bind(&socket).unwrap();
            runtime.spawn(serve_with(listener, Arc::clone(&sample) as Arc<dyn Handler>, limits))
        };
        Self { sample, socket, dir, serving: Some(serving), runtime: Some(runtime) }
    }

    /// Runs `lbctl` with these words, separated by blanks.
    pub(crate) fn lbctl(&self, line: &str) -> Ran {
        lbctl(&self.socket, line)
    }

    /// Stops the server as an agent does that ends cleanly.
    pub(crate) fn stop(&mut self) {
        if let (Some(serving), Some(runtime)) = (self.serving.take(), self.runtime.take()) {
            serving.abort();
            // Aborted is how it should have ended.
            let _ = runtime.block_on(serving);
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a run of `lbctl` left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The output of a run that must have gone well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// Checks a run that must have failed with a message and without output.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(message) && self.out.is_empty(), "{self:?}");
    }
}

/// A command for `lbctl`, cut off from the caller's environment.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command.env_remove("LB_SOCKET").args(line.split_whitespace());
    command
}

pub(crate) fn lbctl(socket: &Path, line: &str) -> Ran {
    Ran::of(command(line).arg("--socket").arg(socket).output().unwrap())
}

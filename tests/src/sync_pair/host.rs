//! One director: a thread in a network namespace of its own, with a packet path, and its sync when it is started.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    TestRun as _, TestRunOptions,
    maps::MapInfo,
    programs::{SchedClassifier, loaded_programs},
};
use lb_common::{abi, abi::map, conn::FlowKey};
use lb_userspace::{
    agent::ConnTable,
    datapath::{Datapath, InterfaceSettings, Mode, Settings, TableSizes, Timeouts, versioned},
    sync::{self, Bell, Input, Key, Peer, Psk, Running, Services, Table, Tell, Tenths, Write},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    ip,
    packet::{Packet, Tcp, tcp},
};

const MYSQL: u16 = 3306;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 243);
const BACKEND: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 167);
const EXT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 241];
const INT_MAC: [u8; 6] = [2, 0, 0, 0, 80, 101];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 7];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 80, 167];
const EXT: u32 = 11;
const INT: u32 = 12;
const CLIENT_ISN: u32 = 1000;
const BACKEND_ISN: u32 = 500_000;

/// How large the tables are, and how the sync is set.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Conns that the table is planned for.
    pub conns: u32,
    /// The pause between heartbeats.
    pub heartbeat: Duration,
}

/// The threads of this process that carry a sync.
pub(super) fn sync_threads() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        // A thread may end while its name is read.
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "lb-sync" {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// When which conns of the peer were in the packet path's table.
pub type Written = Arc<Mutex<Vec<(Key, Instant)>>>;

/// The ends of the n-th conn.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    client: SocketAddrV4,
}

impl Ends {
    /// The n-th.
    #[must_use]
    pub fn nth(n: u32) -> Self {
        // 50,000 ports of each client, all of them behind a router.
        let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + n / 50_000);
        Self { client: SocketAddrV4::new(client, 10_000 + (n % 50_000) as u16) }
    }

    /// The client's address.
    #[must_use]
    pub fn client_ip(&self) -> Ipv4Addr {
        *self.client.ip()
    }

    /// The conn's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { client: self.client, vip: SocketAddrV4::new(VIP, MYSQL) }
    }

    /// The key of its forward entry.
    #[must_use]
    pub fn flow(&self) -> FlowKey {
        FlowKey::tcp((*self.client.ip()).into(), self.client.port(), VIP.into(), MYSQL)
    }

    /// A packet of the client.
    #[must_use]
    pub fn client(&self, sent: u32) -> Packet<Tcp> {
        tcp().from(self.client).to((VIP, MYSQL)).macs(ROUTER_MAC, EXT_MAC).seq(CLIENT_ISN + sent)
    }

    /// A packet of the backend.
    #[must_use]
    pub fn backend(&self, sent: u32) -> Packet<Tcp> {
        tcp().from((BACKEND, MYSQL)).to(self.client).macs(SERVER_MAC, INT_MAC).seq(BACKEND_ISN + sent)
    }

    /// The numbers that acknowledge the other side's SYN and so many bytes: the client's, the backend's.
    #[must_use]
    pub const fn acks(received: u32, sent: u32) -> [u32; 2] {
        [BACKEND_ISN + 1 + received, CLIENT_ISN + 1 + sent]
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A director.
pub struct Host {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    node: u16,
    setup: Setup,
    /// Its packet path.
    pub datapath: Arc<Datapath>,
    program: Arc<SchedClassifier>,
}

/// Two directors, connected.
///
/// # Errors
///
/// Without root, or without the object of `cargo xtask build-ebpf`.
pub fn pair(setup: Setup) -> Result<[Host; 2]> {
    let dir = tempfile::tempdir()?.keep();
    let (one, first) = Host::enter(&dir)?;
    let (other, second) = Host::enter(&dir)?;
    let line = format!("link add sync0 mtu 9000 type veth peer name sync0 mtu 9000 netns {second}");
    one.run(move || ip::batch(&line))??;
    let _ = first;
    let hosts = [one.finish(1, setup, &dir)?, other.finish(2, setup, &dir)?];
    // The namespaces hold the mounts; the empty directory is all that is left outside.
    let _ = std::fs::remove_dir(&dir);
    Ok(hosts)
}

/// A thread in namespaces of its own.
struct Room {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Room {
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        run(&self.jobs, work)
    }

    fn finish(self, node: u16, setup: Setup, dir: &Path) -> Result<Host> {
        let bpffs = dir.to_owned();
        let (datapath, program) = self.run(move || open(node, setup, &bpffs))??;
        Ok(Host {
            jobs: Some(self.jobs),
            thread: Some(self.thread),
            node,
            setup,
            datapath: Arc::new(datapath),
            program: Arc::new(program),
        })
    }
}

fn run<T: Send + 'static>(jobs: &mpsc::Sender<Job>, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, answer) = mpsc::channel();
    let job = Box::new(move || {
        let _ = done.send(work());
    });
    jobs.send(job).map_err(|_| anyhow!("the host's thread is gone"))?;
    answer.recv().context("the host's thread has panicked")
}

impl Host {
    /// A thread in new namespaces, and its number.
    fn enter(dir: &Path) -> Result<(Room, i32)> {
        let (jobs, work) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || work.into_iter().for_each(|job| job()));
        let room = Room { jobs, thread };
        let bpffs = dir.to_owned();
        let tid = room.run(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare: run as root")?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("detach the mounts")?;
            mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).context("mount a BPF file system")?;
            anyhow::Ok(nix::unistd::gettid().as_raw())
        })??;
        Ok((room, tid))
    }

    /// Runs something in the director's namespaces.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        run(self.jobs.as_ref().context("the host is being taken down")?, work)
    }

    /// Starts the sync; answers what it writes, too.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn start(&self) -> Result<(Running, Written)> {
        let written = Written::default();
        let (datapath, node, setup, log) = (self.datapath.clone(), self.node, self.setup, written.clone());
        let running = self.run(move || start(&datapath, node, setup, log))??;
        Ok((running, written))
    }

    /// A packet comes in; answers what leaves, if the packet path does not drop it or leave it to others.
    ///
    /// # Errors
    ///
    /// The kernel refuses to run the program.
    pub fn packet(&self, from_client: bool, packet: &Packet<Tcp>) -> Result<Option<Vec<u8>>> {
        let (program, frame) = (self.program.clone(), packet.build());
        self.run(move || send(&program, from_client, &frame))?
    }

    /// The handshakes of conns, each at its time after now; answers when each was complete. Blocks the host's thread.
    ///
    /// # Errors
    ///
    /// A packet did not go through.
    pub fn open(&self, conns: std::ops::Range<u32>, per_second: u32) -> Result<Vec<(Key, Instant)>> {
        let program = self.program.clone();
        let opened = self.run(move || open_conns(&program, conns, per_second))?;
        opened.with_context(|| {
            let counters = self.datapath.tables().counters().unwrap_or_default();
            let counters: Vec<_> = counters.into_iter().filter(|(_, count)| *count != 0).collect();
            format!("the packet path has counted {counters:?}")
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked: that was told.
            let _ = thread.join();
        }
    }
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn open(node: u16, setup: Setup, bpffs: &Path) -> Result<(Datapath, SchedClassifier)> {
    let network = format!(
        "link set lo up
         link add ext0 index {EXT} address {} type veth peer name ext0-far
         link add int0 index {INT} address {} type veth peer name int0-far
         addr add 10.80.1.24{node}/24 dev ext0
         addr add 192.168.80.10{node}/24 dev int0
         addr add 10.99.0.{node}/24 dev sync0
         link set ext0 up
         link set ext0-far up
         link set int0 up
         link set int0-far up
         link set sync0 up
         neigh add 10.80.1.7 lladdr {} dev ext0 nud permanent
         neigh add {BACKEND} lladdr {} dev int0 nud permanent
         route add 172.16.0.0/12 via 10.80.1.7 dev ext0
        ",
        mac(EXT_MAC),
        mac(INT_MAC),
        mac(ROUTER_MAC),
        mac(SERVER_MAC),
    );
    ip::batch(&network)?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("set ip_forward")?;
    let object: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lb.o");
    let object = std::fs::read(&object).context("read lb.o: build it with `cargo xtask build-ebpf`")?;
    let interface = |name: &str| InterfaceSettings { name: name.to_owned(), mode: Mode::Tc };
    let tables = TableSizes { conns: setup.conns, ..TableSizes::default() };
    let settings =
        Settings { pin_dir: bpffs.join("lb"), tables, interfaces: vec![interface("ext0"), interface("int0")] };
    let datapath = Datapath::open(&object, &settings)?;
    datapath.set_syn_recv(Timeouts::default().syn_recv)?;
    datapath.apply(&[crate::sandbox::service()])?;
    let conns = MapInfo::from_pin(versioned(&settings.pin_dir).join(map::CONNS)).context("the table of conns")?.id();
    let info = loaded_programs().flatten().find(|info| {
        // Others may run a packet path of their own.
        let maps = info.map_ids().ok().flatten().unwrap_or_default();
        info.name_as_str() == Some(abi::PROG_TC) && maps.contains(&conns)
    });
    let info = info.context("the packet path is not loaded")?;
    let program = SchedClassifier::from_program_info(info, abi::PROG_TC.into())?;
    Ok((datapath, program))
}

fn start(datapath: &Arc<Datapath>, node: u16, setup: Setup, written: Written) -> Result<Running> {
    let timeouts = Timeouts::default();
    let config = sync::Config {
        node,
        epoch: random()?,
        seed: random()?,
        keys: vec![Psk::new([7; 32])],
        insecure: false,
        fingerprint: 1,
        timeouts: sync::Timeouts::new(|state| timeouts.of(state)),
        capacity: setup.conns as usize,
        ends: setup.conns as usize,
        datagram: 1472,
        heartbeat: setup.heartbeat,
        refresh: Duration::from_secs(10),
    };
    let path = sync::Path {
        interface: "sync0".to_owned(),
        peer: Peer::Group(SocketAddrV4::new(Ipv4Addr::new(239, 255, 80, 81), 8848)),
    };
    let table = Noting { table: ConnTable::open(datapath)?, written };
    let running = Running::start(config, path, table, Box::new(|_| {}), Bell::new()?).context("start the sync")?;
    let mut services = Services::default();
    services.add(SocketAddrV4::new(VIP, MYSQL), SocketAddrV4::new(BACKEND, MYSQL));
    running.tell(Input::Services(services));
    Ok(running)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    use std::io::Read as _;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The real table, with a note of when conns of the peer were written.
struct Noting {
    table: ConnTable,
    written: Written,
}

impl Table for Noting {
    fn ring(&self) -> BorrowedFd<'_> {
        self.table.ring()
    }

    fn changes(&mut self, tell: &mut Tell<'_>) {
        self.table.changes(tell);
    }

    fn write(&mut self, writes: &[Write], tell: &mut Tell<'_>) {
        self.table.write(writes, tell);
        let now = now();
        let created = writes.iter().filter(|write| matches!(write, Write::Create { .. }));
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend(created.map(|write| (write.key(), now)));
    }

    fn begin_scan(&mut self) {
        self.table.begin_scan();
    }

    fn slice(&mut self, tell: &mut Tell<'_>) -> bool {
        self.table.slice(tell)
    }

    fn look(&mut self, key: &Key, tell: &mut Tell<'_>) {
        self.table.look(key, tell);
    }

    fn retire(&mut self, key: &Key, idle: Tenths, tell: &mut Tell<'_>) {
        self.table.retire(key, idle, tell);
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

fn send(program: &SchedClassifier, from_client: bool, frame: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut out = vec![0; frame.len() + 64];
    let port = if from_client { EXT } else { INT };
    // The start of struct __sk_buff: ingress_ifindex is word 9, ifindex word 10.
    let mut words = [0_u32; 11];
    (words[9], words[10]) = (port, port);
    let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).context("run the packet path")?;
    out.truncate(result.data_size_out as usize);
    // TC_ACT_REDIRECT.
    Ok((result.return_value == 7).then_some(out))
}

fn open_conns(program: &SchedClassifier, conns: std::ops::Range<u32>, per_second: u32) -> Result<Vec<(Key, Instant)>> {
    let began = now();
    let mut opened = Vec::with_capacity(conns.len());
    for (nth, n) in conns.enumerate() {
        let due = began + Duration::from_secs(1) * nth as u32 / per_second;
        if let Some(early) = due.checked_duration_since(now()) {
            thread::sleep(early);
        }
        let ends = Ends::nth(n);
        let [client, backend] = Ends::acks(0, 0);
        for (from_client, packet) in [
            (true, ends.client(0).syn()),
            (false, ends.backend(0).syn().ack(backend)),
            (true, ends.client(1).ack(client)),
        ] {
            let frame = packet.build();
            ensure!(
                send(program, from_client, &frame)?.is_some(),
                "of the handshake of conn {n}, this does not go through: {}",
                crate::packet::describe(&frame)
            );
        }
        opened.push((ends.key(), now()));
    }
    Ok(opened)
}

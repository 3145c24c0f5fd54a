//! Namespaces and a BPF file system of its own for each test, and what the tests of the packet path share.
//!
//! Every test runs in a thread with its own network and mount namespace: whatever happens, the kernel takes links,
//! pins, interfaces and mounts back when the thread ends.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use lb_common::{
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey, Origin},
    service::{OnDown, Refusal, Scheduler, ServiceKey},
    tcp::flag,
};
use lb_userspace::datapath::{
    self, Datapath, DesiredBackend, DesiredService, Error, InterfaceSettings, Mode, Settings, TableSizes,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// The eBPF object.
///
/// # Panics
///
/// It was not built.
#[must_use]
pub fn object() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lb.o");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run cargo xtask build-ebpf", path.display()))
}

/// The namespaces of one test.
pub struct Sandbox {
    /// Where its BPF file system is mounted.
    pub bpffs: PathBuf,
}

/// Runs a test in namespaces of its own, with a veth pair `va`–`vb`.
///
/// # Panics
///
/// The test does, or the caller is not root.
pub fn sandbox(test: impl FnOnce(&Sandbox) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let bpffs = dir.path().to_owned();
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare: these tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        run("ip link add va type veth peer name vb");
        test(&Sandbox { bpffs });
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command that must succeed, in the thread's namespaces; answers its output.
///
/// # Panics
///
/// It fails.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Sandbox {
    /// The pin directory of its agent.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.bpffs.join("lb")
    }

    /// The versioned pin directory.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        datapath::versioned(&self.root())
    }

    /// Small tables, and these interfaces.
    #[must_use]
    pub fn settings(&self, interfaces: &[(&str, Mode)]) -> Settings {
        Settings {
            pin_dir: self.root(),
            tables: TableSizes { conns: 20_000, half_open: 100, services: 4, backends: 16 },
            interfaces: interfaces
                .iter()
                .map(|(name, mode)| InterfaceSettings { name: (*name).to_owned(), mode: *mode })
                .collect(),
        }
    }

    /// Starts the packet path.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn open(&self, interfaces: &[(&str, Mode)]) -> Result<Datapath, Error> {
        Datapath::open(&object(), &self.settings(interfaces))
    }

    /// Starts the packet path, which must fail.
    ///
    /// # Panics
    ///
    /// It starts.
    pub fn refuse(&self, interfaces: &[(&str, Mode)]) -> Error {
        self.open(interfaces).map(drop).expect_err("the start should fail")
    }

    /// What lies in the versioned pin directory, by name.
    ///
    /// # Panics
    ///
    /// A name is not UTF-8.
    #[must_use]
    pub fn pinned(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.pins()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The client's address.
pub const CLIENT: Ipv4 = Ipv4::new([10, 80, 1, 1]);
/// The VIP.
pub const VIP: Ipv4 = Ipv4::new([10, 80, 1, 243]);
/// The backend's address.
pub const BACKEND: Ipv4 = Ipv4::new([192, 168, 80, 167]);

/// One service with one backend.
#[must_use]
pub fn service() -> DesiredService {
    DesiredService {
        name: "mysql".to_owned(),
        listen: ServiceKey::tcp(VIP, 3306),
        scheduler: Scheduler::Rr,
        no_conn: Refusal::Drop,
        no_backend: Refusal::Rst,
        on_down: OnDown::Rst,
        backends: vec![DesiredBackend { addr: BACKEND, port: 3306, weight: 1, drain: false, down: false, max_conn: 0 }],
    }
}

/// Both entries of a conn of the client's port.
#[must_use]
pub fn conn(port: u16) -> [(FlowKey, Conn); 2] {
    let forward = Conn {
        src: CLIENT,
        dst: BACKEND,
        sport: port,
        dport: 3306,
        backend: 0,
        dir: Direction::Forward,
        seen: flag::SYN | flag::ACK,
        macs: Default::default(),
        ifindex: 0,
        hop_gen: 0,
        last_seen: 7,
        ack: 1,
        seq: 2,
        created: 3,
        origin: Origin::Local,
        once: 0,
        mtu: 1500,
        bytes: 4,
    };
    let reverse = Conn { src: VIP, sport: 3306, dst: CLIENT, dport: port, dir: Direction::Reverse, ..forward };
    [(FlowKey::tcp(CLIENT, port, VIP, 3306), forward), (FlowKey::tcp(BACKEND, 3306, CLIENT, port), reverse)]
}

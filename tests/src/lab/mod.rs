//! A laboratory of network namespaces: clients, directors and real MariaDB servers in the classic setup.
//!
//! ```text
//!  client 10.80.1.1 ──┐                 d1 ext0 10.80.1.241   int0 192.168.80.101                ┌── rs1 .167
//!  client2 …          ├── br-client ──┤                                         ├── br-server ───┤
//!                     ┘                 d2 ext0 10.80.1.242   int0 192.168.80.102                └── rs2 .136
//!                    VIP 10.80.1.243         sync0 ── br-sync ── sync0      internal VIP 192.168.80.111
//! ```
//!
//! Every host is a namespace `lb-<id>-<host>`; the bridges are in `lb-<id>-sw`. Several labs run side by side. A
//! [`Lab`] removes all it made when it is dropped, on panic, on Ctrl-C; see [`cleanup`] for the rest.

pub mod addr;
mod adverts;
mod agent;
mod arp;
mod beat;
pub mod cleanup;
mod client;
mod count;
mod detour;
mod director;
mod disturb;
mod echo;
mod flood;
mod host;
mod inject;
mod jumble;
mod keepalived;
mod knock;
mod mariadb;
mod mysql;
mod netns;
mod operate;
mod passing;
mod process;
mod program;
mod pulse;
mod record;
mod rival;
mod segment;
mod slowlog;
mod sync;
mod sysbench;
mod tap;
mod template;
mod topology;
mod transfer;
mod usage;
mod vlan;
mod vrrp;
mod wait;
mod watch;
mod workload;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

pub use adverts::{Advert, Adverts};
pub use agent::{AgentOptions, BackendOptions, ServiceOptions, agent_socket, binary};
pub use arp::Asker;
pub use beat::Beat;
pub(crate) use client::login;
pub use client::{Client, Peer, peer};
pub use count::{PacketCounter, Seen};
pub use director::Director;
pub use disturb::{Disturbance, Hog, Loss, Way};
pub use echo::{EchoServer, EchoSession, survivors, talk_all};
pub use flood::{Flood, flood};
pub use host::Host;
pub use jumble::{Jumble, Jumbled};
pub use knock::Knocks;
pub use mariadb::{MariadbOptions, Server, Session};
pub use mysql::Mysql;
pub use operate::LinkFacts;
pub use process::Process;
pub use pulse::{Ends, Ping, Pulse, Record as PulseRecord};
pub use segment::Segment;
pub use slowlog::SlowLog;
pub use sync::SyncOptions;
pub use sysbench::{Sysbench, SysbenchOptions, SysbenchReport, prepare_sysbench};
pub use tap::{Frame, Offloads, Tap};
pub use transfer::Transfer;
pub use vlan::VlanTag;
pub use vrrp::{Checksum, VIPS, VrrpOptions};
pub use wait::{now, wait_for};
pub use watch::{Change, History, VipWatch};
pub use workload::Workload;

use process::Lifetime;
use record::Record;
use segment::Role;

/// Transmit checksum offload of the senders (clients and servers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// As veth has it: packets cross the lab with unfinished checksums and as super-frames. XDP cannot handle it.
    On,
    /// Senders finish their checksums: as on a real wire.
    Off,
}

impl Offload {
    /// As ethtool says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Name of the lab, part of every namespace name: up to 16 of a-z, 0-9. None makes a unique one.
    pub id: Option<String>,
    /// Clients, 10.80.1.1 and up.
    pub clients: usize,
    /// Directors, at most 2; two get a sync segment.
    pub directors: usize,
    /// MySQL servers: 192.168.80.167, .136, then .171 and up.
    pub servers: usize,
    /// Checksum offload of clients and servers.
    pub offload: Offload,
    /// How MariaDB runs on the servers; None leaves them without.
    pub mariadb: Option<MariadbOptions>,
    /// The lab outlives this process, until `cargo xtask lab down`.
    pub persistent: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            id: None,
            clients: 1,
            directors: 1,
            servers: 2,
            offload: Offload::On,
            mariadb: Some(MariadbOptions::default()),
            persistent: false,
        }
    }
}

impl LabOptions {
    /// Starts the lab: network up, MariaDB answering on every server. The VIPs are on nobody; see [`Lab::take_vips`].
    ///
    /// # Errors
    /// With the cause, after everything was removed again.
    pub fn up(&self) -> Result<Lab> {
        Lab::start(self)
    }
}

/// A running lab. Dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    lifetime: Lifetime,
    switch: Host,
    clients: Vec<Client>,
    directors: Vec<Director>,
    servers: Vec<Server>,
    // Last: the processes above are reaped by their handles, what remains is removed from the record.
    guard: Guard,
}

impl Lab {
    /// Starts with defaults: one client, one director, two servers, offload on.
    ///
    /// # Errors
    /// As [`LabOptions::up`].
    pub fn up() -> Result<Self> {
        LabOptions::default().up()
    }

    fn start(options: &LabOptions) -> Result<Self> {
        cleanup::install_signal_cleanup();
        let id = match &options.id {
            Some(id) if !id.is_empty() && id.len() <= 16 && id.bytes().all(is_id_byte) => id.clone(),
            Some(id) => bail!("`{id}` cannot name a lab: use 1 to 16 of a-z and 0-9"),
            None => unique_id(),
        };
        let directory = std::env::temp_dir().join(format!("lb-lab-{id}"));
        let guard = Guard { record: Arc::new(Record::create(&id, &directory)?) };
        cleanup::watch(&guard.record);
        cleanup::mount_bpffs()?;
        // The id is claimed, so files of that name are those of a lab that a reboot ended.
        cleanup::remove_tree(&directory)?;
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        // MariaDB runs as its own user and must reach its files below.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("open {} to MariaDB", directory.display()))?;

        let lifetime = if options.persistent { Lifetime::Detached } else { Lifetime::Owner };
        let network = topology::build(options, &id, &directory, lifetime, &guard.record)?;
        let (mut clients, mut directors, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for (plan, host) in network.hosts {
            let address = plan.links.first().context("a host without a link")?.address;
            match plan.role {
                Role::Client => clients.push(Client::new(host, address)),
                Role::Director => {
                    let (switch, index) = (network.switch.clone(), directors.len());
                    directors.push(Director::new(host, switch, &id, index, plan.links));
                }
                Role::Server => servers.push(Server::new(host, address)),
            }
        }
        if let Some(mariadb) = &options.mariadb {
            start_all(&servers, mariadb)?;
        }
        Ok(Self { id, directory, lifetime, switch: network.switch, clients, directors, servers, guard })
    }

    /// The lab's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The lab's files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The first client, 10.80.1.1.
    ///
    /// # Panics
    /// When the lab was built without clients.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// All clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The first director.
    ///
    /// # Panics
    /// When the lab was built without directors.
    pub fn d1(&self) -> &Director {
        &self.directors[0]
    }

    /// The second director.
    ///
    /// # Panics
    /// When the lab was built with fewer than two.
    pub fn d2(&self) -> &Director {
        &self.directors[1]
    }

    /// All directors.
    pub fn directors(&self) -> &[Director] {
        &self.directors
    }

    /// All MySQL servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server with that address.
    ///
    /// # Errors
    /// When no server has it.
    pub fn server(&self, address: Ipv4Addr) -> Result<&Server> {
        self.servers.iter().find(|server| server.address() == address).with_context(|| format!("no server {address}"))
    }

    /// The namespace with the bridges. A port is named after its host and interface: `d1-ext0`, `rs1-eth0`.
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Every host of the lab.
    pub fn hosts(&self) -> Vec<&Host> {
        let mut hosts = vec![&self.switch];
        hosts.extend(self.clients.iter().map(Client::host));
        hosts.extend(self.directors.iter().map(Director::host));
        hosts.extend(self.servers.iter().map(Server::host));
        hosts
    }

    /// A configuration for the agent: the classic service in front of all servers, round robin, weight 1.
    pub fn agent_options(&self) -> AgentOptions {
        AgentOptions::classic(self.servers.iter().map(Server::address))
    }

    /// Puts both VIPs on `holder` and off every other director, as an election does, and makes the segments forget
    /// who had them before.
    ///
    /// # Errors
    /// When an address cannot be changed.
    pub fn take_vips(&self, holder: &Director) -> Result<()> {
        for director in self.directors.iter().filter(|director| director.host().name() != holder.host().name()) {
            director.drop_vips()?;
        }
        holder.add_vips()?;
        let neighbours = self.clients.iter().map(Client::host).map(|host| (host, addr::VIP));
        let neighbours = neighbours.chain(self.servers.iter().map(Server::host).map(|host| (host, addr::INTERNAL_VIP)));
        for (host, vip) in neighbours {
            host.ip_batch(&format!("neigh flush to {vip}\n"))?;
        }
        Ok(())
    }

    /// Changes the transmit checksum offload of clients and servers while the lab runs.
    ///
    /// # Errors
    /// When ethtool fails on one.
    pub fn set_offload(&self, offload: Offload) -> Result<()> {
        let hosts = self.clients.iter().map(Client::host).chain(self.servers.iter().map(Server::host));
        for host in hosts {
            host.check(&["ethtool", "-K", segment::HOST_INTERFACE, "tx", offload.name()])?;
        }
        Ok(())
    }

    /// Leaves the lab running when this process ends. Only for a lab started with `persistent`.
    ///
    /// # Errors
    /// When the record cannot be written; the lab is removed then.
    pub fn persist(self) -> Result<()> {
        self.guard.record.persist()
    }

    /// Removes the lab now, and reports what dropping it would only print.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn down(self) -> Result<()> {
        self.guard.remove()
    }
}

#[derive(Debug)]
struct Guard {
    record: Arc<Record>,
}

impl Guard {
    fn remove(&self) -> Result<()> {
        match self.record.close() {
            Some(state) => cleanup::remove(&state),
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        cleanup::give_way();
        if let Err(error) = self.remove() {
            eprintln!("lab: {error:#}");
        }
    }
}

fn start_all(servers: &[Server], options: &MariadbOptions) -> Result<()> {
    let template = template::ensure()?;
    thread::scope(|scope| {
        let starts: Vec<_> = servers.iter().map(|server| scope.spawn(|| server.install(&template, options))).collect();
        starts
            .into_iter()
            .try_for_each(|start| start.join().map_err(|_| anyhow!("a thread that starts MariaDB panicked"))?)
    })
}

fn unique_id() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let letters: Vec<char> = ('a'..='z').collect();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let suffix = letters[count % letters.len()];
    match count / letters.len() {
        0 => format!("{}{suffix}", std::process::id()),
        round => format!("{}{suffix}{round}", std::process::id()),
    }
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

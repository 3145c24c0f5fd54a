//! The network a program sees during a test run: a namespace of its own with two ports, routes and neighbours.
//!
//! `bpf_fib_lookup` inside `BPF_PROG_TEST_RUN` asks the namespace of the ingress interface, so the namespace is real:
//! `ext0` towards the clients, `int0` towards the servers, all neighbours permanent. No packet ever leaves it.

use std::{fs::File, marker::PhantomData};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{ip, packet::Mac};

/// Index of `ext0`.
pub const EXT_IFINDEX: u32 = 11;
/// Index of `int0`.
pub const INT_IFINDEX: u32 = 12;
/// Link-layer address of `ext0`.
pub const EXT_MAC: Mac = [2, 0, 0, 0, 1, 241];
/// Link-layer address of `int0`.
pub const INT_MAC: Mac = [2, 0, 0, 0, 80, 101];

/// A client.
pub const CLIENT: &str = "10.80.1.1";
/// Another client.
pub const CLIENT2: &str = "10.80.1.2";
/// The VIP.
pub const VIP: &str = "10.80.1.243";
/// Another VIP.
pub const VIP2: &str = "10.80.1.244";
/// The first server.
pub const SERVER1: &str = "192.168.80.167";
/// The second server.
pub const SERVER2: &str = "192.168.80.136";
/// The third server.
pub const SERVER3: &str = "192.168.80.137";
/// A server on the clients' segment: its packets leave by the interface they came in by.
pub const SERVER_EXT: &str = "10.80.1.7";
/// A server on the right segment that nobody has ever heard of: no neighbour entry.
pub const SERVER_SILENT: &str = "192.168.80.200";
/// A server to which there is no route.
pub const SERVER_LOST: &str = "172.31.0.1";

/// A client behind a router, which is [`CLIENT2`].
pub const CLIENT_FAR: &str = "198.51.100.5";

/// The hosts with a permanent neighbour entry: on `ext0`, then on `int0`.
const NEIGHBOURS: [(&str, &[&str]); 2] =
    [("ext0", &[CLIENT, CLIENT2, SERVER_EXT]), ("int0", &[SERVER1, SERVER2, SERVER3])];

/// The link-layer address towards a host of the test network: `02:00` and the IPv4 address of the host or its router.
#[must_use]
#[track_caller]
pub fn mac_of(host: &str) -> Mac {
    let Ok(ip) = host.parse::<std::net::Ipv4Addr>() else { panic!("{host:?} is no IPv4 address") };
    let [a, b, c, d] = if host == CLIENT_FAR { return mac_of(CLIENT2) } else { ip.octets() };
    [2, 0, a, b, c, d]
}

/// A director's two ports, by where the packets that arrive there come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// `ext0`, towards the clients.
    Ext,
    /// `int0`, towards the servers.
    Int,
}

impl Port {
    /// Its interface index.
    #[must_use]
    pub const fn ifindex(self) -> u32 {
        match self {
            Self::Ext => EXT_IFINDEX,
            Self::Int => INT_IFINDEX,
        }
    }
}

/// The namespace, entered by the current thread; dropping it brings the thread back and the kernel removes it.
pub struct Network {
    before: File,
    /// A namespace belongs to a thread: the guard must stay on it.
    not_send: PhantomData<*const ()>,
}

impl Network {
    /// Makes the namespace and enters it.
    ///
    /// # Errors
    ///
    /// Without `CAP_SYS_ADMIN`, or when `ip` (iproute2) is missing or refuses.
    pub fn enter() -> Result<Self> {
        let before = File::open("/proc/thread-self/ns/net").context("open /proc/thread-self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET): run as root")?;
        let network = Self { before, not_send: PhantomData };
        ip::batch(&links()).context("set up the namespace")?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("set ip_forward")?;
        Ok(network)
    }

    /// Runs `ip` commands, one a line without the leading `ip`, in the namespace.
    ///
    /// # Errors
    ///
    /// When `ip` refuses one.
    pub fn ip(&self, commands: &str) -> Result<()> {
        ip::batch(commands)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            eprintln!("could not leave the test namespace: {error}");
        }
    }
}

/// The commands that set up ports, addresses and neighbours.
fn links() -> String {
    let mac = |mac: Mac| mac.map(|b| format!("{b:02x}")).join(":");
    let mut batch = format!(
        "link set lo up
         link add ext0 index {EXT_IFINDEX} address {} type veth peer name ext0-far
         link add int0 index {INT_IFINDEX} address {} type veth peer name int0-far
         addr add 10.80.1.241/24 dev ext0
         addr add {VIP}/32 dev ext0
         addr add {VIP2}/32 dev ext0
         addr add 192.168.80.101/24 dev int0
         addr add 192.168.80.111/32 dev int0
         link set ext0 up
         link set ext0-far up
         link set int0 up
         link set int0-far up
         route add 198.51.100.0/24 via {CLIENT2} dev ext0
        ",
        mac(EXT_MAC),
        mac(INT_MAC)
    );
    for (port, hosts) in NEIGHBOURS {
        for host in hosts {
            batch += &format!("neigh add {host} lladdr {} dev {port} nud permanent\n", mac(mac_of(host)));
        }
    }
    batch
}

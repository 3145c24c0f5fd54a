//! Hosts that a test adds to a running lab: a router on a segment, or two of them with a narrow link in front of a host.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use super::host::Host;
use super::segment::Segment;
use super::{Lab, addr};

/// The largest packet on an ordinary link.
const MTU: u32 = 1500;

impl Lab {
    /// Adds a host without any link. It is removed with the lab.
    ///
    /// # Errors
    /// When its namespace cannot be made.
    pub fn add_host(&self, name: &str) -> Result<Host> {
        Host::create(&self.id, name, &self.directory, self.lifetime, &self.guard.record)
    }

    /// Gives a host an interface on a segment, as its own hosts have it.
    ///
    /// # Errors
    /// When there is one of that name, or the segment does not exist.
    pub fn plug(&self, host: &Host, interface: &str, segment: Segment, address: Ipv4Addr) -> Result<()> {
        let (port, bridge) = (format!("{}-{interface}", host.name()), segment.bridge());
        let mac = addr::link(address).map(|byte| format!("{byte:02x}")).join(":");
        self.switch.ip_batch(&format!(
            "link add {port} type veth peer name {interface} address {mac} netns {}\nlink set {port} master {bridge} up\n",
            host.namespace()
        ))?;
        host.ip_batch(&format!("addr add {address}/24 dev {interface}\nlink set {interface} up\n"))
    }

    /// Takes a host off its segment and puts it behind two routers with a link of `mtu` bytes between them:
    ///
    /// ```text
    /// host eth0 ── far ══ narrow link ══ near ── segment
    /// ```
    ///
    /// The host keeps its address and reaches the VIP of its side through `far`; the directors reach it through `near`,
    /// at the segment's .200. Nobody clamps anything: the ends believe in 1,500 bytes until a router tells otherwise.
    /// Answers both routers, near and far.
    ///
    /// # Errors
    /// When a host or a link cannot be made.
    pub fn put_behind_narrow_link(&self, host: &Host, segment: Segment, mtu: u32) -> Result<(Host, Host)> {
        let address = self.address_of(host)?;
        let [a, b, c, _] = address.octets();
        let (near_address, far_address) = (Ipv4Addr::new(a, b, c, 200), Ipv4Addr::new(a, b, c, 201));
        let (vip, network) = match segment {
            Segment::Client => (addr::VIP, 80),
            Segment::Server => (addr::INTERNAL_VIP, 192),
            Segment::Sync => bail!("nobody lives on the sync segment"),
        };
        let (near_link, far_link) = (Ipv4Addr::new(10, 99, network, 1), Ipv4Addr::new(10, 99, network, 2));
        let near = self.add_host(&format!("{}near", host.name()))?;
        let far = self.add_host(&format!("{}far", host.name()))?;

        self.plug(&near, "eth0", segment, near_address)?;
        self.switch.ip_batch(&format!(
            "link set {}-eth0 netns {} name eth0\n\
             link add narrow mtu {mtu} netns {} type veth peer name narrow mtu {mtu} netns {}\n",
            host.name(),
            far.namespace(),
            near.namespace(),
            far.namespace()
        ))?;
        near.ip_batch(&format!(
            "addr add {near_link}/30 dev narrow\nlink set narrow up\nroute add {address}/32 via {far_link}\n\
             route add default via {vip}\n"
        ))?;
        far.ip_batch(&format!(
            "link set eth0 mtu {MTU}\naddr add {far_address}/32 dev eth0\nlink set eth0 up\n\
             addr add {far_link}/30 dev narrow\nlink set narrow up\nroute add {address}/32 dev eth0\n\
             route add default via {near_link}\n"
        ))?;
        for router in [&near, &far] {
            router.sysctl("ipv4/ip_forward", "1")?;
        }
        match segment {
            // Only the way to the service leads through the routers.
            Segment::Client => host.ip_batch(&format!("route replace {vip}/32 via {far_address}\n"))?,
            _ => host.ip_batch(&format!("route replace default via {far_address}\n"))?,
        }
        for director in &self.directors {
            director.host().ip_batch(&format!("route replace {address}/32 via {near_address}\n"))?;
        }
        Ok((near, far))
    }

    fn address_of(&self, host: &Host) -> Result<Ipv4Addr> {
        let clients = self.clients.iter().map(|client| (client.host(), client.address()));
        let servers = self.servers.iter().map(|server| (server.host(), server.address()));
        let mut ends = clients.chain(servers);
        let found = ends.find(|(known, _)| known.name() == host.name());
        found.map(|(_, address)| address).with_context(|| format!("{} is neither client nor server", host.name()))
    }
}

//! The wiring plan of a lab: which host has which interface on which bridge, with which address. Pure: it yields
//! the text of `ip -batch` files and ethtool scripts, and `topology` runs them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::addr;
use super::{LabOptions, Offload};

/// The interface of a client or server.
pub(crate) const HOST_INTERFACE: &str = "eth0";

/// A bridge in the switch namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// 10.80.1.0/24: clients and the external side of the directors.
    Client,
    /// 192.168.80.0/24: MySQL servers and the internal side of the directors.
    Server,
    /// 10.99.0.0/24: the directors among themselves; exists with two directors or more.
    Sync,
}

impl Segment {
    /// Name of the bridge.
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Client => "br-client",
            Self::Server => "br-server",
            Self::Sync => "br-sync",
        }
    }

    /// The interface of a director on it.
    pub fn director_interface(self) -> &'static str {
        match self {
            Self::Client => "ext0",
            Self::Server => "int0",
            Self::Sync => "sync0",
        }
    }
}

/// What a host is, which decides about its offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Director,
    Server,
}

/// One veth pair: an interface of a host, and its port in the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) interface: &'static str,
    pub(crate) segment: Segment,
    pub(crate) address: Ipv4Addr,
}

/// A host to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) links: Vec<Link>,
    /// Arguments of `ip route add`.
    pub(crate) route: Option<String>,
}

impl Plan {
    /// Name of the port in the switch that an interface is plugged into.
    pub(crate) fn port(&self, link: &Link) -> String {
        port(&self.name, link.interface)
    }

    /// `ip -batch` input for the host's own namespace.
    pub(crate) fn batch(&self) -> String {
        let mut text = String::from("link set lo up\n");
        for link in &self.links {
            let _ = writeln!(text, "addr add {}/24 dev {}", link.address, link.interface);
            let _ = writeln!(text, "link set {} up", link.interface);
        }
        if let Some(route) = &self.route {
            let _ = writeln!(text, "route add {route}");
        }
        text
    }
}

/// Name of the port in the switch that an interface of a host is plugged into.
pub(crate) fn port(host: &str, interface: &str) -> String {
    format!("{host}-{interface}")
}

/// Lays out the hosts of a lab.
pub(crate) fn plan(options: &LabOptions) -> Vec<Plan> {
    let link = |interface, segment, address| Link { interface, segment, address };
    let mut hosts = Vec::new();
    for index in 0..options.clients {
        hosts.push(Plan {
            name: if index == 0 { "client".to_owned() } else { format!("client{}", index + 1) },
            role: Role::Client,
            links: vec![link(HOST_INTERFACE, Segment::Client, addr::client(index))],
            // Past the service, straight to the servers: to prepare them, and to compare with.
            route: Some(format!("192.168.80.0/24 via {}", addr::director_external(0))),
        });
    }
    for index in 0..options.directors {
        let mut links = vec![
            link("ext0", Segment::Client, addr::director_external(index)),
            link("int0", Segment::Server, addr::director_internal(index)),
        ];
        if options.directors > 1 {
            links.push(link("sync0", Segment::Sync, addr::director_sync(index)));
        }
        hosts.push(Plan { name: format!("d{}", index + 1), role: Role::Director, links, route: None });
    }
    for index in 0..options.servers {
        hosts.push(Plan {
            name: format!("rs{}", index + 1),
            role: Role::Server,
            links: vec![link(HOST_INTERFACE, Segment::Server, addr::server(index))],
            route: Some(format!("default via {}", addr::INTERNAL_VIP)),
        });
    }
    hosts
}

/// `ip -batch` input for the switch: the bridges, and a veth pair into the namespace of every host.
pub(crate) fn switch_batch(hosts: &[Plan], namespace_of: impl Fn(&str) -> String) -> String {
    let mut segments: Vec<_> = hosts.iter().flat_map(|host| &host.links).map(|link| link.segment).collect();
    segments.sort_unstable();
    segments.dedup();

    let mut text = String::from("link set lo up\n");
    for segment in segments {
        // No spanning tree and no delay: a port forwards as soon as it is up. No snooping: VRRP and the sync group
        // are flooded, as by a switch without a querier.
        let bridge = segment.bridge();
        let _ = writeln!(text, "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        let _ = writeln!(text, "link set {bridge} up");
    }
    for host in hosts {
        for link in &host.links {
            let port = host.port(link);
            let (interface, mac, namespace) = (link.interface, mac(link.address), namespace_of(&host.name));
            let _ = writeln!(
                text,
                "link add {port} type veth peer name {interface} address {mac} netns {namespace}\n\
                 link set {port} master {} up",
                link.segment.bridge()
            );
        }
    }
    text
}

/// ethtool script for the switch. A frame that XDP sends out of a director arrives at the switch's end of the veth
/// pair, and vanishes there unless that end runs NAPI, which GRO switches on.
pub(crate) fn switch_ethtool(hosts: &[Plan]) -> String {
    hosts
        .iter()
        .filter(|host| host.role == Role::Director)
        .flat_map(|host| host.links.iter().map(|link| format!("ethtool -K {} gro on\n", host.port(link))))
        .collect()
}

/// ethtool script for a host. With transmit checksum offload a veth carries packets whose checksum is not filled in;
/// XDP cannot tell and would send them on broken.
pub(crate) fn host_ethtool(host: &Plan, offload: Offload) -> String {
    if offload == Offload::On || host.role == Role::Director {
        return String::new();
    }
    host.links.iter().map(|link| format!("ethtool -K {} tx off\n", link.interface)).collect()
}

fn mac(address: Ipv4Addr) -> String {
    addr::link(address).map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::lab::addr::{INTERNAL_VIP, MAX_HOSTS, VIP};

    #[test]
    fn the_largest_lab_has_no_address_or_name_twice() {
        let options = LabOptions { clients: MAX_HOSTS, directors: 2, servers: MAX_HOSTS, ..LabOptions::default() };
        let hosts = plan(&options);
        let mut seen: HashSet<Ipv4Addr> = HashSet::from([VIP, INTERNAL_VIP]);
        let mut ports = HashSet::new();
        for host in &hosts {
            for link in &host.links {
                assert!(seen.insert(link.address), "{} is used twice", link.address);
                let port = host.port(link);
                assert!(port.len() <= 15, "{port} is longer than the kernel allows");
                assert!(ports.insert(port));
            }
        }
    }

    #[test]
    fn two_directors_get_a_segment_of_their_own_and_one_does_not() {
        let segments = |directors| {
            plan(&LabOptions { directors, ..LabOptions::default() })
                .iter()
                .flat_map(|host| host.links.iter().map(|link| link.segment))
                .filter(|segment| *segment == Segment::Sync)
                .count()
        };
        assert_eq!((segments(1), segments(2)), (0, 2));
    }

    #[test]
    fn only_senders_lose_their_checksum_offload() {
        let scripts = |offload| {
            plan(&LabOptions::default())
                .iter()
                .filter(|host| !host_ethtool(host, offload).is_empty())
                .map(|host| host.name.clone())
                .collect::<Vec<_>>()
        };
        assert!(scripts(Offload::On).is_empty());
        assert_eq!(scripts(Offload::Off), ["client", "rs1", "rs2"]);
    }
}

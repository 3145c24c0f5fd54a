//! Where a transport works: its interface by index, and our own address on it.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use super::{
    Error, Transport,
    addresses::{self, Found},
};
use crate::netlink;

/// A VIP of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network.
    pub prefix: u8,
}

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
}

/// Where one transport works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) interface: Interface,
    /// Our address.
    pub(super) address: Ipv4Addr,
}

/// Finds the interface of every transport, and the address to send from.
pub(super) fn find(transports: &[Transport]) -> Result<Vec<Site>, Error> {
    let interfaces = list().map_err(Error::io("list the network interfaces"))?;
    let addresses = addresses::list().map_err(Error::io("list the addresses"))?;
    let vips: Vec<Vip> = transports.iter().flat_map(|transport| transport.vips.iter().copied()).collect();
    transports
        .iter()
        .map(|transport| {
            let name = &transport.interface;
            let interface = interfaces.iter().find(|interface| interface.name == *name);
            let interface = interface.cloned().ok_or_else(|| Error::NoInterface(name.clone()))?;
            let here: Vec<Found> = addresses.iter().filter(|found| found.ifindex == interface.index).copied().collect();
            let address = own(transport, &here, &vips)
                .ok_or_else(|| Error::NoAddress { interface: name.clone(), wanted: transport.address })?;
            Ok(Site { interface, address })
        })
        .collect()
}

/// Our address: the configured one, else the first one that is no VIP, of the VIP's network if there is one.
fn own(transport: &Transport, here: &[Found], vips: &[Vip]) -> Option<Ipv4Addr> {
    if let Some(wanted) = transport.address {
        return here.iter().any(|found| found.address == wanted).then_some(wanted);
    }
    let is_vip = |found: &Found| found.ours || vips.iter().any(|vip| vip.address == found.address);
    let mut candidates: Vec<&Found> = here.iter().filter(|found| !is_vip(found)).collect();
    let beside_a_vip = |found: &Found| {
        let mask = u32::MAX.checked_shl(32 - u32::from(found.prefix)).unwrap_or(0);
        transport.vips.iter().any(|vip| (vip.address.to_bits() ^ found.address.to_bits()) & mask == 0)
    };
    candidates.sort_by_key(|found| (!beside_a_vip(found), found.secondary));
    candidates.first().map(|found| found.address)
}

/// Every interface of this network namespace.
pub(super) fn list() -> std::io::Result<Vec<Interface>> {
    let answers = netlink::dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(interface(&link)),
            _ => None,
        })
        .collect())
}

fn interface(link: &LinkMessage) -> Interface {
    let mut interface = Interface { index: link.header.index, name: String::new(), mac: [0; 6] };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().unwrap_or_default(),
            _ => {}
        }
    }
    interface
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::{
        Version,
        interval::Interval,
        packet::{Auth, ChecksumKind, VirtualRouter},
    };

    fn transport(address: Option<Ipv4Addr>) -> Transport {
        let vip = Ipv4Addr::new(10, 80, 1, 243);
        let router = VirtualRouter {
            version: Version::V3,
            vrid: 52,
            auth: Auth::None,
            interval: Interval::SECOND,
            addresses: vec![vip],
            checksum: ChecksumKind::Message,
        };
        let vips = vec![Vip { address: vip, prefix: 24 }];
        Transport {
            interface: "ext0".into(),
            router,
            vips,
            address,
            peers: Vec::new(),
            unicast: false,
            virtual_mac: false,
        }
    }

    #[test]
    fn adverts_are_sent_from_the_hosts_own_address_in_the_vips_network() {
        let found = |octets: [u8; 4], prefix, ours, secondary| Found {
            ifindex: 3,
            address: octets.into(),
            prefix,
            ours,
            secondary,
        };
        let vip = found([10, 80, 1, 243], 24, false, false);
        let left = found([10, 80, 1, 244], 24, true, false);
        let other = found([172, 16, 0, 5], 12, false, false);
        let second = found([10, 80, 1, 240], 24, false, true);
        let first = found([10, 80, 1, 241], 24, false, false);
        let chosen = |wanted: Option<[u8; 4]>, here: &[Found]| {
            let transport = transport(wanted.map(Ipv4Addr::from));
            own(&transport, here, &transport.vips).map(|address| address.octets())
        };
        assert_eq!(chosen(None, &[vip, left, other, second, first]), Some([10, 80, 1, 241]));
        assert_eq!(chosen(None, &[vip, other]), Some([172, 16, 0, 5]));
        assert_eq!(chosen(None, &[vip, left]), None);
        assert_eq!(chosen(Some([10, 80, 1, 240]), &[first, second]), Some([10, 80, 1, 240]));
        assert_eq!(chosen(Some([10, 80, 1, 239]), &[first, second]), None);
    }
}

//! The network interfaces as the kernel describes them: one rtnetlink dump.
//!
//! Owns the question "which interfaces are there, of which kind, with which XDP program"; which hook suits one is
//! `mode`.

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};

use super::error::{Error, Result};
use crate::netlink;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NetDev {
    pub(super) index: u32,
    pub(super) name: String,
    /// The kind of a virtual interface, as in `ip -d link`.
    pub(super) kind: Option<String>,
    /// The bus of the device behind it: "pci", "virtio", …
    pub(super) bus: Option<String>,
    /// Its link-layer address, if it is an Ethernet one.
    pub(super) mac: Option<[u8; 6]>,
    /// It is a port of a bond or of a team.
    pub(super) bonded: bool,
    /// The XDP program it runs.
    pub(super) xdp: Option<XdpState>,
}

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpState {
    pub(super) program: Option<u32>,
    pub(super) generic: bool,
}

/// Every interface of this network namespace.
pub(super) fn list() -> Result<Vec<NetDev>> {
    let links = netlink::dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let links = links.map_err(Error::io("list the network interfaces"))?.into_iter();
    Ok(links
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(describe(&link)),
            _ => None,
        })
        .collect())
}

fn describe(link: &LinkMessage) -> NetDev {
    let mut dev = NetDev { index: link.header.index, ..NetDev::default() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => dev.name.clone_from(name),
            LinkAttribute::Address(mac) => dev.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::ParentDevBusName(bus) => dev.bus = Some(bus.clone()),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => dev.kind = Some(kind_name(kind)),
                        LinkInfo::PortKind(InfoPortKind::Bond) => dev.bonded = true,
                        LinkInfo::PortKind(InfoPortKind::Other(kind)) if kind == "team" => dev.bonded = true,
                        _ => {}
                    }
                }
            }
            LinkAttribute::Xdp(attributes) => dev.xdp = xdp_state(attributes),
            _ => {}
        }
    }
    dev
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

fn xdp_state(attributes: &[LinkXdp]) -> Option<XdpState> {
    let mut attached = None;
    let mut program = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => {}
            LinkXdp::Attached(mode) => attached = Some(*mode),
            LinkXdp::ProgId(id) => program = Some(*id),
            _ => {}
        }
    }
    attached.map(|mode| XdpState { program, generic: mode == XdpAttached::SocketBuffer })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_interface_is_always_there() {
        let found = super::list().unwrap();
        let lo = found.iter().find(|dev| dev.name == "lo").expect("lo");
        assert_eq!((lo.index, lo.xdp), (1, None));
    }
}

//! The virtual MAC address of a virtual router (RFC 9568 §7.3): a macvlan device above the interface, up only while this
//! director is Active. VIPs are on it, adverts and ARP leave by it.
//!
//! Below it the interface must not answer ARP with its own address, and the kernel must take packets that come by one of
//! the two and leave by the other (`Documentation/networking/ip-sysctl.rst`).

use std::{fs, io, path::Path};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode},
    },
    sys::Socket,
};

use super::{
    Error,
    place::{self, Interface},
};
use crate::netlink::{self, Order};

/// What the names of our devices begin with; VRID and the interface's index follow.
const PREFIX: &str = "lbv";

/// A virtual MAC address at work. Dropping it removes the device.
#[derive(Debug)]
pub(super) struct VirtualMac {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    socket: Socket,
    up: Order,
    down: Order,
    remove: Order,
}

/// The address that all directors of a virtual router share.
#[must_use]
pub const fn virtual_mac(vrid: u8) -> [u8; 6] {
    [0, 0, 0x5e, 0, 1, vrid]
}

impl VirtualMac {
    /// Makes the device, switched off.
    pub(super) fn create(parent: &Interface, vrid: u8) -> Result<Self, Error> {
        let name = format!("{PREFIX}{vrid}-{}", parent.index);
        let what = || format!("make the device {name} on {} for the virtual MAC", parent.name);
        let socket = netlink::open().map_err(Error::io(what()))?;
        // What an agent left that was killed may stand on another interface.
        remove_named(&socket, |found| found == name).map_err(Error::io(what()))?;
        let mac = virtual_mac(vrid);
        create(parent, &name, mac).give(&socket).map_err(Error::io(what()))?;
        let index = place::list().map_err(Error::io(what()))?.into_iter().find(|found| found.name == name);
        let index = index.ok_or_else(|| Error::NoInterface(name.clone()))?.index;
        let remove = Order::new(RouteNetlinkMessage::DelLink(of(index)), 0);
        let this = Self { index, mac, socket, up: switch(index, true), down: switch(index, false), remove };
        settings(&parent.name, &name).map_err(Error::io(format!("set the sysctls of {name}")))?;
        Ok(this)
    }

    /// Switches the device on.
    pub(super) fn up(&self) -> io::Result<()> {
        self.up.give(&self.socket)
    }

    /// Switches the device off.
    pub(super) fn down(&self) -> io::Result<()> {
        self.down.give(&self.socket)
    }
}

impl Drop for VirtualMac {
    fn drop(&mut self) {
        if let Err(error) = self.remove.give(&self.socket) {
            tracing::warn!(%error, index = self.index, "cannot remove the device of a virtual MAC");
        }
    }
}

/// Removes every device of ours; tells which.
pub(super) fn remove_all() -> io::Result<Vec<String>> {
    let is_ours = |name: &str| {
        let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        rest.is_some_and(|(vrid, index)| vrid.parse::<u8>().is_ok() && index.parse::<u32>().is_ok())
    };
    remove_named(&netlink::open()?, is_ours)
}

fn remove_named(socket: &Socket, is_ours: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut gone = Vec::new();
    for Interface { index, name, .. } in place::list()?.into_iter().filter(|found| is_ours(&found.name)) {
        Order::new(RouteNetlinkMessage::DelLink(of(index)), 0).give(socket)?;
        gone.push(name);
    }
    Ok(gone)
}

fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn switch(index: u32, up: bool) -> Order {
    let mut message = of(index);
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    Order::new(RouteNetlinkMessage::SetLink(message), 0)
}

fn create(parent: &Interface, name: &str, mac: [u8; 6]) -> Order {
    let mut message = LinkMessage::default();
    // In this mode adverts of a peer that come from the same address reach the interface below.
    let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Link(parent.index),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(mode)]),
    ];
    Order::new(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// The sysctls without which two interfaces in one network confuse the neighbours.
fn settings(parent: &str, name: &str) -> io::Result<()> {
    let set = |interface: &str, key: &str, value: &str| {
        fs::write(Path::new("/proc/sys/net/ipv4/conf").join(interface).join(key), value)
    };
    // Answer ARP only for addresses of the interface that was asked.
    set(parent, "arp_ignore", "1")?;
    set(name, "arp_ignore", "1")?;
    // Ask with an address of the interface that asks.
    set(parent, "arp_announce", "2")?;
    // The way back from the VIP is the interface below.
    set(name, "rp_filter", "0")?;
    let ipv6 = Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6");
    if ipv6.exists() { fs::write(ipv6, "1") } else { Ok(()) }
}

//! The VIPs as addresses of this host: put on, taken off, and brought in order at the start.
//!
//! Every address of ours carries a mark (`IFA_PROTO`, rtnetlink(7)), so that what a killed agent has left is told from
//! what the operator configured. Orders are made once; giving them allocates nothing.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope},
    },
    sys::Socket,
};

use super::Error;
use crate::netlink::{self, Order};

/// Our mark; the kernel's own are below 4.
const MARK: u8 = 112;

/// A VIP and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    /// The length of its network.
    pub(super) prefix: u8,
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// With a route to its network; not above another interface that has it.
    pub(super) plain: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ifindex: u32,
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    /// One of our agents put it there.
    pub(super) ours: bool,
    /// Not the first address of its network on the interface.
    pub(super) secondary: bool,
}

/// All IPv4 addresses of this host.
pub(super) fn list() -> io::Result<Vec<Found>> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let answers = netlink::dump(RouteNetlinkMessage::GetAddress(question))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => found(&message),
            _ => None,
        })
        .collect())
}

fn found(message: &AddressMessage) -> Option<Found> {
    let (mut address, mut ours) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => address = Some(*local),
            AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == MARK,
            _ => {}
        }
    }
    let header = &message.header;
    Some(Found {
        ifindex: header.index,
        address: address?,
        prefix: header.prefix_len,
        ours,
        secondary: header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

/// The VIPs of this director.
#[derive(Debug)]
pub(super) struct Addresses {
    socket: Socket,
    places: Vec<Place>,
    add: Vec<Order>,
    /// As `add`, and refused if it is there.
    restore: Vec<Order>,
    remove: Vec<Order>,
}

impl Addresses {
    pub(super) fn new(places: Vec<Place>) -> io::Result<Self> {
        let orders = |make: fn(AddressMessage) -> Order| places.iter().map(|place| make(message(place))).collect();
        Ok(Self {
            socket: netlink::open()?,
            add: orders(|message| Order::new(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)),
            restore: orders(|message| Order::new(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)),
            remove: orders(|message| Order::new(RouteNetlinkMessage::DelAddress(message), 0)),
            places,
        })
    }

    /// Takes off what an earlier agent left, and every VIP that somebody else configured; tells about it.
    pub(super) fn reconcile(&self) -> Result<Vec<String>, Error> {
        let before = list().map_err(Error::io("list the addresses"))?;
        let (gone, notes) = plan(&self.places, &before)?;
        for Found { address, prefix, ifindex, .. } in gone {
            let what = format!("remove {address}/{prefix}");
            removal(address, prefix, ifindex).give(&self.socket).or_else(absent).map_err(Error::io(what))?;
        }
        Ok(notes)
    }

    /// One of the VIPs.
    pub(super) fn is_vip(&self, address: Ipv4Addr) -> bool {
        self.places.iter().any(|place| place.address == address)
    }

    /// Puts all VIPs on.
    pub(super) fn add(&self) -> io::Result<()> {
        self.add.iter().try_for_each(|order| order.give(&self.socket))
    }

    /// Puts back what somebody took off; `true`: something was missing.
    pub(super) fn restore(&self) -> io::Result<bool> {
        let mut missing = false;
        for order in &self.restore {
            match order.give(&self.socket) {
                Ok(()) => missing = true,
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// Takes all VIPs off, as many as are there.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for order in &self.remove {
            if let Err(error) = order.give(&self.socket).or_else(absent) {
                result = Err(error);
            }
        }
        result
    }
}

/// Keeps the other addresses of a network when the first of them goes: a VIP may be the first one.
pub(super) fn keep_secondaries(interface: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(interface).join("promote_secondaries");
    fs::write(path, "1")
}

/// It was not there, which is what was wanted.
fn absent(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => Ok(()),
        _ => Err(error),
    }
}

/// Takes off what any agent left; tells what.
pub(super) fn remove_ours() -> io::Result<Vec<String>> {
    let socket = netlink::open()?;
    let mut gone = Vec::new();
    for Found { address, prefix, ifindex, .. } in list()?.into_iter().filter(|found| found.ours) {
        removal(address, prefix, ifindex).give(&socket).or_else(absent)?;
        gone.push(format!("{address}/{prefix}"));
    }
    Ok(gone)
}

fn removal(address: Ipv4Addr, prefix: u8, ifindex: u32) -> Order {
    let place = Place { address, prefix, interface: String::new(), ifindex, plain: true };
    Order::new(RouteNetlinkMessage::DelAddress(message(&place)), 0)
}

fn message(place: &Place) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = place.prefix;
    message.header.index = place.ifindex;
    message.header.scope = AddressScope::Universe;
    let address = IpAddr::V4(place.address);
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Protocol(AddressProtocol::from(MARK)),
    ];
    if !place.plain {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    }
    message
}

/// What to take off before the election starts, and what to say about it.
fn plan(places: &[Place], before: &[Found]) -> Result<(Vec<Found>, Vec<String>), Error> {
    let is_vip = |found: &Found| places.iter().find(|place| place.address == found.address);
    let mut notes = Vec::new();
    let mut gone = Vec::new();
    for found in before {
        let vip = is_vip(found);
        if vip.is_none() && !found.ours {
            continue;
        }
        let Found { address, prefix, .. } = *found;
        let on = places.iter().find(|place| place.ifindex == found.ifindex);
        let interface = on.map_or_else(|| format!("interface {}", found.ifindex), |place| place.interface.clone());
        if found.ours {
            notes.push(format!("took {address}/{prefix} off {interface}: an agent that ended without a word left it"));
        } else {
            // Without another address there, it is the host's own, and the host would be gone from the network.
            let another = |other: &Found| other.ifindex == found.ifindex && !other.ours && is_vip(other).is_none();
            if !before.iter().any(another) {
                return Err(Error::OwnAddress { address, interface });
            }
            notes.push(format!(
                "took {address}/{prefix} off {interface}: it is a VIP, and no agent put it there; remove it from the \
                 host's network configuration"
            ));
        }
        gone.push(*found);
    }
    Ok((gone, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 243);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 241);

    fn places() -> Vec<Place> {
        vec![Place { address: VIP, prefix: 24, interface: "ext0".into(), ifindex: 3, plain: true }]
    }

    fn there(ifindex: u32, address: Ipv4Addr, prefix: u8, ours: bool) -> Found {
        Found { ifindex, address, prefix, ours, secondary: false }
    }

    #[test]
    fn what_an_agent_left_goes_wherever_it_is_and_what_others_made_stays() {
        let old = Ipv4Addr::new(10, 80, 1, 9);
        let before = [
            there(3, OWN, 24, false),
            there(3, VIP, 24, true),
            there(5, VIP, 32, true),
            there(3, old, 24, true),
            there(4, Ipv4Addr::new(192, 168, 80, 101), 24, false),
        ];
        let (gone, notes) = plan(&places(), &before).unwrap();
        let gone: Vec<_> = gone.iter().map(|found| (found.ifindex, found.address)).collect();
        assert_eq!(gone, [(3, VIP), (5, VIP), (3, old)]);
        assert!(notes.iter().all(|note| note.contains("an agent that ended")), "{notes:?}");
        assert!(notes[0].contains("10.80.1.243/24 off ext0") && notes[1].contains("interface 5"), "{notes:?}");
    }

    #[test]
    fn a_vip_that_the_operator_configured_goes_with_a_word_to_him() {
        let before = [there(3, OWN, 24, false), there(3, VIP, 32, false)];
        let (gone, notes) = plan(&places(), &before).unwrap();
        assert_eq!(gone, [before[1]]);
        assert!(
            notes[0].contains("10.80.1.243/32 off ext0") && notes[0].contains("network configuration"),
            "{notes:?}"
        );
    }

    #[test]
    fn the_hosts_only_address_is_never_taken_for_a_vip() {
        let before = [there(3, VIP, 24, false), there(4, OWN, 24, false)];
        assert!(matches!(plan(&places(), &before), Err(Error::OwnAddress { address: VIP, .. })));
    }

    #[test]
    fn an_address_carries_our_mark() {
        assert_eq!(found(&message(&places()[0])), Some(there(3, VIP, 24, true)));
    }
}

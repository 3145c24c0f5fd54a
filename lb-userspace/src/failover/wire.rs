//! One transport on the wire: adverts both ways, announcements, and what came of them.

use std::net::Ipv4Addr;

use super::{
    Difference, Error, Transport, TransportStatus,
    arp::Announcer,
    place::Site,
    socket::{AdvertSocket, is_whole},
    vmac::VirtualMac,
};
use crate::vrrp::packet::{Advert, DecodeError, GROUP, Notes, Receiver, Sender};

/// Kinds of [`Difference`].
const DIFFERENCES: usize = 3;

/// Longer than any packet of ours; longer ones are cut, and then of a wrong length.
const PACKET: usize = 2048;

/// What goes to one destination: encoded once.
#[derive(Debug)]
struct Destination {
    to: Ipv4Addr,
    sender: Sender,
    /// With our priority.
    advert: Vec<u8>,
    /// With priority 0.
    resign: Vec<u8>,
}

/// A transport.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ifindex: u32,
    pub(super) socket: AdvertSocket,
    pub(super) status: TransportStatus,
    pub(super) announcer: Announcer,
    priority: u8,
    receiver: Receiver,
    destinations: Vec<Destination>,
    buffer: Box<[u8]>,
    /// The device of the virtual MAC.
    above: Option<VirtualMac>,
    /// The differences that were told about.
    told: [bool; DIFFERENCES],
}

/// What a turn of reading found.
pub(super) enum Read {
    /// An advert that counts.
    Advert(Advert),
    /// Something else; it is counted.
    Ignored,
    /// Nothing is left.
    Empty,
}

impl Wire {
    pub(super) fn open(
        transport: &Transport,
        site: &Site,
        above: Option<VirtualMac>,
        priority: u8,
    ) -> Result<Self, Error> {
        let name = &transport.interface;
        let index = site.interface.index;
        let groups = [GROUP];
        let to: &[Ipv4Addr] = if transport.unicast { &transport.peers } else { &groups };
        let destinations = to.iter().map(|to| {
            let peer = transport.unicast.then_some(*to);
            let sender = Sender { router: transport.router.clone(), source: site.address, peer };
            Destination { to: *to, advert: sender.encode(priority), resign: sender.encode(0), sender }
        });
        let socket = AdvertSocket::open(index, above.as_ref().map(|above| above.index), !transport.unicast);
        let vips = transport.vips.iter().map(|vip| vip.address).collect();
        let (by, mac) = above.as_ref().map_or((index, site.interface.mac), |above| (above.index, above.mac));
        let announcer = Announcer::open(by, mac, vips);
        Ok(Self {
            ifindex: index,
            socket: socket.map_err(Error::io(format!("open the VRRP sockets on {name}")))?,
            status: TransportStatus::default(),
            announcer: announcer.map_err(Error::io(format!("open a socket for ARP on {name}")))?,
            priority,
            receiver: Receiver {
                router: transport.router.clone(),
                address: site.address,
                owner: false,
                // Nobody owns a VIP of a pair; a foreign router may.
                accept_owner: false,
                peers: transport.peers.clone(),
            },
            destinations: destinations.collect(),
            buffer: vec![0; PACKET].into(),
            above,
            told: [false; DIFFERENCES],
        })
    }

    /// Reads one packet.
    pub(super) fn read(&mut self) -> std::io::Result<Read> {
        let Some(packet) = self.socket.receive(&mut self.buffer)? else { return Ok(Read::Empty) };
        let outcome = if is_whole(packet) { self.receiver.decode(packet) } else { Err(DecodeError::IpHeader) };
        self.status.received.count(&outcome);
        Ok(outcome.map_or(Read::Ignored, Read::Advert))
    }

    /// Sends an advert everywhere.
    pub(super) fn send(&mut self, priority: u8) -> std::io::Result<()> {
        let mut result = Ok(());
        for destination in &self.destinations {
            let made;
            let packet = match priority {
                0 => &destination.resign,
                priority if priority == self.priority => &destination.advert,
                priority => {
                    made = destination.sender.encode(priority);
                    &made
                }
            };
            match self.socket.send(packet, destination.to) {
                Ok(()) => self.status.sent += 1,
                Err(error) => {
                    self.status.send_errors += 1;
                    result = Err(error);
                }
            }
        }
        result
    }

    /// The interface has another link-layer address now.
    pub(super) fn set_mac(&mut self, mac: [u8; 6]) {
        if self.above.is_none() {
            self.announcer.set_mac(mac);
        }
    }

    /// The VIPs come: their device is switched on.
    pub(super) fn rise(&self) -> std::io::Result<()> {
        self.above.as_ref().map_or(Ok(()), VirtualMac::up)
    }

    /// The VIPs are gone: their device is switched off.
    pub(super) fn sink(&self) -> std::io::Result<()> {
        self.above.as_ref().map_or(Ok(()), VirtualMac::down)
    }

    /// In what an advert that counts differs from ours, if that was not told before.
    pub(super) fn news(&mut self, advert: &Advert) -> Option<Difference> {
        let Notes { other_addresses, other_interval, other_checksum, we_own: _ } = advert.notes;
        let found = [
            (Difference::Checksum, other_checksum),
            (Difference::Addresses, other_addresses),
            // An Active's interval is learned; only what both are configured to counts.
            (Difference::Interval, other_interval),
        ];
        let new = found.into_iter().find(|(difference, there)| *there && !self.told[*difference as usize]);
        new.map(|(difference, _)| {
            self.told[difference as usize] = true;
            difference
        })
    }
}

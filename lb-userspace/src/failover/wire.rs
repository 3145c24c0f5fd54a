//! One transport on the wire: adverts both ways, announcements, and what came of them.

use std::net::Ipv4Addr;

use super::{
    Difference, Error, Transport, TransportStatus,
    arp::Announcer,
    place::Site,
    socket::{AdvertSocket, is_whole},
    vmac::VirtualMac,
};
use crate::{
    ha,
    vrrp::packet::{Advert, DecodeError, GROUP, Notes, Receiver, Sender},
};

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
    /// The reasons to ignore adverts that were told about.
    told_ignored: [bool; DecodeError::ALL.len()],
}

/// What a turn of reading found.
pub(super) enum Read {
    /// An advert that counts.
    Advert(Advert),
    /// Something else; it is counted. The first of its kind that claims to be of our virtual router is news.
    Ignored(Option<(Ipv4Addr, DecodeError)>),
    /// Nothing is left.
    Empty,
}

impl Wire {
    pub(super) fn open(
        transport: &Transport,
        site: &Site,
        above: Option<VirtualMac>,
        election: &ha::Config,
    ) -> Result<Self, Error> {
        let priority = election.priority;
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
                // Nobody owns a VIP of a pair; another router may have it as its own.
                accept_owner: election.mode == ha::Mode::Strict,
                peers: transport.peers.clone(),
            },
            destinations: destinations.collect(),
            buffer: vec![0; PACKET].into(),
            above,
            told: [false; DIFFERENCES],
            told_ignored: [false; DecodeError::ALL.len()],
        })
    }

    /// Reads one packet.
    pub(super) fn read(&mut self) -> std::io::Result<Read> {
        let Some(packet) = self.socket.receive(&mut self.buffer)? else { return Ok(Read::Empty) };
        let outcome = if is_whole(packet) { self.receiver.decode(packet) } else { Err(DecodeError::IpHeader) };
        self.status.received.count(&outcome);
        let reason = match outcome {
            Ok(advert) => return Ok(Read::Advert(advert)),
            Err(reason) => reason,
        };
        let told = &mut self.told_ignored[reason as usize];
        let news = sender(packet, reason, self.receiver.router.vrid).filter(|_| !std::mem::replace(told, true));
        Ok(Read::Ignored(news.map(|from| (from, reason))))
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

/// Who sent a packet that does not count, if it claims to be of our virtual router.
fn sender(packet: &[u8], reason: DecodeError, vrid: u8) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let claimed = *packet.get(usize::from(packet.first()? & 0x0f) * 4 + 1)?;
    // Checks come in their order: from this one on, it is of our VRID. Two versions do not see each other at all.
    let is_ours = reason as usize > DecodeError::Vrid as usize || reason == DecodeError::Version;
    (is_ours && claimed == vrid).then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_claims_our_virtual_router_is_named() {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[10, 80, 1, 242]);
        packet[21] = 52;
        let named = |reason| sender(&packet, reason, 52).is_some();
        for reason in [DecodeError::AuthData, DecodeError::Interval, DecodeError::Version, DecodeError::Checksum] {
            assert!(named(reason), "{reason}");
        }
        for reason in [DecodeError::IpHeader, DecodeError::Ttl, DecodeError::Length, DecodeError::Vrid] {
            assert!(!named(reason), "{reason}");
        }
        assert_eq!(sender(&packet, DecodeError::Version, 51), None, "another virtual router of another version");
        assert_eq!(sender(&packet[..20], DecodeError::Version, 52), None);
    }
}

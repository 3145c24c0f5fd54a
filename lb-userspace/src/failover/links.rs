//! The links of the transports: whether they carry packets, their link-layer addresses, and addresses that go.
//!
//! One rtnetlink subscription (RFC 3549, `include/uapi/linux/rtnetlink.h`), read without allocating: the messages are
//! taken apart by hand as far as a few fields go.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::NLM_F_DUMP,
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
    sys::Socket,
};

use crate::netlink;

/// Larger than any message about links.
const BUFFER: usize = 64 << 10;
const NLMSG_HEADER: usize = 16;
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// It is switched on and it has a carrier.
const CARRIES: u32 = (libc::IFF_UP | libc::IFF_RUNNING) as u32;

/// What is known about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    /// It carries packets.
    pub(super) up: bool,
    /// `None`: it is gone, or not an Ethernet one.
    pub(super) mac: Option<[u8; 6]>,
}

/// News.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A link, changed or not.
    Link(Link),
    /// An address was taken off.
    Gone(Ipv4Addr),
}

/// The subscription.
#[derive(Debug)]
pub(super) struct Links {
    socket: Socket,
    buffer: Box<[u8]>,
    ask_all: Vec<u8>,
}

impl Links {
    /// Subscribes, and asks for all links: the first [`Links::read`] tells their states.
    pub(super) fn open() -> io::Result<Self> {
        let socket = netlink::open()?;
        socket.add_membership(libc::RTNLGRP_LINK)?;
        socket.add_membership(libc::RTNLGRP_IPV4_IFADDR)?;
        let ask_all = netlink::encode(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        let links = Self { socket, buffer: vec![0; BUFFER].into(), ask_all };
        links.ask()?;
        Ok(links)
    }

    fn ask(&self) -> io::Result<()> {
        self.socket.send(&self.ask_all, 0).map(drop)
    }

    /// To wait on.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// Reads what there is, and hands over everything that was told.
    pub(super) fn read(&mut self, mut found: impl FnMut(News)) -> io::Result<()> {
        loop {
            match self.socket.recv(&mut &mut *self.buffer, libc::MSG_DONTWAIT) {
                Ok(length) => parse(&self.buffer[..length.min(BUFFER)], &mut found),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Some messages did not fit into the socket's buffer: look at all links.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.ask()?,
                Err(error) => return Err(error),
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Takes a datagram of messages apart.
fn parse(mut bytes: &[u8], found: &mut impl FnMut(News)) {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(NLMSG_HEADER..length) else { return };
        let news = match kind {
            libc::RTM_DELADDR => gone(body).map(News::Gone),
            _ => link(kind, body).map(News::Link),
        };
        if let Some(news) = news {
            found(news);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn link(kind: u16, body: &[u8]) -> Option<Link> {
    let (ifindex, flags) = (word(body, 4)?, word(body, 8)?);
    match kind {
        libc::RTM_DELLINK => Some(Link { ifindex, up: false, mac: None }),
        libc::RTM_NEWLINK => {
            let mac = attribute(body.get(IFINFO..)?, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok());
            Some(Link { ifindex, up: flags & CARRIES == CARRIES, mac })
        }
        _ => None,
    }
}

fn gone(body: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = attribute(body.get(IFADDR..)?, IFA_LOCAL)?.try_into().ok()?;
    Some(octets.into())
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtnetlink::packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags},
    };

    use super::*;

    fn message(index: u32, flags: LinkFlags, mac: Option<[u8; 6]>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes.push(LinkAttribute::IfName("ext0".to_owned()));
        link.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        link
    }

    fn parsed(bytes: &[u8]) -> Vec<News> {
        let mut found = Vec::new();
        parse(bytes, &mut |news| found.push(news));
        found
    }

    #[test]
    fn a_link_carries_packets_when_it_is_on_and_has_a_carrier() {
        let mac = Some([2, 0, 10, 80, 1, 241]);
        let both = LinkFlags::Up | LinkFlags::Running;
        let mut bytes = Vec::new();
        for (flags, mac) in [(both, mac), (LinkFlags::Up, mac), (LinkFlags::Running, None)] {
            bytes.extend(netlink::encode(RouteNetlinkMessage::NewLink(message(7, flags, mac)), 0));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.extend(netlink::encode(RouteNetlinkMessage::DelLink(message(7, both, mac)), 0));
        let link = |up, mac| News::Link(Link { ifindex: 7, up, mac });
        assert_eq!(parsed(&bytes), [link(true, mac), link(false, mac), link(false, None), link(false, None)]);
    }

    #[test]
    fn an_address_that_goes_is_named_and_one_that_comes_is_not() {
        let vip = Ipv4Addr::new(10, 80, 1, 243);
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.attributes = vec![AddressAttribute::Address(vip.into()), AddressAttribute::Local(vip.into())];
        let gone = netlink::encode(RouteNetlinkMessage::DelAddress(message.clone()), 0);
        assert_eq!(parsed(&gone), [News::Gone(vip)]);
        assert_eq!(parsed(&netlink::encode(RouteNetlinkMessage::NewAddress(message), 0)), []);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0u32..80) {
            parsed(&bytes);
            let mut framed = length.to_ne_bytes().to_vec();
            framed.extend(libc::RTM_NEWLINK.to_ne_bytes());
            framed.extend(bytes);
            parsed(&framed);
        }
    }
}

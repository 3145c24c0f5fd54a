//! The socket to the peer: UDP, to a multicast group on one interface or to one address.
//!
//! Frames are no longer than the interface's MTU and never fragmented. Bound to the interface, so that nobody elsewhere
//! is heard; what arrives is checked by the core. The group's frames do not leave the link (TTL 1).

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::socket::{GroupInterface, Membership, MtuDiscover, group};

/// Room for what arrives while the thread is busy: some thousand frames of a bulk.
const BUFFER: usize = 8 << 20;
/// Headers of IPv4 and UDP.
const HEADERS: usize = 28;
/// The longest frame that is ever sent, whatever the interface would take.
const LONGEST: usize = 8972;

/// Where the peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// In a group.
    Group(SocketAddrV4),
    /// At one address; ours is the other one.
    Address {
        /// Ours on the interface.
        own: Ipv4Addr,
        /// The peer's.
        peer: SocketAddrV4,
    },
}

/// The open socket.
#[derive(Debug)]
pub struct Line {
    socket: UdpSocket,
    to: SocketAddrV4,
    from: Option<Ipv4Addr>,
    datagram: usize,
}

impl Line {
    /// Opens the socket on an interface.
    ///
    /// # Errors
    ///
    /// The interface does not exist, or the kernel refuses.
    pub fn open(interface: &str, peer: &Peer) -> io::Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        let mtu = mtu(&fd, interface)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &interface.into())?;
        // More than the limit for others needs a capability; without it the limit has to do.
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &BUFFER))?;
        setsockopt(&fd, sockopt::SndBufForce, &BUFFER).or_else(|_| setsockopt(&fd, sockopt::SndBuf, &BUFFER))?;
        // Never fragmented, and nobody's ICMP message makes frames shorter.
        setsockopt(&fd, MtuDiscover, &libc::IP_PMTUDISC_PROBE)?;
        let (to, from, local) = match peer {
            Peer::Group(address) => {
                let member = group(*address.ip(), ifindex);
                setsockopt(&fd, Membership, &member)?;
                setsockopt(&fd, GroupInterface, &member)?;
                setsockopt(&fd, sockopt::IpMulticastLoop, &false)?;
                setsockopt(&fd, sockopt::IpMulticastTtl, &1)?;
                // Bound to the group: other groups of this host are not heard.
                (*address, None, *address)
            }
            Peer::Address { own, peer } => (*peer, Some(*peer.ip()), SocketAddrV4::new(*own, peer.port())),
        };
        bind(fd.as_raw_fd(), &SockaddrIn::from(local))?;
        let datagram = mtu.saturating_sub(HEADERS).min(LONGEST);
        Ok(Self { socket: UdpSocket::from(fd), to, from, datagram })
    }

    /// The longest datagram, without the headers of UDP and IP.
    #[must_use]
    pub const fn datagram(&self) -> usize {
        self.datagram
    }

    /// Sends a datagram, or loses it.
    ///
    /// # Errors
    ///
    /// The kernel refuses; there is no room for the moment ([`io::ErrorKind::WouldBlock`]).
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.to).map(drop)
    }

    /// The next datagram; `None`: there is none.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        loop {
            match self.socket.recv_from(buffer) {
                // Whoever else sends to our address is not the peer.
                Ok((_, from)) if self.from.is_some_and(|peer| from.ip() != peer) => {}
                Ok((length, _)) => return Ok(buffer.get_mut(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // An ICMP error of the peer's host: nobody listens there yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The longest IP packet of an interface. (Not from /sys: that may be of another network namespace.)
fn mtu(fd: &OwnedFd, interface: &str) -> io::Result<usize> {
    // SAFETY: all of it are numbers and arrays of numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request is valid, and the name in it ends with a zero.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just written this field.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

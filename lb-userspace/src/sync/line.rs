//! The socket to the peer: UDP, to a multicast group on one interface or to one address.
//!
//! Frames are no longer than the interface's MTU and never fragmented. Bound to the interface, so that nobody elsewhere
//! is heard; what arrives is checked by the core. The group's frames do not leave the link (TTL 1).

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Room for what arrives while the thread is busy: some thousand frames of a bulk.
const BUFFER: libc::c_int = 8 << 20;
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
        let ifindex = nix::net::if_::if_nametoindex(interface).map_err(io::Error::from)?;
        let fd = socket()?;
        let mtu = mtu(&fd, interface)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
        bind_to(&fd, interface)?;
        // More than the limit for others needs a capability; without it the limit has to do.
        for (forced, usual) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            set(&fd, libc::SOL_SOCKET, forced, &BUFFER).or_else(|_| set(&fd, libc::SOL_SOCKET, usual, &BUFFER))?;
        }
        // Never fragmented, and nobody's ICMP message makes frames shorter.
        set(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)?;
        let (to, from, local) = match peer {
            Peer::Group(group) => {
                let member = libc::ip_mreqn {
                    imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.ip().octets()) },
                    imr_address: libc::in_addr { s_addr: 0 },
                    imr_ifindex: ifindex.cast_signed(),
                };
                set(&fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &member)?;
                set(&fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &member)?;
                set(&fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &0)?;
                set(&fd, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &1)?;
                // Bound to the group: other groups of this host are not heard.
                (*group, None, *group)
            }
            Peer::Address { own, peer } => (*peer, Some(*peer.ip()), SocketAddrV4::new(*own, peer.port())),
        };
        bind(&fd, local)?;
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

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

fn bind_to(fd: &OwnedFd, interface: &str) -> io::Result<()> {
    // SAFETY: the name is valid for its length.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bind(fd: &OwnedFd, address: SocketAddrV4) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is valid for its length.
    let done = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is valid for its size.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! The sockets of one VRRP transport: adverts in, adverts out (RFC 9568 §5.1).
//!
//! Adverts are received from a packet socket, which sees them before the host firewall: a rule set that drops what it
//! does not know would otherwise make two directors Active at once. They are sent through a raw IP socket, which also
//! joins the group. What the bytes mean, `vrrp::packet` says.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use crate::{
    socket::{self, GroupInterface, Membership, group},
    vrrp::packet::{GROUP, PROTOCOL},
};

/// No socket outlives an exec or waits.
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Room for some hundred adverts: what arrives while the thread sleeps shorter than an election takes.
const RECEIVE_BUFFER: usize = 64 << 10;

/// A classic BPF program (socket(7), `SO_ATTACH_FILTER`).
type Filter<const N: usize> = [libc::sock_filter; N];

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Whole packets of protocol 112 that are addressed to this host or to a group. At a packet socket of this type the
/// packet begins with its IP header.
const ONLY_VRRP: Filter<7> = [
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32),
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, libc::PACKET_HOST as u32),
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, libc::PACKET_MULTICAST as u32),
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, PROTOCOL as u32),
    op(libc::BPF_RET | libc::BPF_K, 0, 0, 0xffff),
    op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
];
const NOTHING: Filter<1> = [op(libc::BPF_RET | libc::BPF_K, 0, 0, 0)];

/// The sockets of a transport.
#[derive(Debug)]
pub(super) struct AdvertSocket {
    incoming: OwnedFd,
    outgoing: OwnedFd,
    /// Sends to the group from the virtual MAC, while its device is on.
    disguised: Option<OwnedFd>,
}

impl AdvertSocket {
    /// Opens the sockets on an interface. `above` is the device of a virtual MAC; `join` the group, unless everything is
    /// unicast.
    pub(super) fn open(ifindex: u32, above: Option<u32>, join: bool) -> io::Result<Self> {
        let incoming = packet_socket(SockType::Datagram, ifindex, libc::ETH_P_IP as u16, &ONLY_VRRP)?;
        setsockopt(&incoming, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        let outgoing = raw_socket(ifindex)?;
        if join {
            setsockopt(&outgoing, Membership, &group(GROUP, ifindex))?;
        }
        let disguised = above.map(raw_socket).transpose()?;
        Ok(Self { incoming, outgoing, disguised })
    }

    /// To wait on.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.as_fd()
    }

    /// The next packet, IP header included; `None`: there is none.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        // SAFETY: the buffer is valid for its length.
        let length = unsafe {
            libc::recv(self.incoming.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(&buffer[..length.min(buffer.len())])),
            Err(_negative) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                // The interface went down: told once, and the link says so, too.
                error if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Sends a packet, IP header included.
    pub(super) fn send(&self, packet: &[u8], to: Ipv4Addr) -> io::Result<()> {
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: address(to),
            sin_zero: [0; 8],
        };
        match &self.disguised {
            // Switched off: this director is not Active, and speaks as itself.
            Some(disguised) if u32::from_be(to.sin_addr.s_addr) == GROUP.to_bits() => send(disguised, packet, &to)
                .or_else(|error| match error.raw_os_error() {
                    Some(libc::ENETDOWN | libc::ENETUNREACH) => send(&self.outgoing, packet, &to),
                    _ => Err(error),
                }),
            _ => send(&self.outgoing, packet, &to),
        }
    }
}

/// A socket that sends packets with their IP header, to the group by this interface. It receives nothing (raw(7)).
fn raw_socket(ifindex: u32) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Raw, FLAGS, Some(SockProtocol::Raw))?;
    setsockopt(&fd, sockopt::IpMulticastLoop, &false)?;
    setsockopt(&fd, GroupInterface, &group(GROUP, ifindex))?;
    Ok(fd)
}

fn send(fd: &OwnedFd, packet: &[u8], to: &libc::sockaddr_in) -> io::Result<()> {
    // SAFETY: packet and address are valid for their lengths.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_DONTWAIT,
            std::ptr::from_ref(to).cast(),
            size_of_val(to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a packet socket leaves to its user that an IP socket does not: the header's checksum, and fragments, which
/// nobody puts together here.
pub(super) fn is_whole(packet: &[u8]) -> bool {
    let Some(fixed) = packet.first_chunk::<20>() else { return false };
    let header = usize::from(fixed[0] & 0x0f) * 4;
    let Some(header) = packet.get(..header) else { return false };
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    // More fragments, or not the first one.
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
    folded == 0xffff && !fragment
}

/// A packet socket bound to an interface. `protocol` 0 receives nothing.
pub(super) fn packet_socket<const N: usize>(
    kind: SockType,
    ifindex: u32,
    protocol: u16,
    filter: &Filter<N>,
) -> io::Result<OwnedFd> {
    // No protocol yet: nothing may arrive before the filter is in place.
    let fd = socket(AddressFamily::Packet, kind, FLAGS, None)?;
    attach(&fd, filter)?;
    let to = link_address(ifindex, protocol, [0; 6]);
    // SAFETY: the address is valid for its length.
    let bound = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const to).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// A packet socket that only sends.
pub(super) fn sending_socket(ifindex: u32) -> io::Result<OwnedFd> {
    packet_socket(SockType::Raw, ifindex, 0, &NOTHING)
}

fn link_address(ifindex: u32, protocol: u16, to: [u8; 6]) -> libc::sockaddr_ll {
    let [a, b, c, d, e, f] = to;
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: protocol.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    }
}

fn address(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) }
}

fn attach<const N: usize>(fd: &OwnedFd, filter: &Filter<N>) -> io::Result<()> {
    // The kernel only reads the instructions, and keeps a copy.
    let program = libc::sock_fprog { len: N as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
    Ok(setsockopt(fd, socket::Filter, &program)?)
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn damaged_and_fragmented_packets_are_not_whole() {
        // TTL 255, protocol 112, 10.80.1.241 to 224.0.0.18.
        let good = [0x45, 0xc0, 0, 40, 0, 1, 0, 0, 255, 112, 0x8d, 0xe5, 10, 80, 1, 241, 224, 0, 0, 18];
        let sum = |packet: &[u8; 20]| {
            let sum: u32 = packet.chunks_exact(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            (sum & 0xffff) + (sum >> 16)
        };
        let mut packet = good;
        packet[10..12].fill(0);
        let check = !(sum(&packet) as u16);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
        assert!(is_whole(&packet));
        for (at, value) in [(0, 0x46), (8, 254), (12, 11)] {
            let mut damaged = packet;
            damaged[at] = value;
            assert!(!is_whole(&damaged), "byte {at}");
        }
        for flags in [0x2000_u16, 0x0001, 0x1fff] {
            let mut fragment = packet;
            fragment[6..8].copy_from_slice(&flags.to_be_bytes());
            fragment[10..12].fill(0);
            let check = !(sum(&fragment) as u16);
            fragment[10..12].copy_from_slice(&check.to_be_bytes());
            assert!(!is_whole(&fragment), "{flags:#x}");
        }
        let mut unfragmentable = packet;
        unfragmentable[6] = 0x40;
        unfragmentable[10..12].copy_from_slice(&(check - 0x4000).to_be_bytes());
        assert!(is_whole(&unfragmentable));
        for length in 0..20 {
            assert!(!is_whole(&packet[..length]));
        }
    }
}

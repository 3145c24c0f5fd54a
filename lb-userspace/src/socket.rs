//! Socket options that nix has no types for (ip(7), socket(7), tcp(7)), in its own way.

use std::{net::Ipv4Addr, os::fd::AsFd};

// The one macro uses the other by its bare name.
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl, sys::socket::getsockopt};

sockopt_impl!(
    /// A classic BPF program, which decides what arrives at the socket.
    Filter, SetOnly, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, libc::sock_fprog
);
sockopt_impl!(
    /// The group that is heard on an interface.
    Membership, SetOnly, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, libc::ip_mreqn
);
sockopt_impl!(
    /// The interface that packets to a group leave by.
    GroupInterface, SetOnly, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, libc::ip_mreqn
);
sockopt_impl!(
    /// Whether packets are fragmented, and whom that is learned from.
    MtuDiscover, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int
);
sockopt_impl!(
    /// Acknowledge at once, or wait for something to say.
    QuickAck, SetOnly, libc::IPPROTO_TCP, libc::TCP_QUICKACK, bool
);

sockopt_impl!(
    /// The front of the kernel's `struct tcp_info`, in words, up to fields that libc does not know.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; 36]
);

/// Segments that a TCP socket has sent, the SYN included.
pub(crate) fn segments_sent(socket: &impl AsFd) -> nix::Result<u32> {
    // `tcpi_segs_out`, behind eight bytes, 24 words and four double words.
    let [.., sent, _received] = getsockopt(socket, TcpInfo)?;
    Ok(sent)
}

/// A group on an interface, for [`Membership`] and [`GroupInterface`].
pub(crate) fn group(address: Ipv4Addr, ifindex: u32) -> libc::ip_mreqn {
    libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    }
}

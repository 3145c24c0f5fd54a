//! Socket options that nix has no types for (ip(7), socket(7), tcp(7)), in its own way.

use std::net::Ipv4Addr;

// The one macro uses the other by its bare name.
use nix::{setsockopt_impl, sockopt_impl};

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

/// A group on an interface, for [`Membership`] and [`GroupInterface`].
pub(crate) fn group(address: Ipv4Addr, ifindex: u32) -> libc::ip_mreqn {
    libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    }
}

//! The addresses and credentials of the classic setup, as every test and document uses them.

use std::net::{Ipv4Addr, SocketAddrV4};

/// VIP on the client side; clients connect to port 3306 of it.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 243);
/// VIP on the server side: the default gateway of every MySQL server.
pub const INTERNAL_VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 111);
/// MySQL's port.
pub const MYSQL_PORT: u16 = 3306;
/// Where clients find the service.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(VIP, MYSQL_PORT);

/// The account that clients log in with. It exists for clients of 10.80.1.0/24 only, so a director that hides
/// the client's address cannot log in.
pub const USER: &str = "app";
/// Password of [`USER`].
pub const PASSWORD: &str = "app-password";
/// Database that [`USER`] owns.
pub const DATABASE: &str = "lab";

/// Largest number of hosts of one kind; the address plan below is free of overlaps up to here.
pub(crate) const MAX_HOSTS: usize = 16;

pub(crate) fn client(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 80, 1, octet(1, index))
}

pub(crate) fn director_external(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 80, 1, octet(241, index))
}

pub(crate) fn director_internal(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 80, octet(101, index))
}

pub(crate) fn director_sync(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, octet(1, index))
}

/// The first two servers are those of the classic setup; further ones count up from .171.
pub(crate) fn server(index: usize) -> Ipv4Addr {
    let last = match index {
        0 => 167,
        1 => 136,
        more => octet(169, more),
    };
    Ipv4Addr::new(192, 168, 80, last)
}

/// The link-layer address of the interface with an address: locally administered, and spelling the IPv4 address, so that
/// a packet dump can be read. (A VIP has that of the interface it is on.)
pub fn link(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

fn octet(base: u8, index: usize) -> u8 {
    base.saturating_add(u8::try_from(index).unwrap_or(u8::MAX))
}

//! Single packets from a host, made by hand: what no well-behaved kernel would send. raw(7) with the header included.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use super::host::Host;
use crate::packet::{Packet, Tcp};

impl Host {
    /// Sends a TCP segment as it is; routing and Ethernet are this host's.
    ///
    /// # Errors
    /// When the host has no route there.
    pub fn inject(&self, packet: &Packet<Tcp>, to: SocketAddrV4) -> Result<()> {
        let bytes = packet.ip_bytes();
        self.enter(|| {
            let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .context("open a raw socket")?;
            let sent =
                sendto(raw.as_raw_fd(), &bytes, &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)), MsgFlags::empty())
                    .with_context(|| format!("send a segment to {to}"))?;
            ensure!(sent == bytes.len(), "{sent} of {} bytes were sent", bytes.len());
            Ok(())
        })
    }
}

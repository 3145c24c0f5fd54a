//! A packet socket on an interface of a host (packet(7)): sends frames byte by byte, receives what the interface takes
//! in. With every frame travels what a device is told about it: an unfinished checksum, a super-frame to be cut.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;

use super::host::Host;
use super::wait::now;
use crate::packet::ether;

/// `struct virtio_net_hdr` (linux/virtio_net.h): what `PACKET_VNET_HDR` puts in front of every frame.
const OFFLOAD_LEN: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// The largest super-frame, and room to spare.
const LARGEST: usize = 70_000;

/// What a device is told about a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The transport checksum is the device's job: where its header begins, and where in it the checksum lies.
    pub checksum: Option<(u16, u16)>,
    /// The device is to cut the TCP segment into pieces with so many bytes of payload.
    pub segments: Option<u16>,
}

/// A frame with what a device is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Nothing, for a frame as it looks on a wire.
    pub offloads: Offloads,
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, offloads: Offloads::default() }
    }
}

impl Frame {
    /// The offsets of a TCP header and of the checksum in it, for a frame without VLAN tags.
    fn tcp_at(&self) -> (u16, u16) {
        (14 + u16::from(self.bytes.get(14).copied().unwrap_or_default() & 0xf) * 4, 16)
    }

    /// Leaves the TCP checksum to the device; the field must hold the sum of the pseudo-header.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.offloads.checksum = Some(self.tcp_at());
        self
    }

    /// Leaves the checksum and the cutting into segments of `size` bytes to the device.
    #[must_use]
    pub fn segmented(mut self, size: u16) -> Self {
        self.offloads.segments = Some(size);
        self.unfinished()
    }

    /// The frame as it would look on a wire: its checksum as a device finishes it.
    ///
    /// # Panics
    /// When the frame ends before the checksum does.
    #[must_use]
    pub fn finished(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some((start, offset)) = self.offloads.checksum {
            let (start, at) = (usize::from(start), usize::from(start + offset));
            // What is in the field counts, too: the sum of the pseudo-header.
            let check = !crate::packet::checksum::sum(&bytes[start..]);
            bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        bytes
    }

    fn offload_bytes(&self) -> [u8; OFFLOAD_LEN] {
        let mut header = [0; OFFLOAD_LEN];
        if let Some((start, offset)) = self.offloads.checksum {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&offset.to_ne_bytes());
            if let Some(size) = self.offloads.segments {
                let words = self.bytes.get(usize::from(start) + 12).copied().unwrap_or_default() >> 4;
                header[1] = GSO_TCPV4;
                header[2..4].copy_from_slice(&(start + u16::from(words) * 4).to_ne_bytes());
                header[4..6].copy_from_slice(&size.to_ne_bytes());
            }
        }
        header
    }

    fn of(received: &[u8]) -> Result<Self> {
        let (header, bytes) = received.split_at_checked(OFFLOAD_LEN).context("a frame without its offload header")?;
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let offloads = Offloads {
            checksum: (header[0] & NEEDS_CSUM != 0).then(|| (word(6), word(8))),
            segments: (header[1] != 0).then(|| word(4)),
        };
        Ok(Self { bytes: bytes.to_vec(), offloads })
    }
}

/// A packet socket on one interface. It sees the frames of one protocol for the interface's own link-layer address and for
/// all, also those that the host discards, and none that go out.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    what: String,
}

impl Tap {
    /// Opens one for IPv4 on an interface of a host.
    ///
    /// # Errors
    /// When there is no such interface, or the caller is not root.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        Self::open_for(host, interface, ether::IPV4)
    }

    /// Opens one for the protocol with this EtherType.
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn open_for(host: &Host, interface: &str, ether_type: u16) -> Result<Self> {
        let what = format!("packet socket on {} {interface}", host.name());
        let socket = host.enter(|| packet_socket(interface, ether_type)).with_context(|| format!("open a {what}"))?;
        Ok(Self { socket, what })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        let header = frame.offload_bytes();
        let parts = [
            libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() },
            libc::iovec { iov_base: frame.bytes.as_ptr().cast_mut().cast(), iov_len: frame.bytes.len() },
        ];
        // SAFETY: both parts are valid for reads of their lengths; the call does not write to them.
        let sent = unsafe { libc::writev(self.socket.as_raw_fd(), parts.as_ptr(), 2) };
        if sent < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("{}: send", self.what));
        }
        Ok(())
    }

    /// The next frame; `None` when none came within `limit`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, limit: Duration) -> Result<Option<Frame>> {
        let end = now() + limit;
        let mut buffer = vec![0; LARGEST];
        while self.readable(end)? {
            // SAFETY: an all-zero `sockaddr_ll` is valid.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut from_length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: buffer and address are valid for writes of their lengths.
            let length = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut from_length,
                )
            };
            match usize::try_from(length) {
                // A bridge floods what it knows no port for; a host does not take it in.
                Ok(_) if from.sll_pkttype == libc::PACKET_OTHERHOST => {}
                Ok(length) => return Frame::of(&buffer[..length]).map(Some),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    // ENETDOWN is told once after the interface went down; what follows comes through.
                    if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN)) {
                        return Err(error).with_context(|| format!("{}: receive", self.what));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Forgets what has come in so far.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn drain(&self) -> Result<()> {
        while self.receive(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    fn readable(&self, end: Instant) -> Result<bool> {
        loop {
            let left = end.saturating_duration_since(now());
            // Rounded up, so that the last millisecond is not spent spinning.
            let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as announced.
            match unsafe { libc::poll(&raw mut poll, 1, millis) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.raw_os_error() != Some(libc::EINTR) {
                        return Err(error).with_context(|| format!("{}: wait", self.what));
                    }
                }
            }
        }
    }
}

/// Opens and binds; in the network namespace of the calling thread.
pub(crate) fn packet_socket(interface: &str, ether_type: u16) -> Result<OwnedFd> {
    let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
    // Protocol 0: nothing is received before the socket is bound to its interface.
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error()).context("socket(AF_PACKET)");
    }
    // SAFETY: it was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // Thousands of small frames; the kernel grants what its limit allows.
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20)?;
    // SAFETY: an all-zero `sockaddr_ll` is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = i32::try_from(index).context("interface index out of range")?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is valid for reads of its length.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        bail!("bind to {interface}: {}", io::Error::last_os_error());
    }
    Ok(socket)
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) -> Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is valid for reads of its length.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("set option {option} of a packet socket"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_with_its_offloads() {
        let mut bytes = vec![0; 14 + 24 + 20];
        bytes[14] = 0x46;
        bytes[14 + 24 + 12] = 0x50;
        let plain = Frame::from(bytes);
        let unfinished = plain.clone().unfinished();
        assert_eq!(unfinished.offloads.checksum, Some((38, 16)));
        for frame in [plain.clone(), unfinished, plain.segmented(1448)] {
            let raw = [&frame.offload_bytes()[..], &frame.bytes].concat();
            assert_eq!(Frame::of(&raw).unwrap(), frame);
        }
        assert!(Frame::of(&[0; 9]).is_err());
    }
}

//! Gratuitous ARP: tells the neighbours which link-layer address has a VIP (RFC 5227 §3, RFC 9568 §6.4).
//!
//! Frames are made once, so that announcing allocates nothing.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use super::socket;

/// Ethernet header and ARP for IPv4 over Ethernet (RFC 826).
const FRAME: usize = 14 + 28;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Announces the VIPs of one interface.
#[derive(Debug)]
pub(super) struct Announcer {
    socket: OwnedFd,
    vips: Vec<Ipv4Addr>,
    frames: Vec<[u8; FRAME]>,
}

impl Announcer {
    pub(super) fn open(ifindex: u32, mac: [u8; 6], vips: Vec<Ipv4Addr>) -> io::Result<Self> {
        let frames = vips.iter().map(|vip| frame(*vip, mac)).collect();
        Ok(Self { socket: socket::sending_socket(ifindex)?, vips, frames })
    }

    /// The interface has another link-layer address now.
    pub(super) fn set_mac(&mut self, mac: [u8; 6]) {
        for (frame_of, vip) in self.frames.iter_mut().zip(&self.vips) {
            *frame_of = frame(*vip, mac);
        }
    }

    /// Sends every frame once.
    pub(super) fn announce(&self) -> io::Result<()> {
        let mut result = Ok(());
        for frame in &self.frames {
            // SAFETY: the frame is valid for its length.
            let sent =
                unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) };
            if sent < 0 {
                result = Err(io::Error::last_os_error());
            }
        }
        result
    }
}

/// An ARP request in which sender and target are the VIP: whoever knows the VIP updates its entry.
fn frame(vip: Ipv4Addr, mac: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let parts: [&[u8]; 8] = [
        &BROADCAST,
        &mac,
        &[0x08, 0x06],
        // Ethernet, IPv4, their lengths, request
        &[0, 1, 0x08, 0x00, 6, 4, 0, 1],
        &mac,
        &vip.octets(),
        // Nobody is asked for
        &[0; 6],
        &vip.octets(),
    ];
    let bytes = parts.into_iter().flatten();
    frame.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_and_target_are_the_vip_and_everybody_hears_it() {
        let frame = frame(Ipv4Addr::new(10, 80, 1, 243), [2, 0, 10, 80, 1, 241]);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 10, 80, 1, 241, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 10, 80, 1, 241, 10, 80, 1, 243]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 10, 80, 1, 243]);
    }
}

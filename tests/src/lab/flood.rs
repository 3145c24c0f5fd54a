//! A flood of SYNs with random sources, sent past the client's protocols through a packet socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::addr;
use super::host::Host;
use super::tap::packet_socket;
use super::wait::now;
use crate::chance::Chance;
use crate::packet::{Mac, checksum, ether};

/// Frames per system call; the kernel's queue towards a virtual device holds 1,000.
const BURST: usize = 64;
/// `struct virtio_net_hdr`, Ethernet, IPv4, TCP with an MSS option.
const LEN: usize = 10 + 14 + 20 + 24;

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// SYNs.
    pub sent: u64,
    /// Time that it took.
    pub elapsed: Duration,
}

/// Sends `count` SYNs to `service` out of a host's `eth0`, at most `rate` a second. Each has a source of its own, in
/// 11.0.0.0 to 100.255.255.255; the same ones for the same seed.
///
/// # Errors
/// When the kernel refuses them.
pub fn flood(host: &Host, router: Mac, service: SocketAddrV4, count: u64, rate: u32, seed: u64) -> Result<Flood> {
    let socket = host.enter(|| packet_socket("eth0", ether::IPV4))?;
    let mut noise = Chance::new(seed);
    let mut frames = [[0; LEN]; BURST];
    frames.iter_mut().for_each(|frame| blank(frame, router, service));
    let started = now();
    let mut sent = 0;
    while sent < count {
        let burst = usize::try_from(count - sent).map_or(BURST, |left| left.min(BURST));
        frames[..burst].iter_mut().for_each(|frame| fill(frame, &mut noise));
        let mut done = 0;
        while done < burst {
            done += send(&socket, &frames[done..burst]).context("send a burst of SYNs")?;
        }
        sent += burst as u64;
        let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(Flood { sent, elapsed: started.elapsed() })
}

/// Sends as many as the kernel takes; at least one.
fn send(socket: &impl AsRawFd, frames: &[[u8; LEN]]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> =
        frames.iter().map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: LEN }).collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: an all-zero `mmsghdr` is valid: no address, no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    loop {
        let count = messages.len() as libc::c_uint;
        // SAFETY: every message points to one part, and every part to one frame, all alive during the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => {
                let error = io::Error::last_os_error();
                // The queue is full for a moment.
                if !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR)) {
                    return Err(error);
                }
                thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// What all frames have in common.
fn blank(frame: &mut [u8; LEN], router: Mac, service: SocketAddrV4) {
    frame[10..16].copy_from_slice(&router);
    frame[16..22].copy_from_slice(&addr::link(addr::client(0)));
    frame[22..24].copy_from_slice(&[0x08, 0x00]);
    frame[24..34].copy_from_slice(&[0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6]);
    frame[40..44].copy_from_slice(&service.ip().octets());
    frame[46..48].copy_from_slice(&service.port().to_be_bytes());
    // 24 bytes of header, SYN, window 64240, MSS 1460.
    frame[56..60].copy_from_slice(&[0x60, 0x02, 0xfa, 0xf0]);
    frame[64..68].copy_from_slice(&[2, 4, 0x05, 0xb4]);
}

/// A source, a sequence number and the checksums.
fn fill(frame: &mut [u8; LEN], noise: &mut Chance) {
    let (source, number) = (noise.draw(), noise.draw());
    let [_, a, b, c, d, e, f, g] = source.to_be_bytes();
    let src = Ipv4Addr::new(11 + a % 90, b, c, d);
    // Ports from 1024 on.
    let sport = u16::from_be_bytes([e, f]) | 0x0400;
    frame[28..30].copy_from_slice(&[f, g]);
    frame[36..40].copy_from_slice(&src.octets());
    frame[44..46].copy_from_slice(&sport.to_be_bytes());
    frame[48..52].copy_from_slice(&(number as u32).to_be_bytes());
    frame[34..36].fill(0);
    let check = checksum::of(&frame[24..44]);
    frame[34..36].copy_from_slice(&check.to_be_bytes());
    frame[60..62].fill(0);
    let vip = Ipv4Addr::new(frame[40], frame[41], frame[42], frame[43]);
    let check = checksum::of_segment(src, vip, 6, &frame[44..68]);
    frame[60..62].copy_from_slice(&check.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::packet::verify;

    #[test]
    fn every_syn_is_right_and_has_a_source_of_its_own() {
        let mut frame = [0; LEN];
        blank(&mut frame, [2; 6], addr::SERVICE);
        let mut noise = Chance::new(1);
        let mut sources = HashSet::new();
        for _ in 0..1000 {
            fill(&mut frame, &mut noise);
            assert_eq!(verify(&frame[10..]), Ok(()), "{}", crate::packet::describe(&frame[10..]));
            sources.insert(<[u8; 10]>::try_from(&frame[36..46]).unwrap());
            assert!((11..=100).contains(&frame[36]));
        }
        assert_eq!(sources.len(), 1000);
    }
}

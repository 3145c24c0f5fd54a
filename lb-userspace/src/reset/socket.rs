//! The raw socket: whole IP packets in others' names (raw(7), `IP_HDRINCL`), many in one system call (sendmmsg(2)).
//!
//! The source is no address of this host. The kernel allows that here; it is told the source once more beside the packet
//! (`IP_PKTINFO`), so that its routing rules decide as for the packets of the conn.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use lb_common::addr::Ipv4;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::segment::{LEN, Segment};

/// Bytes of an `IP_PKTINFO` control message.
const CONTROL: usize = {
    // SAFETY: a pure computation.
    unsafe { libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) as usize }
};

/// One packet with all that the system call points to. It must not move between `Message::new` and the call.
struct Message {
    bytes: [u8; LEN],
    to: libc::sockaddr_in,
    part: libc::iovec,
    /// Aligned as a `cmsghdr` is.
    control: [u64; CONTROL / 8],
}

const _: () = assert!(CONTROL.is_multiple_of(8));

/// A raw socket that only sends.
#[derive(Debug)]
pub(super) struct RawSocket(OwnedFd);

impl RawSocket {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol RAW: the header is included, and nothing is ever received.
        let raw = Some(SockProtocol::Raw);
        Ok(Self(socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)?))
    }

    /// Sends `segments` and answers how many left. Why one did not is told to `refused`; the others may have another way.
    pub(super) fn send(&self, segments: &[Segment], mut refused: impl FnMut(io::Error)) -> usize {
        let mut messages: Vec<Message> = segments.iter().map(Message::new).collect();
        let mut headers: Vec<libc::mmsghdr> = messages.iter_mut().map(Message::header).collect();
        let mut left = headers.as_mut_slice();
        let mut sent = 0;
        while !left.is_empty() {
            // SAFETY: every header points into `messages`, which lives and stays where it is during the call.
            let result = unsafe { libc::sendmmsg(self.0.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0) };
            let done = match usize::try_from(result) {
                Ok(count) => {
                    sent += count;
                    count
                }
                // An error is about the very first one.
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => 0,
                    error => {
                        refused(error);
                        1
                    }
                },
            };
            left = &mut left[done..];
        }
        sent
    }
}

impl Message {
    fn new(segment: &Segment) -> Self {
        let address = |address: Ipv4| libc::in_addr { s_addr: address.word() };
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: address(segment.flow.src),
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: address(segment.flow.dst),
            sin_zero: [0; 8],
        };
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: LEN };
        let mut message = Self { bytes: segment.bytes(), to, part, control: [0; CONTROL / 8] };
        let header = message.control.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the buffer has room for the header and the structure behind it, and is aligned for both.
        unsafe {
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as _;
            (*header).cmsg_level = libc::IPPROTO_IP;
            (*header).cmsg_type = libc::IP_PKTINFO;
            libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write(info);
        }
        message
    }

    /// The header of the system call, which points into this message.
    fn header(&mut self) -> libc::mmsghdr {
        self.part.iov_base = self.bytes.as_mut_ptr().cast();
        // SAFETY: all zeros are a valid value; there are private fields for padding.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.msg_name = (&raw mut self.to).cast();
        header.msg_namelen = size_of_val(&self.to) as libc::socklen_t;
        header.msg_iov = &raw mut self.part;
        header.msg_iovlen = 1;
        header.msg_control = self.control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        libc::mmsghdr { msg_hdr: header, msg_len: 0 }
    }
}

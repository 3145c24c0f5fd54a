//! rtnetlink without a runtime (RFC 3549): a question, its answers, back.
//!
//! For start-up and for threads of their own; the async side uses the rtnetlink crate. Over a socket and not in /sys:
//! after `nsenter --net` /sys still shows another namespace.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// A socket that talks to this network namespace.
pub(crate) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A message as it is sent; `flags` beside `NLM_F_REQUEST`.
pub(crate) fn encode(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// Everything the kernel answers to a question for a list.
pub(crate) fn dump(question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = open()?;
    socket.send(&encode(question, NLM_F_DUMP), 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _from) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
            // Messages in a datagram are aligned to 4 bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// An order that the kernel carries out before it answers. Made once, given as often as needed, without allocating.
#[derive(Debug)]
pub(crate) struct Order(Vec<u8>);

impl Order {
    pub(crate) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self(encode(message, flags | NLM_F_ACK))
    }

    /// Gives the order and waits for the kernel's answer, which is there at once: rtnetlink works in the caller's time.
    pub(crate) fn give(&self, socket: &Socket) -> io::Result<()> {
        socket.send(&self.0, 0)?;
        let mut answer = [0_u8; 512];
        let length = socket.recv(&mut answer.as_mut_slice(), 0)?;
        // nlmsghdr (length, type, …) and, for NLMSG_ERROR, a negative errno.
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        match (length >= 20 && kind == libc::NLMSG_ERROR as u16, errno) {
            (true, 0) => Ok(()),
            (true, errno) => Err(io::Error::from_raw_os_error(-errno)),
            (false, _) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

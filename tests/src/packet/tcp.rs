//! TCP segments (RFC 9293 §3.1).

use std::net::SocketAddrV4;

use super::{Packet, Payload, Transport, checksum};

/// Flag bits of byte 13 of the header.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
    /// Congestion: echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion: window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    header_len: Option<usize>,
    check: Check,
}

/// How the checksum field is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Right,
    /// The right sum plus this, in one's complement.
    OffBy(u16),
    /// Only the pseudo-header's sum, as `CHECKSUM_PARTIAL` leaves it to the device.
    Partial,
}

/// The start of a TCP sentence: a segment without flags.
#[must_use]
pub fn tcp() -> Packet<Tcp> {
    Packet::new(Tcp {
        flags: 0,
        seq: 0,
        ack: 0,
        window: 64240,
        options: Vec::new(),
        payload: Vec::new(),
        header_len: None,
        check: Check::Right,
    })
}

impl Packet<Tcp> {
    fn flag(mut self, flag: u8) -> Self {
        self.transport.flags |= flag;
        self
    }

    /// Sets the SYN flag.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flag(flag::SYN)
    }

    /// Sets the FIN flag.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flag(flag::FIN)
    }

    /// Sets the RST flag.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flag(flag::RST)
    }

    /// Sets the PSH flag.
    #[must_use]
    pub fn psh(self) -> Self {
        self.flag(flag::PSH)
    }

    /// Sets the ACK flag and the acknowledgement number.
    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.transport.ack = ack;
        self.flag(flag::ACK)
    }

    /// Sets all flags at once, [`flag`].
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.transport.flags = flags;
        self
    }

    /// Sets the sequence number.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.transport.seq = seq;
        self
    }

    /// Sets the window; 64240 otherwise.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.transport.window = window;
        self
    }

    /// Adds TCP options; the length is a multiple of 4 and at most 40.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40, "{} bytes of TCP options", options.len());
        self.transport.options = options.to_vec();
        self
    }

    /// Sets the payload: bytes, or a number of bytes to make up.
    #[must_use]
    pub fn payload(mut self, payload: impl Payload) -> Self {
        self.transport.payload = payload.bytes();
        self
    }

    /// Claims a TCP header of `len` bytes, whatever its length is.
    #[must_use]
    pub fn claims_tcp_header(mut self, len: usize) -> Self {
        self.transport.header_len = Some(len);
        self
    }

    /// Spoils the checksum by a fixed amount: translation must keep it exactly as wrong as it is.
    #[must_use]
    pub fn bad_checksum(self) -> Self {
        self.checksum_off_by(0x1234)
    }

    /// Adds `amount`, in one's complement, to the sum that the checksum field stands for.
    #[must_use]
    pub fn checksum_off_by(mut self, amount: u16) -> Self {
        self.transport.check = Check::OffBy(amount);
        self
    }

    /// Leaves only the pseudo-header's sum in the checksum field, as a sender with checksum offload does.
    #[must_use]
    pub fn partial_checksum(mut self) -> Self {
        self.transport.check = Check::Partial;
        self
    }

    /// By how much the sum in the checksum field is off, in one's complement; 0 or 0xffff: not at all.
    #[must_use]
    pub fn checksum_error(&self) -> u16 {
        let (bytes, mut right) = (self.transport.bytes(self.src, self.dst), self.transport.clone());
        right.check = Check::Right;
        let right = right.bytes(self.src, self.dst);
        let field = |bytes: &[u8]| u16::from_be_bytes([bytes[16], bytes[17]]);
        // The field is the complement of the sum, so the sums differ the other way round.
        checksum::add(field(&right), !field(&bytes))
    }

    /// The flags, [`flag`].
    #[must_use]
    pub const fn flag_bits(&self) -> u8 {
        self.transport.flags
    }

    /// The sequence number.
    #[must_use]
    pub const fn seq_number(&self) -> u32 {
        self.transport.seq
    }

    /// The acknowledgement number, if the ACK flag is set.
    #[must_use]
    pub const fn acknowledges(&self) -> Option<u32> {
        if self.transport.flags & flag::ACK != 0 { Some(self.transport.ack) } else { None }
    }

    /// The sequence number after this segment.
    #[must_use]
    pub fn seq_end(&self) -> u32 {
        let t = &self.transport;
        let phantom = [flag::SYN, flag::FIN].iter().filter(|&&f| t.flags & f != 0).count();
        t.seq.wrapping_add((t.payload.len() + phantom) as u32)
    }

    /// Length of the frame's headers.
    #[must_use]
    pub fn headers_len(&self) -> usize {
        self.transport_offset() + 20 + self.transport.options.len()
    }
}

impl Transport for Tcp {
    fn proto(&self) -> u8 {
        6
    }

    fn bytes(&self, src: SocketAddrV4, dst: SocketAddrV4) -> Vec<u8> {
        let header_len = self.header_len.unwrap_or(20 + self.options.len());
        let mut bytes = Vec::with_capacity(60 + self.payload.len());
        bytes.extend(src.port().to_be_bytes());
        bytes.extend(dst.port().to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(header_len / 4) as u8 * 16, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        let right = checksum::of_segment(*src.ip(), *dst.ip(), self.proto(), &bytes);
        let check = match self.check {
            Check::Right => right,
            Check::OffBy(amount) => !checksum::add(!right, amount),
            Check::Partial => checksum::pseudo_header(*src.ip(), *dst.ip(), self.proto(), bytes.len()),
        };
        bytes[16..18].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

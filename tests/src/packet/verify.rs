//! Recomputes every checksum of a frame from scratch, as the receiver does.

use std::fmt;

use super::{
    checksum, ether,
    walk::{Ip, Layers, word16},
};

/// Why a receiver would discard a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A header or the IP packet goes past the end of the frame, or lengths contradict each other.
    Cut,
    /// The checksum of the IPv4 header.
    IpChecksum,
    /// The checksum of the TCP segment.
    TcpChecksum,
    /// The checksum of the UDP datagram.
    UdpChecksum,
    /// The checksum of the ICMP message.
    IcmpChecksum,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "the frame is cut or its lengths are wrong",
            Self::IpChecksum => "the IP checksum is wrong",
            Self::TcpChecksum => "the TCP checksum is wrong",
            Self::UdpChecksum => "the UDP checksum is wrong",
            Self::IcmpChecksum => "the ICMP checksum is wrong",
        })
    }
}

impl std::error::Error for Fault {}

/// Checks all checksums of a frame. What carries none (ARP, IPv6's header, a fragment's transport) is fine.
///
/// # Errors
///
/// The first fault from the outside in.
pub fn verify(frame: &[u8]) -> Result<(), Fault> {
    let layers = Layers::of(frame).ok_or(Fault::Cut)?;
    if layers.ether_type != ether::IPV4 {
        return Ok(());
    }
    let ip = layers.ip.ok_or(Fault::Cut)?;
    if checksum::sum(ip.header) != 0xffff {
        return Err(Fault::IpChecksum);
    }
    if ip.is_fragment() {
        return Ok(());
    }
    transport(&ip)
}

/// Checks the checksum of the transport layer.
pub(super) fn transport(ip: &Ip<'_>) -> Result<(), Fault> {
    let fits = |header: usize, fault| {
        let pseudo = checksum::pseudo_header(ip.src, ip.dst, ip.proto, ip.content.len());
        if ip.content.len() < header {
            Err(Fault::Cut)
        } else if checksum::add(pseudo, checksum::sum(ip.content)) != 0xffff {
            Err(fault)
        } else {
            Ok(())
        }
    };
    match ip.proto {
        1 if ip.content.len() < 8 => Err(Fault::Cut),
        1 if checksum::sum(ip.content) != 0xffff => Err(Fault::IcmpChecksum),
        6 => fits(20, Fault::TcpChecksum),
        17 if ip.content.len() >= 8 && word16(ip.content, 6) == 0 => Ok(()),
        17 => fits(8, Fault::UdpChecksum),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{arp_request, icmp_echo, icmp_error, tcp, udp};

    fn segment() -> super::super::Packet<super::super::Tcp> {
        tcp().from("10.80.1.1:40000").to("10.80.1.243:3306").seq(7).ack(9)
    }

    #[test]
    fn what_the_builder_builds_is_right() {
        for packet in [
            segment().build(),
            segment().payload("odd").qinq(5, 6).ip_options(&[1; 8]).tcp_options(&[1; 12]).build(),
            segment().payload(1460).padded().build(),
            udp().from("10.80.1.1:5353").to("10.80.1.243:53").payload(5).build(),
            icmp_error(3, 4, 1400, &segment().ip_bytes()).from("10.80.1.9").to("10.80.1.1").build(),
            icmp_echo(1, 2).from("10.80.1.1").to("10.80.1.243").build(),
            arp_request([2; 6], "10.80.1.1", "10.80.1.243").build(),
        ] {
            assert_eq!(verify(&packet), Ok(()), "{}", crate::packet::describe(&packet));
        }
    }

    #[test]
    fn the_textbook_header_is_right() {
        // The worked example of an IPv4 checksum: 0xb1e6 for 172.16.10.99 to 172.16.10.12.
        let header = [
            0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 6, 0xb1, 0xe6, 0xac, 0x10, 0x0a, 0x63, 0xac, 0x10, 0x0a, 0x0c,
        ];
        assert_eq!(checksum::sum(&header), 0xffff);
        let mut blank = header;
        blank[10..12].fill(0);
        assert_eq!(checksum::of(&blank), 0xb1e6);
    }

    #[test]
    fn every_single_wrong_byte_is_found() {
        let good = segment().payload("SELECT 1").build();
        for at in 14..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(verify(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_bad_and_a_partial_checksum_are_wrong() {
        assert_eq!(verify(&segment().bad_checksum().build()), Err(Fault::TcpChecksum));
        assert_eq!(verify(&segment().partial_checksum().build()), Err(Fault::TcpChecksum));
        let partial = segment().partial_checksum();
        assert_eq!(segment().checksum_off_by(partial.checksum_error()).build(), partial.build());
        assert_eq!(segment().bad_checksum().checksum_error(), 0x1234);
    }
}

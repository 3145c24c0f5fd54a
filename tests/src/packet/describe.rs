//! Frames as one line of text, so that a failing test can be read.

use std::fmt::Write;

use super::{
    Mac, checksum, ether,
    verify::transport,
    walk::{Ip, Layers, word16, word32},
};

/// One line about a frame: `02:00:00:00:00:01 > 02:00:00:00:00:02 10.80.1.1:40000 > 10.80.1.243:3306 S seq 7 ttl 64 …`.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let mut line = String::new();
    let Some(layers) = Layers::of(frame) else { return format!("{} bytes, no Ethernet header", frame.len()) };
    let mac = |at: usize| {
        let octets: Vec<_> = frame[at..at + size_of::<Mac>()].iter().map(|b| format!("{b:02x}")).collect();
        octets.join(":")
    };
    line += &format!("{} > {}", mac(6), mac(0));
    for tag in &layers.tags {
        let _ = write!(line, " vlan {tag}");
    }
    match (&layers.ip, layers.ether_type) {
        (Some(ip), _) => line += &describe_ip(ip),
        (None, ether::IPV4) => line += " IPv4 cut or with wrong lengths",
        (None, ether::ARP) => line += &describe_arp(&frame[14 + 4 * layers.tags.len()..]),
        (None, ether::IPV6) => line += " IPv6",
        (None, other) => line += &format!(" EtherType {other:#06x}"),
    }
    let used =
        layers.ip.as_ref().map_or(frame.len(), |ip| 14 + 4 * layers.tags.len() + ip.header.len() + ip.content.len());
    if layers.frame.len() > used {
        let _ = write!(line, " padding {}", layers.frame.len() - used);
    }
    let _ = write!(line, " ({} bytes)", frame.len());
    line
}

fn describe_ip(ip: &Ip<'_>) -> String {
    let content = ip.content;
    let mut line = match ip.proto {
        6 if ip.fragment_offset == 0 && content.len() >= 20 => describe_tcp(ip),
        17 if ip.fragment_offset == 0 && content.len() >= 8 => {
            format!(" {}:{} > {}:{} UDP", ip.src, word16(content, 0), ip.dst, word16(content, 2))
        }
        1 if ip.fragment_offset == 0 && content.len() >= 8 => {
            format!(" {} > {} ICMP type {} code {}", ip.src, ip.dst, content[0], content[1])
        }
        proto => format!(" {} > {} protocol {proto}", ip.src, ip.dst),
    };
    let _ = write!(line, " ttl {} id {}", ip.ttl, word16(ip.header, 4));
    if ip.header.len() > 20 {
        let _ = write!(line, " ip-options {}", ip.header.len() - 20);
    }
    if ip.is_fragment() {
        let _ = write!(line, " fragment {}{}", ip.fragment_offset, if ip.more_fragments { "+" } else { "" });
    }
    line += if checksum::sum(ip.header) == 0xffff { " ip-csum ok" } else { " ip-csum BAD" };
    if !ip.is_fragment() && matches!(ip.proto, 1 | 6 | 17) {
        let name = match ip.proto {
            1 => "icmp",
            6 => "tcp",
            _ => "udp",
        };
        let _ = write!(line, " {name}-csum {}", if transport(ip).is_ok() { "ok" } else { "BAD" });
    }
    line
}

fn describe_tcp(ip: &Ip<'_>) -> String {
    const NAMES: [(u8, char); 8] =
        [(0x02, 'S'), (0x01, 'F'), (0x04, 'R'), (0x08, 'P'), (0x10, '.'), (0x20, 'U'), (0x40, 'E'), (0x80, 'W')];
    let tcp = ip.content;
    let flags: String = NAMES.iter().filter(|(bit, _)| tcp[13] & bit != 0).map(|(_, name)| *name).collect();
    let mut line = format!(" {}:{} > {}:{}", ip.src, word16(tcp, 0), ip.dst, word16(tcp, 2));
    let _ = write!(line, " {} seq {}", if flags.is_empty() { "none" } else { &flags }, word32(tcp, 4));
    if tcp[13] & 0x10 != 0 {
        let _ = write!(line, " ack {}", word32(tcp, 8));
    }
    let header = usize::from(tcp[12] >> 4) * 4;
    match tcp.len().checked_sub(header) {
        Some(payload) if header >= 20 => {
            let _ = write!(line, " len {payload}");
            if header > 20 {
                let _ = write!(line, " tcp-options {}", header - 20);
            }
        }
        _ => line += &format!(" header of {header} bytes"),
    }
    line
}

fn describe_arp(arp: &[u8]) -> String {
    if arp.len() < 28 {
        return " ARP cut".to_owned();
    }
    let address = |at: usize| std::net::Ipv4Addr::from(word32(arp, at));
    match word16(arp, 6) {
        1 => format!(" ARP who has {} tell {}", address(24), address(14)),
        2 => format!(" ARP {} is here, to {}", address(14), address(24)),
        other => format!(" ARP operation {other}"),
    }
}

/// What differs between two frames, for people: both described, then the bytes. `None`: nothing.
#[must_use]
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut text = format!("expected {}\n   found {}", describe(expected), describe(found));
    let differing: Vec<_> = expected.iter().zip(found).enumerate().filter(|(_, (e, f))| e != f).collect();
    for (at, (e, f)) in differing.iter().take(8) {
        let _ = write!(text, "\n   byte {at}: expected {e:#04x}, found {f:#04x}");
    }
    if differing.len() > 8 {
        let _ = write!(text, "\n   … and {} more bytes", differing.len() - 8);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{arp_request, tcp};

    #[test]
    fn a_segment_reads_as_a_line() {
        let packet = tcp().from("10.80.1.1:40000").to("192.168.80.167:3306").syn().seq(7).ttl(63);
        assert_eq!(
            describe(&packet.build()),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 10.80.1.1:40000 > 192.168.80.167:3306 S seq 7 len 0 ttl 63 id 1 \
             ip-csum ok tcp-csum ok (54 bytes)"
        );
        let line = describe(&packet.ack(9).vlan(7).bad_checksum().padded().build());
        assert!(line.contains(" vlan 7 ") && line.contains(" S. seq 7 ack 9 "), "{line}");
        assert!(line.ends_with("tcp-csum BAD padding 2 (60 bytes)"), "{line}");
    }

    #[test]
    fn no_length_of_a_frame_is_a_problem() {
        let packet = tcp().from("10.80.1.1:40000").to("10.80.1.243:3306").ack(1).qinq(1, 2).tcp_options(&[1; 12]);
        for len in 0..packet.headers_len() {
            assert!(!describe(&packet.clone().truncate(len).build()).contains("ok"), "{len}");
        }
        for len in 0..42 {
            let line = describe(&arp_request([2; 6], "10.80.1.1", "10.80.1.243").truncate(len).build());
            assert!(!line.contains("who has"), "{len}: {line}");
        }
    }

    #[test]
    fn a_difference_names_the_bytes() {
        let packet = tcp().from("10.80.1.1:40000").to("10.80.1.243:3306").ack(1);
        assert_eq!(difference(&packet.build(), &packet.build()), None);
        let text = difference(&packet.build(), &packet.clone().ttl(63).build()).unwrap_or_default();
        assert!(text.contains("byte 22: expected 0x40, found 0x3f"), "{text}");
    }
}

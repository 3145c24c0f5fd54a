//! Addresses with ports. The refusals know the usual mistakes: host names, IPv6, a prefix length, a URL, a missing port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;

use super::code::Code;
use super::problem::Problem;
use crate::printable::quote;

/// Reads `IPv4:PORT` for a service or a backend: an address that one host can have, and a port above 0.
pub(super) fn parse_ipv4_port(text: &str) -> Result<SocketAddrV4, Problem> {
    let (ip, port) = split_ipv4_port(text)?;
    let host = 0..text.find(':').unwrap_or(text.len());
    match unusable(ip) {
        Some((what, help)) => Err(Problem::new(Code::UnusableAddress, format!("{ip} is {what}"), help).at(host)),
        None => Ok(SocketAddrV4::new(ip, port)),
    }
}

/// Reads `IPv4:PORT` of a multicast group.
pub(super) fn parse_group(text: &str) -> Result<SocketAddrV4, Problem> {
    let (ip, port) = split_ipv4_port(text)?;
    if ip.is_multicast() {
        return Ok(SocketAddrV4::new(ip, port));
    }
    let host = 0..text.find(':').unwrap_or(text.len());
    let help = "give a group of 224.0.0.0/4, like `239.255.80.81:8848`; for one address write `peer = \"unicast\"`";
    Err(Problem::new(Code::UnusableAddress, format!("{ip} is no multicast group"), help).at(host))
}

/// Reads the address of one host, without a port.
pub(super) fn parse_ipv4(text: &str) -> Result<Ipv4Addr, Problem> {
    if looks_like_ipv6(text) {
        let message = format!("{} is an IPv6 address, which is not supported yet", quote(text));
        return Err(Problem::new(Code::Ipv6, message, "give an IPv4 address, like `10.80.1.241`"));
    }
    if let Some((host, port)) = text.split_once(':')
        && host.parse::<Ipv4Addr>().is_ok()
    {
        let message = format!("the port `{}` behind an address that takes none", quote(port).trim_matches('`'));
        return Err(Problem::new(Code::BadAddress, message, format!("write the address alone: `{host}`")));
    }
    let ip = parse_host(text)?;
    match unusable(ip) {
        Some((what, help)) => Err(Problem::new(Code::UnusableAddress, format!("{ip} is {what}"), help)),
        None => Ok(ip),
    }
}

/// Reads `IPv4/PREFIX`: the address of one host, and the length of the network that it is in.
pub(super) fn parse_ipv4_prefix(text: &str) -> Result<(Ipv4Addr, u8), Problem> {
    let Some((host, prefix)) = text.split_once('/') else {
        let ip = parse_ipv4(text)?;
        let help = format!("write it with the length of its network, like `{ip}/24`");
        return Err(Problem::new(Code::BadPrefix, format!("{ip} has no prefix length"), help));
    };
    let ip = parse_ipv4(host).map_err(|problem| Problem { part: Some(0..host.len()), ..problem })?;
    let part = host.len() + 1..text.len();
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let bits = match prefix.parse::<u8>() {
        Ok(bits @ 1..=32) if digits => bits,
        _ => {
            let message = format!("{} is not a prefix length", quote(prefix));
            let help = "the length of a network is 1 to 32, like 24 for 255.255.255.0";
            return Err(Problem::new(Code::BadPrefix, message, help).at(part));
        }
    };
    let hosts = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
    if bits < 31 && (ip.to_bits() & hosts == 0 || ip.to_bits() & hosts == hosts) {
        let message = format!("{ip} is the network or the broadcast address of its /{bits}");
        return Err(Problem::new(Code::UnusableAddress, message, "give the address of one host in it"));
    }
    Ok((ip, bits))
}

/// Reads `IP:PORT` for a listening socket of the agent itself, `[IPv6]:PORT` and wildcards included.
pub(super) fn parse_socket_addr(text: &str) -> Result<SocketAddr, Problem> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(SocketAddr::V6(_)) => {
            Err(Problem::new(Code::BadPort, "port 0 is no port", "give the port to listen on, like `[::1]:9180`"))
        }
        _ => split_ipv4_port(text).map(|(ip, port)| SocketAddr::from((ip, port))),
    }
}

/// Why no VIP and no backend can have this address.
fn unusable(ip: Ipv4Addr) -> Option<(&'static str, &'static str)> {
    if ip.is_unspecified() {
        Some(("not an address of one host", "name the one address; a service needs the VIP itself, not a wildcard"))
    } else if ip.octets()[0] == 0 {
        Some(("in 0.0.0.0/8, which no host can have", "give the host's own address"))
    } else if ip.is_loopback() {
        Some(("a loopback address, which the network cannot reach", "give the address on the network"))
    } else if ip.is_multicast() {
        Some(("a multicast address", "TCP needs the address of one host"))
    } else if ip.octets()[0] >= 240 {
        Some(("a broadcast or reserved address", "give the host's own address"))
    } else {
        None
    }
}

fn split_ipv4_port(text: &str) -> Result<(Ipv4Addr, u16), Problem> {
    let bad = |message: String, help: &str| Problem::new(Code::BadAddress, message, help);
    if text.is_empty() {
        return Err(bad("the address is empty".into(), "write an IPv4 address and a port, like `10.80.1.243:3306`"));
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_whitespace()) {
        return Err(bad("a blank inside an address".into(), "write it without blanks").at(at..at + c.len_utf8()));
    }
    if let Some(at) = text.find("://") {
        let help = "write only the address and the port, like `10.80.1.243:3306`";
        return Err(bad("a URL where an address belongs".into(), help).at(0..at + 3));
    }
    if looks_like_ipv6(text) {
        let message = format!("{} is an IPv6 address, which is not supported yet", quote(text));
        return Err(Problem::new(Code::Ipv6, message, "give an IPv4 address and a port, like `10.80.1.243:3306`"));
    }
    let Some((host, port)) = text.split_once(':') else {
        return Err(without_port(text));
    };
    let ip = parse_host(host)?;
    let part = host.len() + 1..text.len();
    Ok((ip, parse_port(port, host, part)?))
}

fn looks_like_ipv6(text: &str) -> bool {
    let inner = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => text,
    };
    let inner = inner.split('%').next().unwrap_or(inner);
    inner.parse::<Ipv6Addr>().is_ok()
}

/// The refusal for a text without a colon.
fn without_port(text: &str) -> Problem {
    match parse_host(text) {
        Ok(ip) => {
            let message = format!("{ip} has no port");
            Problem::new(Code::BadPort, message, format!("add the port: `{ip}:3306` for MySQL"))
        }
        Err(problem) => problem,
    }
}

fn parse_host(host: &str) -> Result<Ipv4Addr, Problem> {
    let part = 0..host.len();
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(ip);
    }
    if host.is_empty() {
        let help = "put the IPv4 address before the colon; a service needs the VIP itself, not a wildcard";
        return Err(Problem::new(Code::BadAddress, "the address before the port is missing", help));
    }
    if let Some((before, _)) = host.split_once('/')
        && before.parse::<IpAddr>().is_ok()
    {
        let help = format!("write the address alone: `{before}`");
        return Err(Problem::new(Code::BadAddress, "a prefix length in an address", help).at(before.len()..host.len()));
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let message = format!("{} is not an IPv4 address", quote(host));
        let help = "four numbers of 0 to 255 without leading zeros, joined by dots";
        return Err(Problem::new(Code::BadAddress, message, help).at(part));
    }
    if host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        let message = format!("{} is a host name", quote(host));
        let help = "use an IP address: the packet path must not depend on a name service; `getent hosts NAME` shows it";
        return Err(Problem::new(Code::HostName, message, help).at(part));
    }
    let message = format!("{} is not an IPv4 address", quote(host));
    Err(Problem::new(Code::BadAddress, message, "write an IPv4 address and a port, like `10.80.1.243:3306`").at(part))
}

/// Reads the port of `host`; `part` is its place in the whole text.
fn parse_port(port: &str, host: &str, part: Range<usize>) -> Result<u16, Problem> {
    let bad = |message: String, help: String| Err(Problem::new(Code::BadPort, message, help).at(part.clone()));
    if port.is_empty() {
        let message = format!("{host} has no port behind the colon");
        return Err(Problem::new(Code::BadPort, message, format!("add the port: `{host}:3306` for MySQL")));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("{} is not a port", quote(port));
        return bad(message, "write the port as a number, 3306 for MySQL".into());
    }
    match port.parse::<u16>() {
        Ok(0) => bad("port 0 is no port".into(), "ports are 1 to 65535; MySQL's is 3306".into()),
        Ok(number) => Ok(number),
        Err(_) => bad(format!("port {port} is too large"), "ports are 1 to 65535; MySQL's is 3306".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_know_the_usual_mistakes() {
        for (text, code, part, help) in [
            ("", Code::BadAddress, None, "like `10.80.1.243:3306`"),
            ("10.80.1.243", Code::BadPort, None, "`10.80.1.243:3306`"),
            ("10.80.1.243:", Code::BadPort, None, "`10.80.1.243:3306`"),
            ("10.80.1.243:0", Code::BadPort, Some(12..13), "1 to 65535"),
            ("10.80.1.243:65536", Code::BadPort, Some(12..17), "1 to 65535"),
            ("10.80.1.243:99999999999999999999", Code::BadPort, Some(12..32), "1 to 65535"),
            ("10.80.1.243:mysql", Code::BadPort, Some(12..17), "as a number"),
            ("10.80.1.243:+1", Code::BadPort, Some(12..14), "as a number"),
            ("10.80.1.243:-1", Code::BadPort, Some(12..14), "as a number"),
            ("10.80.1.243:1:2", Code::BadPort, Some(12..15), "as a number"),
            (":3306", Code::BadAddress, None, "before the colon"),
            ("*:3306", Code::BadAddress, Some(0..1), "like `10.80.1.243:3306`"),
            ("10.80.1.243/24:3306", Code::BadAddress, Some(11..14), "`10.80.1.243`"),
            ("10.80.1.256:3306", Code::BadAddress, Some(0..11), "0 to 255"),
            ("10.80.1:3306", Code::BadAddress, Some(0..7), "four numbers"),
            ("010.80.1.243:3306", Code::BadAddress, Some(0..12), "leading zeros"),
            ("10.80.1.243 :3306", Code::BadAddress, Some(11..12), "without blanks"),
            ("tcp://10.80.1.243:3306", Code::BadAddress, Some(0..6), "only the address"),
            ("db1:3306", Code::HostName, Some(0..3), "use an IP address"),
            ("db1.example.net", Code::HostName, Some(0..15), "use an IP address"),
            ("[2001:db8::1]:3306", Code::Ipv6, None, "IPv4"),
            ("2001:db8::1", Code::Ipv6, None, "IPv4"),
            ("[fe80::1%eth0]:3306", Code::Ipv6, None, "IPv4"),
            ("::ffff:10.0.0.1", Code::Ipv6, None, "IPv4"),
            ("0.0.0.0:3306", Code::UnusableAddress, Some(0..7), "not a wildcard"),
            ("0.1.2.3:3306", Code::UnusableAddress, Some(0..7), "own address"),
            ("127.0.0.1:3306", Code::UnusableAddress, Some(0..9), "on the network"),
            ("224.0.0.18:3306", Code::UnusableAddress, Some(0..10), "one host"),
            ("255.255.255.255:3306", Code::UnusableAddress, Some(0..15), "own address"),
        ] {
            let problem = parse_ipv4_port(text).expect_err(text);
            assert_eq!((problem.code, &problem.part), (code, &part), "{text}: {problem:?}");
            assert!(problem.help.contains(help), "{text}: {problem:?}");
        }
    }

    #[test]
    fn the_agents_own_sockets_may_be_ipv6_and_wildcards() {
        for text in ["127.0.0.1:9180", "0.0.0.0:9180", "[::]:9180", "[::1]:9180"] {
            assert_eq!(parse_socket_addr(text), Ok(text.parse().unwrap()), "{text}");
        }
        for (text, code) in [
            ("127.0.0.1:0", Code::BadPort),
            ("[::]:0", Code::BadPort),
            ("localhost:9180", Code::HostName),
            (":9180", Code::BadAddress),
            ("9180", Code::BadAddress),
        ] {
            assert_eq!(parse_socket_addr(text).expect_err(text).code, code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_was_written(text in "[0-9]{1,3}(\\.[0-9]{1,3}){3}:[0-9]{1,6}") {
            if let Ok(address) = parse_ipv4_port(&text) {
                // A port may be written with leading zeros; nothing else has two spellings.
                prop_assert_eq!(address.ip().to_string(), text.split(':').next().unwrap());
                prop_assert_eq!(address.port().to_string(), text.split(':').nth(1).unwrap().trim_start_matches('0'));
            }
        }

        #[test]
        fn no_text_panics_and_the_blame_is_a_part_of_it(text in "[0-9a-fé.:/%\\[\\] -]{0,24}") {
            if let Err(Problem { part: Some(part), .. }) = parse_ipv4_port(&text) {
                prop_assert!(text.get(part).is_some());
            }
            let _ = parse_socket_addr(&text);
        }
    }
}

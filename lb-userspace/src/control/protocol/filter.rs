//! Which conns a listing shows. The agent may test raw entries with the parts before it builds a [`ConnView`].

use super::{ConnView, names};
use lb_common::tcp::State;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    str::FromStr,
};

/// Addresses to select, written `10.80.1.0/24`, `10.80.1.1`, `10.80.1.1:40000` or `10.80.1.0/24:40000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrFilter {
    addr: Ipv4Addr,
    prefix: u8,
    port: Option<u16>,
}

impl AddrFilter {
    /// Tells whether the address is selected.
    #[must_use]
    pub fn matches(&self, addr: SocketAddrV4) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (self.addr.to_bits() ^ addr.ip().to_bits()) & mask == 0 && self.port.is_none_or(|port| port == addr.port())
    }
}

impl FromStr for AddrFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, port) = match text.rsplit_once(':') {
                Some((rest, port)) => (rest, Some(port.parse().ok()?)),
                None => (text, None),
            };
            let (addr, prefix) = match rest.split_once('/') {
                Some((addr, prefix)) => (addr, prefix.parse().ok().filter(|p| *p <= 32)?),
                None => (rest, 32),
            };
            Some(Self { addr: addr.parse().ok()?, prefix, port })
        };
        parse().ok_or_else(|| {
            format!("'{text}' is no IPv4 address: write 10.80.1.1, 10.80.1.1:40000, 10.80.1.0/24 or 10.80.1.0/24:40000")
        })
    }
}

impl fmt::Display for AddrFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, prefix, port } = self;
        write!(f, "{addr}")?;
        if *prefix != 32 {
            write!(f, "/{prefix}")?;
        }
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for AddrFilter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddrFilter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The arguments of `conns`; an absent one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnFilter {
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<AddrFilter>,
    /// The backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<AddrFilter>,
    /// The name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The TCP state.
    #[serde(with = "names::option", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only conns without a packet for more than this many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_gt: Option<u64>,
    /// At most this many conns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl ConnFilter {
    /// Tells whether the conn is selected; `limit` is the sink's business.
    #[must_use]
    pub fn matches(&self, conn: &ConnView) -> bool {
        let Self { client, backend, service, state, idle_gt, limit: _ } = self;
        client.is_none_or(|f| f.matches(conn.client))
            && backend.is_none_or(|f| f.matches(conn.destination))
            && service.as_ref().is_none_or(|name| *name == conn.service)
            && state.is_none_or(|state| state == conn.state)
            && idle_gt.is_none_or(|seconds| conn.idle_seconds > seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::AddrFilter;

    #[test]
    fn an_address_filter_reads_as_it_is_written() {
        for text in ["10.80.1.1", "10.80.1.1:40000", "10.80.1.0/24", "10.80.1.0/24:40000", "0.0.0.0/0"] {
            assert_eq!(text.parse::<AddrFilter>().unwrap().to_string(), text);
        }
        for text in ["", "10.80.1", "10.80.1.1/33", "10.80.1.1:", "10.80.1.1:65536", "10.80.1.1:80/24", "::1", "db1"] {
            let error = text.parse::<AddrFilter>().unwrap_err();
            assert!(error.starts_with(&format!("'{text}' is no IPv4 address: write")), "{error}");
        }
    }

    #[test]
    fn prefix_and_port_both_count() {
        for (filter, addr, expected) in [
            ("10.80.1.1", "10.80.1.1:1", true),
            ("10.80.1.1", "10.80.1.2:1", false),
            ("10.80.1.1:40000", "10.80.1.1:40001", false),
            ("10.80.1.128/25", "10.80.1.129:1", true),
            ("10.80.1.128/25", "10.80.1.127:1", false),
            ("10.80.1.0/24:7", "10.80.1.9:7", true),
            ("10.80.1.0/24:7", "10.80.1.9:8", false),
            ("0.0.0.0/0", "255.255.255.255:9", true),
        ] {
            let (f, a) = (filter.parse::<AddrFilter>().unwrap(), addr.parse().unwrap());
            assert_eq!(f.matches(a), expected, "{filter} on {addr}");
        }
    }
}

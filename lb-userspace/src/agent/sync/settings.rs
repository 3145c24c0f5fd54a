//! From the config to the parameters of the sync: numbers of directors, keys, the path, services. Reads the key file and
//! the kernel's random numbers, and nothing else.

use std::{net::SocketAddrV4, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    config::{Config, Director, SYNC_PORT, Sync, SyncPeer},
    sync::{self, KeyError, Psk, Random, Services, Timeouts},
};

/// What a datagram holds before the interface has said what it takes.
const DATAGRAM: usize = 1472;
/// Ends of conns kept for a peer that cannot be told, within these bounds: 64 bytes each.
const ENDS: (usize, usize) = (4096, 262_144);

/// The parameters of the core.
pub(super) fn settings(config: &Config, sync: &Sync, director: &Director) -> Result<sync::Config> {
    let keys = match &sync.key_file {
        Some(path) => read_keys(path)?,
        None => vec![Psk::insecure()],
    };
    let (mut epoch, mut seed) = (Random::default(), [0; 32]);
    for bytes in [&mut epoch[..], &mut seed[..]] {
        sync::random(bytes).context("ask the kernel for random numbers")?;
    }
    let capacity = usize::try_from(config.tables.conns).unwrap_or(usize::MAX);
    let timeouts = config.timeouts;
    Ok(sync::Config {
        node: number(config, director)?,
        epoch,
        seed,
        keys,
        insecure: sync.key_file.is_none(),
        fingerprint: fingerprint(config),
        timeouts: Timeouts::new(|state| timeouts.of(state)),
        capacity,
        ends: (capacity / 4).clamp(ENDS.0, ENDS.1),
        datagram: DATAGRAM,
        heartbeat: sync.heartbeat,
        refresh: sync.refresh,
    })
}

fn read_keys(path: &Path) -> Result<Vec<Psk>> {
    sync::read_keys(path).map_err(|error| anyhow!("{}", key_trouble(path, &error)))
}

/// What is wrong with a key file, and what to do about it.
pub(super) fn key_trouble(path: &Path, error: &KeyError) -> String {
    let path = path.display();
    match error {
        KeyError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => format!(
            "the key file {path} does not exist: make it with `lb-agent keygen {path}` on one director, and copy it to \
             the other one"
        ),
        error => format!("the key file {path}: {error}"),
    }
}

/// Where the peer is.
pub(super) fn path(config: &Config, sync: &Sync, director: &Director) -> Result<sync::Path> {
    let interface = sync.interface.clone();
    let peer = match sync.peer {
        SyncPeer::Group(group) => sync::Peer::Group(group),
        SyncPeer::Unicast => {
            let mut others = config.directors.iter().filter(|other| other.name != director.name);
            let (Some(other), None) = (others.next(), others.next()) else {
                bail!("`peer = \"unicast\"` of [sync] needs two [director.NAME]s, no more and no fewer");
            };
            let address = |director: &Director| {
                let address = director.addresses.get(&interface).copied();
                address.with_context(|| format!("[director.{}] has no address on {interface}", director.name))
            };
            sync::Peer::Address { own: address(director)?, peer: SocketAddrV4::new(address(other)?, SYNC_PORT) }
        }
    };
    Ok(sync::Path { interface, peer })
}

/// The number of a director on the wire: made of its name alone, so that files which list others agree on it.
fn number(config: &Config, director: &Director) -> Result<u16> {
    let own = number_of(&director.name);
    match config.directors.iter().find(|other| other.name != director.name && number_of(&other.name) == own) {
        Some(other) => bail!(
            "the names {} and {} happen to give one number on the sync path: rename one of the two",
            director.name,
            other.name
        ),
        None => Ok(own),
    }
}

pub(super) fn number_of(name: &str) -> u16 {
    let hash = fnv(FNV, name.as_bytes());
    // Folded, and never 0.
    ((hash ^ (hash >> 16) ^ (hash >> 32) ^ (hash >> 48)) as u16).max(1)
}

/// The name of the director with a number.
pub(super) fn name_of(config: &Config, number: u16) -> Option<String> {
    config.directors.iter().map(|director| &director.name).find(|name| number_of(name) == number).cloned()
}

/// Services and their backends, in whatever order, as one number.
fn fingerprint(config: &Config) -> u64 {
    let mut pairs: Vec<String> = pairs(config).map(|(service, backend)| format!("{service} {backend}\n")).collect();
    pairs.sort_unstable();
    pairs.iter().fold(FNV, |hash, pair| fnv(hash, pair.as_bytes()))
}

/// What conns of the peer may belong to: whatever the operator drains, too.
pub(super) fn services(config: &Config) -> Services {
    let mut services = Services::default();
    pairs(config).for_each(|(service, backend)| services.add(service, backend));
    services
}

fn pairs(config: &Config) -> impl Iterator<Item = (SocketAddrV4, SocketAddrV4)> {
    config.services.iter().flat_map(|service| service.backends.iter().map(|backend| (service.listen, backend.address)))
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, as its authors give it.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edit: impl Fn(String) -> String) -> Config {
        let sync = "[sync]\ninterface = \"eth2\"\ninsecure = true\n";
        let text = edit(include_str!("../../../config/pair.toml").to_owned() + sync);
        Config::parse("pair.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn directors_have_numbers_of_their_own_whatever_else_is_in_the_file() {
        let pair = config(|text| text);
        let numbers: Vec<_> = pair.directors.iter().map(|director| number(&pair, director).unwrap()).collect();
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(name_of(&pair, numbers[1]).as_deref(), Some("d2"));
        assert_eq!(name_of(&pair, 0), None);
        let swapped = config(|text| text.replace("[director.d1]", "[director.d0]"));
        assert_eq!(number(&swapped, &swapped.directors[1]).unwrap(), numbers[1]);
    }

    #[test]
    fn two_names_with_one_number_are_refused_by_name() {
        let first = number_of("d1");
        let other = (0..).map(|n| format!("x{n}")).find(|name| number_of(name) == first).unwrap();
        let pair = config(|text| text.replace("[director.d2]", &format!("[director.{other}]")));
        let refusal = number(&pair, &pair.directors[0]).unwrap_err().to_string();
        assert!(refusal.contains("d1") && refusal.contains(&other), "{refusal}");
    }

    #[test]
    fn the_fingerprint_is_that_of_services_and_backends_and_nothing_else() {
        let pair = config(|text| text);
        let same = config(|text| text.replace("scheduler = \"rr\"", "scheduler = \"wlc\"").replace("101", "102"));
        assert_eq!(fingerprint(&pair), fingerprint(&same));
        let swap = |text: String| text.replace(".167:", ".1:").replace(".136:", ".167:").replace(".1:", ".136:");
        assert_eq!(fingerprint(&pair), fingerprint(&config(swap)), "the order does not count");
        let other = config(|text| text.replace(".167:3306", ".168:3306"));
        assert_ne!(fingerprint(&pair), fingerprint(&other));
    }

    #[test]
    fn unicast_goes_from_the_own_address_to_the_other_directors() {
        let unicast =
            |text: String| text.replace("interface = \"eth2\"\n", "interface = \"eth1\"\npeer = \"unicast\"\n");
        let pair = config(unicast);
        let sync = pair.sync.as_ref().unwrap();
        let found = path(&pair, sync, &pair.directors[1]).unwrap();
        let expected = sync::Peer::Address {
            own: "192.168.80.102".parse().unwrap(),
            peer: "192.168.80.101:8848".parse().unwrap(),
        };
        assert_eq!((found.interface.as_str(), found.peer), ("eth1", expected));
    }

    #[test]
    fn without_a_key_file_the_parameters_say_so() {
        let pair = config(|text| text);
        let found = settings(&pair, pair.sync.as_ref().unwrap(), &pair.directors[0]).unwrap();
        assert!(found.insecure);
        let again = settings(&pair, pair.sync.as_ref().unwrap(), &pair.directors[0]).unwrap();
        assert_ne!(found.epoch, again.epoch);
        let keyed = config(|text| text.replace("insecure = true", "key_file = \"/nonexistent/sync.key\""));
        let refusal = settings(&keyed, keyed.sync.as_ref().unwrap(), &keyed.directors[0]).unwrap_err().to_string();
        assert!(refusal.contains("lb-agent keygen /nonexistent/sync.key"), "{refusal}");
    }
}

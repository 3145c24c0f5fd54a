//! New connections are spread exactly by weight, each is answered in full, and the servers see the client's address.
//! Who answered is each server's own account, held against the agent's counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, bail};
use lb_userspace::control::protocol::StatsView;

use crate::lab::{Director, Lab, Server, Workload, addr};

/// Sessions that a client keeps open at a time.
const PARALLEL: usize = 8;

/// Causes of failures that a message shows.
const ERRORS_SHOWN: usize = 3;

/// A backend, and what part of the new connections it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Address of the server.
    pub backend: Ipv4Addr,
    /// Its weight among those of the others.
    pub weight: u16,
}

impl Share {
    /// The share of `server` with this weight.
    pub fn new(server: &Server, weight: u16) -> Self {
        Self { backend: server.address(), weight }
    }

    /// The backend as lbctl names it.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.backend, addr::MYSQL_PORT)
    }
}

/// The smallest number of connections, `least` or more, that can be spread exactly.
pub fn rounds(least: u64, shares: &[Share]) -> u64 {
    least.next_multiple_of(total(shares).max(1))
}

/// New connections that were made, and what the agent counted meanwhile.
#[derive(Clone, Debug)]
pub struct Spread {
    /// What became of them.
    pub work: Workload,
    /// Connections by backend, by the account of the agent on d1.
    counted: BTreeMap<Ipv4Addr, u64>,
    wanted: (u64, u64),
}

impl Spread {
    /// Opens new connections from the first client, each running `queries` queries.
    ///
    /// # Errors
    /// When the workload or lbctl cannot run; what fails on the way is in the result.
    pub fn make(lab: &Lab, connections: u64, queries: u64) -> Result<Self> {
        let before = counted(lab.d1())?;
        let work = lab.client().many_connections(connections, queries, PARALLEL)?;
        let mut counted = counted(lab.d1())?;
        for (backend, count) in before {
            *counted.entry(backend).or_default() -= count;
        }
        counted.retain(|_, count| *count > 0);
        Ok(Self { work, counted, wanted: (connections, connections * queries) })
    }

    /// Checks that all were answered, spread exactly by `shares`, seen with the client's own address, and counted by
    /// the agent as they went.
    ///
    /// # Errors
    /// What was seen instead.
    pub fn check(&self, lab: &Lab, shares: &[Share]) -> Result<()> {
        let Self { work, counted, wanted } = self;
        exact_shares(work, lab.client().address(), shares)?;
        if (work.connections, work.queries) != *wanted {
            bail!("{} connections with {} queries were made, not {wanted:?}", work.connections, work.queries);
        }
        if *counted != work.by_backend {
            bail!("the servers answered {:?}, lbctl stats counted {counted:?}", work.by_backend);
        }
        Ok(())
    }
}

/// Makes connections and checks them, see [`Spread`].
///
/// # Errors
/// As there.
pub fn spread(lab: &Lab, shares: &[Share], connections: u64, queries: u64) -> Result<Workload> {
    let spread = Spread::make(lab, connections, queries)?;
    spread.check(lab, shares)?;
    Ok(spread.work)
}

/// Checks that nothing of a workload failed, that it is spread exactly, and that the servers saw the client itself.
///
/// # Errors
/// What was seen instead.
pub fn exact_shares(work: &Workload, client: Ipv4Addr, shares: &[Share]) -> Result<()> {
    if work.failed_connections + work.failed_queries > 0 {
        bail!(
            "{} connections and {} queries failed:\n{}",
            work.failed_connections,
            work.failed_queries,
            work.errors.iter().take(ERRORS_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n")
        );
    }
    let total = total(shares);
    if total == 0 || !work.connections.is_multiple_of(total) {
        bail!("{} connections cannot be spread exactly over weights {shares:?}", work.connections);
    }
    let round = work.connections / total;
    let expected: BTreeMap<_, _> = shares
        .iter()
        .filter(|share| share.weight > 0)
        .map(|share| (share.backend, u64::from(share.weight) * round))
        .collect();
    if work.by_backend != expected {
        bail!("connections by backend: {:?}, expected {expected:?}", work.by_backend);
    }
    if work.client_seen != BTreeSet::from([client]) {
        bail!("the processlists show {:?}, the client is {client}", work.client_seen);
    }
    Ok(())
}

fn total(shares: &[Share]) -> u64 {
    shares.iter().map(|share| u64::from(share.weight)).sum()
}

/// Connections that the agent counted so far, by backend.
fn counted(director: &Director) -> Result<BTreeMap<Ipv4Addr, u64>> {
    let stats: Vec<StatsView> = director.ctl(&["stats"])?;
    let mut counts = BTreeMap::new();
    for backend in stats.iter().flat_map(|service| &service.backends) {
        *counts.entry(*backend.address.ip()).or_default() += backend.traffic.conns;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;

    use super::{Share, exact_shares, rounds};
    use crate::lab::Workload;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 1);
    const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 80, 167), Ipv4Addr::new(192, 168, 80, 136)];

    fn shares(weights: [u16; 2]) -> Vec<Share> {
        BACKENDS.into_iter().zip(weights).map(|(backend, weight)| Share { backend, weight }).collect()
    }

    fn work(counts: [u64; 2]) -> Workload {
        Workload {
            connections: counts.iter().sum(),
            by_backend: BACKENDS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect(),
            client_seen: BTreeSet::from([CLIENT]),
            ..Workload::default()
        }
    }

    #[test]
    fn connections_are_rounded_up_to_whole_rounds_of_the_scheduler() {
        assert_eq!(
            (rounds(200, &shares([1, 1])), rounds(200, &shares([2, 1])), rounds(200, &shares([0, 0]))),
            (200, 201, 200)
        );
    }

    #[test]
    fn a_share_is_exact_or_wrong() {
        let check = |counts, weights| exact_shares(&work(counts), CLIENT, &shares(weights)).map_err(|e| e.to_string());
        assert_eq!(check([100, 100], [1, 1]), Ok(()));
        assert_eq!(check([150, 50], [3, 1]), Ok(()));
        assert_eq!(check([0, 50], [0, 1]), Ok(()));
        for (counts, weights, words) in [
            ([101, 99], [1, 1], "expected"),
            ([200, 0], [1, 1], "expected"),
            ([100, 100], [3, 1], "expected"),
            ([100, 101], [1, 1], "cannot be spread exactly"),
            ([0, 0], [0, 0], "cannot be spread exactly"),
        ] {
            let error = check(counts, weights).unwrap_err();
            assert!(error.contains(words), "{counts:?} {weights:?}: {error}");
        }
    }

    #[test]
    fn a_hidden_client_and_a_failure_are_wrong_whatever_the_shares() {
        let shares = shares([1, 1]);
        let hidden =
            Workload { client_seen: BTreeSet::from([CLIENT, Ipv4Addr::new(192, 168, 80, 101)]), ..work([9, 9]) };
        let query = Workload { failed_queries: 1, ..work([9, 9]) };
        let connection = Workload { failed_connections: 1, errors: vec!["refused".to_owned()], ..work([9, 9]) };
        let stranger = Workload { by_backend: BTreeMap::from([(CLIENT, 18)]), ..work([9, 9]) };
        for (wrong, words) in
            [(hidden, "processlists"), (query, "1 queries"), (connection, "refused"), (stranger, "expected")]
        {
            let error = exact_shares(&wrong, CLIENT, &shares).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

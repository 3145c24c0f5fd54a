//! Many short sessions from one client, each checked answer by answer: who answered, whom MariaDB saw, what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mysql::prelude::Queryable;
use serde::Serialize;

use super::addr;
use super::client::{Client, login, peer};
use super::wait::now;

/// How many error messages are kept; all are counted.
const ERRORS_KEPT: usize = 10;

/// What became of a number of sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// Sessions that logged in and told who answered.
    pub connections: u64,
    /// Those, by the server's own address.
    pub by_backend: BTreeMap<Ipv4Addr, u64>,
    /// Addresses that the servers' processlists showed for them.
    pub client_seen: BTreeSet<Ipv4Addr>,
    /// Queries with the right answer.
    pub queries: u64,
    /// Sessions that could not be opened.
    pub failed_connections: u64,
    /// Queries without the right answer; those that a failed session did not get to count too.
    pub failed_queries: u64,
    /// The first few causes.
    pub errors: Vec<String>,
    /// From the first connect to the last close.
    pub elapsed: Duration,
}

impl Workload {
    fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        for (backend, count) in other.by_backend {
            *self.by_backend.entry(backend).or_default() += count;
        }
        self.client_seen.extend(other.client_seen);
        self.queries += other.queries;
        self.failed_connections += other.failed_connections;
        self.failed_queries += other.failed_queries;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_KEPT);
    }

    fn session(&mut self, server: SocketAddrV4, number: u64, queries: u64) {
        let mut answered = 0;
        if let Err(error) = self.try_session(server, number, queries, &mut answered) {
            self.failed_queries += queries - answered;
            if self.errors.len() < ERRORS_KEPT {
                self.errors.push(format!("session {number}: {error:#}"));
            }
        }
        self.queries += answered;
    }

    fn try_session(&mut self, server: SocketAddrV4, number: u64, queries: u64, answered: &mut u64) -> Result<()> {
        let opened = login(server).and_then(|mut session| Ok((peer(&mut session)?, session)));
        let (peer, mut session) = opened.inspect_err(|_| self.failed_connections += 1)?;
        self.connections += 1;
        *self.by_backend.entry(peer.backend).or_default() += 1;
        self.client_seen.insert(peer.client_seen);
        for query in 0..queries {
            let right = number * 1000 + query;
            let answer: Option<(u64, u32)> =
                session.query_first(format!("SELECT {number} * 1000 + {query}, @@server_id"))?;
            match answer {
                Some((sum, id)) if sum == right && id == peer.server_id => *answered += 1,
                other => bail!("expected ({right}, {}), got {other:?}", peer.server_id),
            }
        }
        Ok(())
    }
}

impl Client {
    /// Opens `count` sessions to the service, `parallel` at a time, each running `queries` queries before it closes.
    ///
    /// # Errors
    /// Only when the workload itself cannot run: what fails on the way is in the result.
    pub fn many_connections(&self, count: u64, queries: u64, parallel: usize) -> Result<Workload> {
        self.many_connections_to(addr::SERVICE, count, queries, parallel)
    }

    /// As [`Client::many_connections`], to any address.
    ///
    /// # Errors
    /// As there.
    pub fn many_connections_to(
        &self,
        server: SocketAddrV4,
        count: u64,
        queries: u64,
        parallel: usize,
    ) -> Result<Workload> {
        let next = AtomicU64::new(0);
        let worker = || {
            let mut part = Workload::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return part;
                }
                part.session(server, number, queries);
            }
        };
        let started = now();
        let mut total = self
            .host()
            .enter(|| {
                thread::scope(|scope| {
                    let workers: Vec<_> = (0..parallel.max(1)).map(|_| scope.spawn(worker)).collect();
                    let mut total = Workload::default();
                    for worker in workers {
                        total.merge(worker.join().map_err(|_| anyhow!("a worker panicked"))?);
                    }
                    Ok(total)
                })
            })
            .context("run the workload")?;
        total.elapsed = started.elapsed();
        Ok(total)
    }
}

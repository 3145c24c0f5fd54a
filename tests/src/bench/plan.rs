//! Which rows there are, and the tables that each of them needs.

use std::rc::Rc;

use anyhow::Result;
use lb_common::{abi, addr::Ipv4, conn::Direction};
use lb_userspace::datapath::TableSizes;

use super::{
    Hook, Options,
    chain::Chain,
    established::Established,
    figures::{Group, Row},
    loaded::{Loaded, Loader, Programs},
    memory::Memory,
    openings::{self, Opening, Openings},
    row::{Baseline, Foreign, Probe},
    sandbox::Sandbox,
};

/// A row before it is measured.
pub(super) struct Planned {
    pub(super) row: Row,
    pub(super) probe: Box<dyn Probe>,
    /// Calls in one of its samples.
    pub(super) calls: u32,
}

/// Conns in the largest table.
pub(super) const MILLION: u32 = 1_000_000;

/// Name, conns, and capacity of each table with established conns. The hot flow has a table of the default size.
const TABLES: [(&str, u32, u32); 4] =
    [("hot", 1, abi::MAX_CONNS), ("16k", 1 << 14, 1 << 14), ("128k", 1 << 17, 1 << 17), ("1m", MILLION, MILLION)];

/// The rows with established conns: name, meaning, table, direction.
const ESTABLISHED: [(&str, &str, &str, Direction); 6] = [
    ("forward_ns", "established, client to backend, one flow", "hot", Direction::Forward),
    ("reverse_ns", "established, backend to client, one flow", "hot", Direction::Reverse),
    ("forward_16k_ns", "the same, 16,384 flows in turn", "16k", Direction::Forward),
    ("forward_128k_ns", "the same, 131,072 flows in turn", "128k", Direction::Forward),
    ("forward_1m_ns", "the same, 1,000,000 flows in turn", "1m", Direction::Forward),
    ("reverse_1m_ns", "backend to client, 1,000,000 flows in turn", "1m", Direction::Reverse),
];

/// A table with established conns.
pub(super) struct Table {
    pub(super) loaded: Rc<Loaded>,
    pub(super) chain: Rc<Chain>,
}

/// The rows of one run.
pub(super) struct Plan<'a> {
    sandbox: &'a Sandbox,
    options: &'a Options,
    pub(super) rows: Vec<Planned>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, options: &'a Options) -> Self {
        Self { sandbox, options, rows: Vec::new() }
    }

    fn wants(&self, name: &str) -> bool {
        self.options.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn add(&mut self, group: Group, name: &'static str, what: &'static str, probe: Box<dyn Probe>) {
        let row = Row { group, name, what, samples: Vec::new() };
        self.rows.push(Planned { row, probe, calls: self.options.calls });
    }

    /// What the packet path is measured against; always measured.
    pub(super) fn baselines(&mut self) -> Result<()> {
        let baselines = Rc::new(Programs::baselines(self.sandbox)?);
        for (name, what, hook, forwards) in [
            ("noop_ns", "a program that does nothing, XDP", Hook::Xdp, false),
            ("forwarder_ns", "plain forwarder, XDP", Hook::Xdp, true),
            ("tc_noop_ns", "a program that does nothing, TC", Hook::Tc, false),
            ("tc_forwarder_ns", "plain forwarder, TC", Hook::Tc, true),
        ] {
            let programs = Rc::clone(&baselines);
            self.add(Group::Baseline, name, what, Box::new(Baseline { programs, hook, forwards }));
        }
        let line = "one load from a random place of 64 MiB, a line for each of 1,000,000 flows";
        self.add(Group::Baseline, "memory_line_ns", line, Box::new(Memory::new(64)?));
        self.add(Group::Baseline, "memory_ns", "one load from a random place of 256 MiB", Box::new(Memory::new(256)?));
        Ok(())
    }

    /// The rows of a packet path. Answers the table of a million conns if it was needed.
    pub(super) fn packet_path(&mut self, loader: &Loader, group: fn(Hook) -> Group) -> Result<Option<Table>> {
        let mut million = None;
        for (table, flows, capacity) in TABLES {
            let rows: Vec<_> = ESTABLISHED.into_iter().filter(|row| row.2 == table && self.wants(row.0)).collect();
            let helpers = table == "hot" && self.wants("forward_helpers_ns");
            if rows.is_empty() && !helpers {
                continue;
            }
            let (loaded, chain) = established(self.sandbox, loader, flows, capacity)?;
            for hook in Hook::ALL {
                for (name, what, _, dir) in &rows {
                    self.add(group(hook), name, what, Box::new(Established::new(&loaded, &chain, hook, *dir)));
                }
            }
            if helpers {
                let probe = Established::new(&loaded, &chain, Hook::Tc, Direction::Forward).partial();
                let what = "the kernel's checksum helpers, one flow";
                self.add(group(Hook::Tc), "forward_helpers_ns", what, Box::new(probe));
            }
            if flows == MILLION {
                million = Some(Table { loaded, chain });
            }
        }
        if self.wants("pass_ns") {
            let loaded = Rc::new(classic(self.sandbox, loader)?);
            for hook in Hook::ALL {
                let probe = Box::new(Foreign { loaded: Rc::clone(&loaded), hook });
                self.add(group(hook), "pass_ns", "TCP of somebody else, left alone", probe);
            }
        }
        self.openings(loader, group)?;
        Ok(million)
    }

    fn openings(&mut self, loader: &Loader, group: fn(Hook) -> Group) -> Result<()> {
        let mut rows = vec![
            ("new_conn_ns", "SYN: a new conn, next hop and all", Opening::Syn),
            ("establish_ns", "ACK: a handshake completed, event and all", Opening::Complete),
        ];
        rows.retain(|row| self.wants(row.0));
        if rows.is_empty() {
            return Ok(());
        }
        for hook in Hook::ALL {
            // A table for each hook: the entries that one has just used would be in the other's cache.
            let loaded = Loaded::load(self.sandbox, loader, openings::sizes(), openings::admit)?;
            openings::configure(&loaded.tables)?;
            let loaded = Rc::new(loaded);
            for &(name, what, opening) in &rows {
                let probe = Openings { loaded: Rc::clone(&loaded), hook, opening, client: 0 };
                self.add(group(hook), name, what, Box::new(probe));
                if let Some(row) = self.rows.last_mut() {
                    // Every run leaves entries behind that must go, and the ring of events has an end.
                    row.calls = row.calls.div_ceil(4).min(100);
                }
            }
        }
        Ok(())
    }
}

/// Tables with `flows` established conns. The filter lets everything through: what a packet of a flow pays for it does
/// not depend on its bits.
fn established(sandbox: &Sandbox, loader: &Loader, flows: u32, capacity: u32) -> Result<(Rc<Loaded>, Rc<Chain>)> {
    let sizes = TableSizes { conns: capacity, half_open: 1024, ..openings::sizes() };
    let loaded = Loaded::load(sandbox, loader, sizes, |control| control.filter.fill(u64::MAX))?;
    let chain = Chain::new(flows);
    let entries: Vec<_> = chain.entries().flatten().collect();
    loaded.tables.conns.insert_many(&entries)?;
    Ok((Rc::new(loaded), Rc::new(chain)))
}

/// Tables of the classic setup without conns: the filter knows one VIP and two backends.
fn classic(sandbox: &Sandbox, loader: &Loader) -> Result<Loaded> {
    let sizes = TableSizes { half_open: 1024, ..openings::sizes() };
    Loaded::load(sandbox, loader, sizes, |control| {
        for address in [[10, 80, 1, 243], [192, 168, 80, 167], [192, 168, 80, 136]] {
            control.admit(Ipv4::new(address), 3306);
        }
    })
}

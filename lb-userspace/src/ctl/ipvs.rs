//! Services, conns, stats and rates in the columns of `ipvsadm`, so that eyes and scripts trained on it go on working.
//!
//! The column widths, the order and the shortening of large numbers are those of ipvsadm 1.31 with `-n`. Ours are the
//! product name in the first line, words behind backends that take no new conns or that the other director sees
//! otherwise, and no blanks at line ends.

use crate::control::protocol::{BackendView, ConnView, Rate, RateView, ServiceView, StatsView, Status, Traffic};
use lb_common::{abi::map, backend::BackendState};
use std::{
    io::{self, Write},
    net::SocketAddrV4,
};

/// The first line of all listings but that of conns.
fn product(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let size = status.tables.iter().find(|table| table.name == map::CONNS).map_or(0, |table| table.capacity);
    writeln!(out, "LB Virtual Server version {} (size={size})", status.agent_version)
}

/// The columns of `ipvsadm -Ln`.
pub(super) fn services(out: &mut impl Write, status: &Status, services: &[ServiceView]) -> io::Result<()> {
    product(out, status)?;
    writeln!(out, "Prot LocalAddress:Port Scheduler Flags")?;
    writeln!(out, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")?;
    for service in services {
        writeln!(out, "{}  {} {}", service.protocol, service.listen, service.scheduler)?;
        for backend in &service.backends {
            let BackendView { address, forward, weight, state, word, active, inactive, disagreement, .. } = backend;
            let address = address.to_string();
            // An agent without checks has no words of theirs.
            let word = if word.is_empty() { state.name() } else { word };
            let note = if word == BackendState::Up.name() { "" } else { word };
            // The difference says which verdict is the own one.
            let note = match disagreement {
                Some(difference) if ["", BackendState::Down.name()].contains(&note) => difference.clone(),
                Some(difference) => format!("{note}, {difference}"),
                None => note.to_owned(),
            };
            let line = format!("  -> {address:<28} {forward:<7} {weight:<6} {active:<10} {inactive:<10} {note}");
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}

/// The first lines of `ipvsadm -Lnc`.
pub(super) fn conn_titles(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "LB connection entries")?;
    writeln!(out, "pro expire {:<11} {:<18} {:<18} destination", "state", "source", "virtual")
}

/// A line of `ipvsadm -Lnc`.
pub(super) fn conn(out: &mut impl Write, conn: &ConnView) -> io::Result<()> {
    let ConnView { protocol, state, client, vip, destination, expires_seconds, .. } = conn;
    let expire = format!("{:02}:{:02}", expires_seconds / 60, expires_seconds % 60);
    let (client, vip) = (client.to_string(), vip.to_string());
    writeln!(out, "{protocol:<3} {expire:<6} {state:<11} {client:<18} {vip:<18} {destination}")
}

/// The columns of `ipvsadm -Ln --stats`.
pub(super) fn stats(out: &mut impl Write, status: &Status, stats: &[StatsView], exact: bool) -> io::Result<()> {
    product(out, status)?;
    numbers_titles(out, ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"])?;
    for service in stats {
        let rows = service.backends.iter().map(|b| (b.address, &b.traffic));
        let cells = |t: &Traffic| [t.conns, t.in_packets, t.out_packets, t.in_bytes, t.out_bytes];
        let head = format!("{}  {}", service.protocol, service.listen);
        numbers(out, &head, cells(&service.total), rows.map(|(a, t)| (a, cells(t))), exact)?;
    }
    Ok(())
}

/// The columns of `ipvsadm -Ln --rate`.
pub(super) fn rates(out: &mut impl Write, status: &Status, rates: &[RateView], exact: bool) -> io::Result<()> {
    product(out, status)?;
    numbers_titles(out, ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"])?;
    for service in rates {
        let rows = service.backends.iter().map(|b| (b.address, &b.rate));
        let cells = |r: &Rate| [r.cps, r.in_pps, r.out_pps, r.in_bps, r.out_bps];
        let head = format!("{}  {}", service.protocol, service.listen);
        numbers(out, &head, cells(&service.total), rows.map(|(a, r)| (a, cells(r))), exact)?;
    }
    Ok(())
}

fn numbers_titles(out: &mut impl Write, titles: [&str; 5]) -> io::Result<()> {
    write!(out, "{:<33}", "Prot LocalAddress:Port")?;
    for title in titles {
        write!(out, " {title:>8}")?;
    }
    writeln!(out, "\n  -> RemoteAddress:Port")
}

fn numbers(
    out: &mut impl Write,
    head: &str,
    total: [u64; 5],
    backends: impl Iterator<Item = (SocketAddrV4, [u64; 5])>,
    exact: bool,
) -> io::Result<()> {
    let line = |out: &mut dyn Write, cells: [u64; 5]| {
        cells.iter().try_for_each(|cell| out.write_all(number(*cell, exact).as_bytes()))?;
        out.write_all(b"\n")
    };
    write!(out, "{head:<33}")?;
    line(out, total)?;
    for (address, cells) in backends {
        write!(out, "  -> {:<28}", address.to_string())?;
        line(out, cells)?;
    }
    Ok(())
}

/// A number in nine columns: whole below 100 million, then in K, M, G, T, as `ipvsadm` does.
fn number(n: u64, exact: bool) -> String {
    const UNITS: [(u64, u64, char); 4] = [
        (1_000_000_000, 1_000, 'K'),
        (100_000_000_000, 1_000_000, 'M'),
        (100_000_000_000_000, 1_000_000_000, 'G'),
        (u64::MAX, 1_000_000_000_000, 'T'),
    ];
    if exact {
        return format!("{:>9}", format!(" {n}"));
    }
    match UNITS.iter().find(|(below, ..)| n < *below) {
        Some((_, size, unit)) if n >= 100_000_000 => format!("{:>8}{unit}", n / size),
        _ => format!("{n:>9}"),
    }
}

#[cfg(test)]
#[path = "ipvs_tests.rs"]
mod tests;

//! What `ipvsadm` has no layout for: the agent's status, drop reasons, the outcome of a change.

use super::{
    check, sync,
    text::{self, Align::*, columns},
    vrrp,
};
use crate::control::protocol::{BackendAnswer, DropView, Status};
use lb_common::backend::BackendState;
use std::io::{self, Write};

/// The agent, its interfaces, its tables, its warnings.
pub(super) fn status(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Status { agent_version, abi, pid, uptime_seconds, version, .. } = status;
    let up = text::duration(*uptime_seconds);
    writeln!(out, "lb-agent {agent_version}, pid {pid}, up {up}, map layout {abi}, protocol {version}")?;
    writeln!(out, "config    {}", status.config_path.display())?;
    writeln!(out, "pins      {}", status.pin_dir.display())?;
    writeln!(out, "services  {}, backends {} of {} up", status.services, status.backends_up, status.backends)?;
    writeln!(out, "events    {} lost", status.events_lost)?;
    match &status.vrrp {
        Some(view) => {
            let sync =
                status.sync.as_ref().map_or("none: open sessions end with their director".to_owned(), sync::line);
            vrrp::status(out, view, &sync)?;
        }
        None => writeln!(out, "role      alone: there is no [vrrp] in the config")?,
    }

    let mut rows = vec![["INTERFACE", "INDEX", "MODE", "LINK", "PROGRAM", "ATTACHED", "WHY"].map(str::to_owned)];
    rows.extend(status.interfaces.iter().map(|i| {
        [
            i.name.clone(),
            i.ifindex.to_string(),
            i.mode.to_string(),
            i.link_id.to_string(),
            i.program_id.to_string(),
            i.attached_seconds.map_or("-".to_owned(), text::duration),
            i.why.clone(),
        ]
    }));
    writeln!(out)?;
    columns(out, [Left, Right, Left, Right, Right, Right, Left], &rows)?;

    check::checks(out, &status.checks)?;

    let mut rows = vec![["TABLE", "ENTRIES", "CAPACITY", "USED", "MEMORY"].map(str::to_owned)];
    rows.extend(status.tables.iter().map(|t| {
        [
            t.name.clone(),
            t.entries.to_string(),
            t.capacity.to_string(),
            text::percent(t.entries, t.capacity),
            text::memory(t.bytes),
        ]
    }));
    writeln!(out)?;
    columns(out, [Left, Right, Right, Right, Right], &rows)?;

    if !status.warnings.is_empty() {
        writeln!(out)?;
    }
    status.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

/// Drop reasons, those with a remedy worth reading first in sight: the ones that count.
pub(super) fn drops(out: &mut impl Write, drops: &[DropView], all: bool) -> io::Result<()> {
    let shown: Vec<_> = drops.iter().filter(|drop| all || drop.count > 0).collect();
    if shown.is_empty() {
        return writeln!(out, "no packet was dropped");
    }
    let mut rows = vec![["REASON", "PACKETS", "MEANING"].map(str::to_owned)];
    for drop in shown {
        rows.push([drop.reason.clone(), drop.count.to_string(), drop.explanation.clone()]);
        if drop.count > 0 {
            rows.push([String::new(), String::new(), format!("-> {}", drop.remedy)]);
        }
    }
    columns(out, [Left, Right, Left], &rows)
}

/// What a backend is after a change.
pub(super) fn backend(out: &mut impl Write, BackendAnswer { service, backend }: &BackendAnswer) -> io::Result<()> {
    let left = match (backend.state, backend.active, backend.left) {
        (BackendState::Up, ..) if backend.weight > 0 => String::new(),
        (_, _, Some(left)) if left.conns > 0 => format!(", {}", text::left(&left)),
        (_, 1, _) => ", 1 active conn left".to_owned(),
        (_, n, _) => format!(", {n} active conns left"),
    };
    writeln!(out, "{service} {}: {}, weight {}{left}", backend.address, backend.state, backend.weight)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

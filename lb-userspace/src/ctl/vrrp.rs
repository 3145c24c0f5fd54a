//! The election as people read it: role and cause first, then what each path shows.

use super::text::{self, Align::*, columns};
use crate::control::protocol::{FailoverAnswer, FailoverStep, TransportView, VrrpView};
use std::io::{self, Write};

/// The lines of `status` about the election, with the one about connection sync in its place.
pub(super) fn status(out: &mut impl Write, view: &VrrpView, sync: &str) -> io::Result<()> {
    let VrrpView { node, role, since_ms, cause, priority, version, advert_ms, .. } = view;
    let listening = if view.listening { ", listening before it speaks" } else { "" };
    writeln!(out, "role      {role} for {}: {cause}{listening}", text::duration(since_ms / 1000))?;
    let peers = view.peers.iter().map(|peer| format!("{} (priority {})", peer.name, peer.priority));
    let peers: Vec<String> = peers.collect();
    let peers = if peers.is_empty() { "nobody".to_owned() } else { peers.join(", ") };
    writeln!(out, "director  {node} (priority {priority}), beside {peers}; VRRP {version} every {advert_ms} ms")?;
    let arp = if view.answers_arp { "ARP answered here" } else { "ARP not answered here" };
    let vips = view.vips.iter().map(|vip| format!("{} on {} (VRID {})", vip.address, vip.interface, vip.vrid));
    writeln!(out, "VIPs      {}; {arp}", vips.collect::<Vec<_>>().join(", "))?;
    writeln!(out, "sync      {sync}")?;
    if let Some(heartbeat) = &view.heartbeat {
        writeln!(out, "heartbeat of the peer: {heartbeat}")?;
    }
    if let Some(reason) = &view.waits_for {
        writeln!(out, "waits     {reason}")?;
    }
    let timer = &view.timer;
    let word = |granted: bool| if granted { "yes" } else { "no" };
    writeln!(
        out,
        "timer     real-time {}, memory locked {}, late {} times, at most {}.{:03} ms",
        word(timer.realtime),
        word(timer.locked),
        timer.late,
        timer.worst_delay_us / 1000,
        timer.worst_delay_us % 1000
    )?;
    view.faults.iter().try_for_each(|fault| writeln!(out, "fault     {fault}"))?;
    view.alarms.iter().try_for_each(|alarm| writeln!(out, "alarm     {}: {}", alarm.name, alarm.text))?;

    let titles = ["PATH", "VRID", "LINK", "SEES", "PEER", "HEARD", "PRIORITY", "SENT", "RECEIVED", "IGNORED"];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(view.transports.iter().map(path));
    writeln!(out)?;
    columns(out, [Left, Right, Left, Left, Left, Right, Right, Right, Right, Left], &rows)
}

fn path(view: &TransportView) -> [String; 10] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let ignored = view.ignored.iter().map(|(reason, count)| format!("{reason} {count}"));
    let ignored: Vec<String> = ignored.collect();
    [
        view.interface.clone(),
        view.vrid.to_string(),
        if view.link_up { "up" } else { "down" }.to_owned(),
        or_dash(view.sees.clone()),
        or_dash(view.peer.map(|peer| peer.to_string())),
        or_dash(view.heard_ms.map(|ms| if ms < 10_000 { format!("{ms}ms ago") } else { text::duration(ms / 1000) })),
        or_dash(view.heard_priority.map(|priority| priority.to_string())),
        view.sent.to_string(),
        view.received.to_string(),
        or_dash((!ignored.is_empty()).then(|| ignored.join(", "))),
    ]
}

/// What a failover did.
pub(super) fn failover(out: &mut impl Write, answer: &FailoverAnswer) -> io::Result<()> {
    for FailoverStep { role, peer, gap_us, conns: [before, after] } in &answer.steps {
        let peer = peer.map_or("the peer".to_owned(), |peer| peer.to_string());
        let what = if role == "Active" {
            format!("this director has taken over from {peer}")
        } else {
            format!("{peer} has taken over")
        };
        let (whole, rest) = (gap_us / 1000, gap_us % 1000);
        writeln!(out, "{what}: {whole}.{rest:03} ms without an Active, {before} conns before, {after} after")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "vrrp_tests.rs"]
mod tests;

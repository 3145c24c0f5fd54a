//! From the running election to what operators see.

use crate::{
    config::{Config, format_duration},
    control::protocol::{AlarmView, PeerView, TimerView, TransportView, VipView, VrrpView},
    failover::Status,
    ha::{
        PeerRole,
        witness::{Sight, SyncPath},
    },
    vrrp::packet::DecodeError,
};

use super::{Pair, events::describe};

impl Pair {
    /// The election at a glance; `None`: the timer thread does not answer.
    pub(in crate::agent) fn view(&self, config: &Config) -> Option<VrrpView> {
        let vrrp = config.vrrp.as_ref()?;
        let Status { election, transports, gate_open, granted, late, worst_delay } = self.status()?;
        let names = self.failover.config();
        let describe = |cause| describe(cause, names, &self.details);
        let others = config.directors.iter().filter(|other| other.name != self.director.name);
        // Transports are in the order in which their VRIDs first stand in the config.
        let mut vrids: Vec<(&str, u8)> = Vec::new();
        for vip in &vrrp.vips {
            if !vrids.contains(&(vip.interface.as_str(), vip.vrid)) {
                vrids.push((&vip.interface, vip.vrid));
            }
        }
        let paths = election.transports.iter().zip(&transports).zip(&vrids);
        Some(VrrpView {
            node: self.director.name.clone(),
            role: election.role.name().to_owned(),
            since_ms: millis(election.age),
            cause: describe(election.cause),
            listening: election.listening,
            priority: self.director.priority,
            version: vrrp.version.number(),
            advert_ms: millis(vrrp.advert.duration()),
            peers: others.map(|other| PeerView { name: other.name.clone(), priority: other.priority }).collect(),
            vips: vrrp
                .vips
                .iter()
                .map(|vip| VipView {
                    address: format!("{}/{}", vip.address, vip.prefix),
                    interface: vip.interface.clone(),
                    vrid: vip.vrid,
                })
                .collect(),
            answers_arp: gate_open,
            transports: paths
                .map(|((seen, traffic), (interface, vrid))| TransportView {
                    interface: (*interface).to_owned(),
                    vrid: *vrid,
                    link_up: seen.link_up,
                    sees: seen.sight.map(|sight| sight_name(sight).to_owned()),
                    peer: seen.peer,
                    heard_ms: seen.heard.map(|(ago, _)| millis(ago)),
                    heard_priority: seen.heard.map(|(_, priority)| priority),
                    sent: traffic.sent,
                    send_errors: traffic.send_errors,
                    received: traffic.received.adverts,
                    other_checksum: traffic.received.other_checksum,
                    ignored: DecodeError::ALL
                        .iter()
                        .map(|reason| (reason.name().to_owned(), traffic.received.ignored(*reason)))
                        .filter(|(_, count)| *count > 0)
                        .collect(),
                })
                .collect(),
            heartbeat: election.heartbeat.map(|path| heartbeat_name(path).to_owned()),
            waits_for: election
                .gate
                .map(|gate| format!("{} (for {} at most)", gate.reason, format_duration(gate.left))),
            faults: election.faults.iter().map(|fault| describe(*fault)).collect(),
            alarms: election
                .alarms
                .iter()
                .map(|alarm| AlarmView { name: alarm.name().to_owned(), text: alarm.describe(names) })
                .collect(),
            timer: TimerView {
                realtime: granted.realtime.is_none(),
                locked: granted.locked.is_none(),
                late,
                worst_delay_us: u64::try_from(worst_delay.as_micros()).unwrap_or(u64::MAX),
            },
        })
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn sight_name(sight: Sight) -> &'static str {
    match sight {
        Sight::Heard => "heard",
        Sight::Outranked => "outranked",
        Sight::Resigned => "resigned",
        Sight::Silent => "silent",
    }
}

const fn heartbeat_name(path: SyncPath) -> &'static str {
    match path {
        SyncPath::Silent => "silent",
        SyncPath::Alive(PeerRole::Active) => "Active",
        SyncPath::Alive(PeerRole::Backup) => "Backup",
        SyncPath::Alive(PeerRole::Fault) => "Fault",
        SyncPath::Alive(PeerRole::Leaving) => "leaving",
    }
}

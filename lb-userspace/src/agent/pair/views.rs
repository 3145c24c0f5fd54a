//! From the running election to what operators see.

use crate::{
    config::{Config, Vip, Vrrp, format_duration},
    control::protocol::{AlarmView, PeerView, TimerView, TransportView, VipView, VrrpView},
    failover::{Status, TransportStatus},
    ha::{
        self, PeerRole,
        witness::{Sight, SyncPath},
    },
    vrrp::packet::DecodeError,
};

use super::{Pair, events::describe};

impl Pair {
    /// The election at a glance; `None`: there is none.
    pub(in crate::agent) fn view(&self, config: &Config) -> Option<VrrpView> {
        let vrrp = config.vrrp.as_ref()?;
        let mut view = self.fixed(config, vrrp);
        if let Some(status) = self.status() {
            self.fill(&mut view, vrrp, status);
        }
        Some(view)
    }

    /// What the config says, about a thread that does not answer.
    fn fixed(&self, config: &Config, vrrp: &Vrrp) -> VrrpView {
        let others = config.directors.iter().filter(|other| other.name != self.director.name);
        let vip = |vip: &Vip| VipView {
            address: format!("{}/{}", vip.address, vip.prefix),
            interface: vip.interface.clone(),
            vrid: vip.vrid,
        };
        VrrpView {
            node: self.director.name.clone(),
            role: "unknown".to_owned(),
            since_ms: 0,
            cause: "the timer thread does not answer".to_owned(),
            listening: false,
            priority: self.director.priority,
            version: vrrp.version.number(),
            advert_ms: millis(vrrp.advert.duration()),
            peers: others.map(|other| PeerView { name: other.name.clone(), priority: other.priority }).collect(),
            vips: vrrp.vips.iter().map(vip).collect(),
            answers_arp: false,
            transports: Vec::new(),
            heartbeat: None,
            waits_for: None,
            faults: Vec::new(),
            alarms: Vec::new(),
            timer: TimerView { realtime: false, locked: false, late: 0, worst_delay_us: 0 },
        }
    }

    fn fill(&self, view: &mut VrrpView, vrrp: &Vrrp, status: Status) {
        let Status { election, transports, gate_open, granted, late, worst_delay } = status;
        let names = self.failover.config();
        let describe = |cause| describe(cause, names, &self.details);
        // Transports are in the order in which their VRIDs first stand in the config.
        let mut vrids: Vec<(&str, u8)> = Vec::new();
        for vip in &vrrp.vips {
            if !vrids.contains(&(vip.interface.as_str(), vip.vrid)) {
                vrids.push((&vip.interface, vip.vrid));
            }
        }
        election.role.name().clone_into(&mut view.role);
        view.since_ms = millis(election.age);
        view.cause = describe(election.cause);
        view.listening = election.listening;
        view.answers_arp = gate_open;
        let paths = election.transports.iter().zip(&transports).zip(&vrids);
        view.transports = paths.map(|((seen, traffic), (name, vrid))| path(name, *vrid, seen, traffic)).collect();
        view.heartbeat = election.heartbeat.map(|path| heartbeat_name(path).to_owned());
        let waits = |gate: ha::GateStatus| format!("{} (for {} at most)", gate.reason, format_duration(gate.left));
        view.waits_for = election.gate.map(waits);
        view.faults = election.faults.iter().map(|fault| describe(*fault)).collect();
        let alarm = |alarm: &ha::Alarm| AlarmView { name: alarm.name().to_owned(), text: alarm.describe(names) };
        view.alarms = election.alarms.iter().map(alarm).collect();
        view.timer = TimerView {
            realtime: granted.realtime.is_none(),
            locked: granted.locked.is_none(),
            late,
            worst_delay_us: u64::try_from(worst_delay.as_micros()).unwrap_or(u64::MAX),
        };
    }
}

fn path(interface: &str, vrid: u8, seen: &ha::TransportStatus, traffic: &TransportStatus) -> TransportView {
    let received = &traffic.received;
    let ignored = DecodeError::ALL.iter().map(|reason| (reason.name().to_owned(), received.ignored(*reason)));
    TransportView {
        interface: interface.to_owned(),
        vrid,
        link_up: seen.link_up,
        sees: seen.sight.map(|sight| sight_name(sight).to_owned()),
        peer: seen.peer,
        heard_ms: seen.heard.map(|(ago, _)| millis(ago)),
        heard_priority: seen.heard.map(|(_, priority)| priority),
        sent: traffic.sent,
        send_errors: traffic.send_errors,
        received: received.adverts,
        other_checksum: received.other_checksum,
        ignored: ignored.filter(|(_, count)| *count > 0).collect(),
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

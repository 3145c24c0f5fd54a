//! What a world is made of: two hosts with their parameters, and how the network behaves when it is well.

use std::{net::Ipv4Addr, time::Duration};

use lb_userspace::{
    ha::{ArpSchedule, Config, HeartbeatTiming, Mode, Transport},
    vrrp::{
        Version,
        interval::Interval,
        machine::Preempt,
        packet::{Auth, ChecksumKind, VirtualRouter},
    },
};

/// A world to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Of all VRRP instances.
    pub version: Version,
    /// Of each host's adverts; equal in version 2.
    pub interval: [Interval; 2],
    /// Of each host.
    pub priority: [u8; 2],
    /// Of each host.
    pub preempt: [Preempt; 2],
    /// The address on the server side is ordered the other way round than on the client side.
    pub crossed: bool,
    /// Heartbeats are sent.
    pub heartbeat: bool,
    /// The second host is another implementation: a plain VRRP router on each interface, and the first one is strict.
    pub foreign: bool,
    /// Between this and that time a packet is on its way.
    pub delay: (Duration, Duration),
}

impl Setup {
    /// The classic pair: 101 and 100, no preemption.
    #[must_use]
    pub fn classic(version: Version, centis: u16) -> Self {
        let interval = Interval::new(version, centis).expect("an interval of this version");
        Self {
            version,
            interval: [interval; 2],
            priority: [101, 100],
            preempt: [Preempt::Never; 2],
            crossed: false,
            heartbeat: false,
            foreign: false,
            delay: (Duration::from_micros(50), Duration::from_micros(500)),
        }
    }

    /// The address of a host on a segment.
    #[must_use]
    pub fn address(&self, host: usize, segment: usize) -> Ipv4Addr {
        let last = host as u8 + 1;
        match segment {
            0 => Ipv4Addr::new(10, 80, 1, 240 + last),
            _ => Ipv4Addr::new(192, 168, 80, if self.crossed { 104 - last } else { 100 + last }),
        }
    }

    /// The virtual router of a segment, as a host is configured.
    #[must_use]
    pub fn router(&self, host: usize, segment: usize) -> VirtualRouter {
        VirtualRouter {
            version: self.version,
            vrid: [52, 51][segment],
            auth: if self.version == Version::V2 { Auth::Pass(*b"1111\0\0\0\0") } else { Auth::None },
            interval: self.interval[host],
            addresses: vec![[Ipv4Addr::new(10, 80, 1, 243), Ipv4Addr::new(192, 168, 80, 111)][segment]],
            // The two ways of the field, mixed: both must understand each other.
            checksum: match (self.version, host) {
                (Version::V3, 1) => ChecksumKind::PseudoHeader,
                _ => ChecksumKind::Message,
            },
        }
    }

    /// The parameters of a host's election.
    #[must_use]
    pub fn election(&self, host: usize) -> Config {
        let transport = |segment: usize| Transport {
            name: ["ext0", "int0"][segment].into(),
            version: self.version,
            address: self.address(host, segment),
            interval: self.interval[host],
        };
        let timing = HeartbeatTiming { interval: Duration::from_millis(50), lost_after: 3 };
        Config {
            mode: if self.foreign { Mode::Strict } else { Mode::Pair },
            priority: self.priority[host],
            preempt: self.preempt[host],
            transports: vec![transport(0), transport(1)],
            checks: vec!["packet path".into()],
            heartbeat: self.heartbeat.then_some(timing),
            arp: ArpSchedule::default(),
            hold_max: None,
        }
    }

    /// The longer of the two intervals.
    #[must_use]
    pub fn longest_interval(&self) -> Duration {
        self.interval[0].max(self.interval[1]).duration()
    }
}

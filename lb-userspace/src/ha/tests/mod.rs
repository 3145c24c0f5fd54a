//! The election, scene by scene. What only many random scenes can show is in the simulator.

mod preempt;
mod roles;
mod sleep;
mod takeover;
mod witnesses;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    Action::{AddVips, CloseArpGate, GratuitousArp, OpenArpGate, RemoveVips},
    *,
};
use crate::vrrp::{
    Version,
    interval::Interval,
    machine::{Heard, Preempt},
};

const EXT: usize = 0;
const INT: usize = 1;
const PEER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 80, 1, 242), Ipv4Addr::new(192, 168, 80, 102)];
const AT_ONCE: Preempt = Preempt::After(Duration::ZERO);

/// Priority 101, intervals of 100 ms: skew 60.5 ms, down 360.5 ms.
const DOWN: Duration = Duration::from_micros(360_547);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config() -> Config {
    let transport = |name: &str, address| Transport {
        name: name.into(),
        version: Version::V3,
        address,
        interval: Interval::new(Version::V3, 10).unwrap(),
    };
    Config {
        mode: Mode::Pair,
        priority: 101,
        preempt: Preempt::Never,
        transports: vec![
            transport("ext0", Ipv4Addr::new(10, 80, 1, 241)),
            transport("int0", Ipv4Addr::new(192, 168, 80, 101)),
        ],
        checks: vec!["packet path".into(), "script ok.sh".into()],
        heartbeat: None,
        arp: ArpSchedule::default(),
        hold_max: None,
    }
}

fn with_heartbeat() -> Config {
    Config { heartbeat: Some(HeartbeatTiming { interval: ms(50), lost_after: 3 }), ..config() }
}

struct Rig {
    election: Election,
    now: Instant,
}

impl Rig {
    fn new(config: Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let now = Instant::now();
        Self { election: Election::new(config).unwrap(), now }
    }

    /// Started, and with nothing left to do.
    fn backup(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.give(Input::Start);
        assert_eq!(rig.role(), Role::Backup);
        rig.actions();
        rig
    }

    fn active(config: Config) -> Self {
        let mut rig = Self::backup(config);
        rig.wait(ms(1000));
        assert_eq!(rig.role(), Role::Active);
        rig.actions();
        rig
    }

    fn give(&mut self, input: Input) {
        self.election.handle(input, self.now);
    }

    /// An advert of the peer, on both transports or one.
    fn hear(&mut self, priority: u8, transports: &[usize]) {
        for transport in transports {
            let interval = Interval::new(Version::V3, 10).unwrap();
            let heard = Heard { source: PEER[*transport], priority, interval };
            self.give(Input::Advert { transport: *transport, heard });
        }
    }

    fn beat(&mut self, role: PeerRole, priority: u8) {
        self.give(Input::Heartbeat(Beat { role, priority, address: PEER[EXT] }));
    }

    fn link(&mut self, transport: usize, up: bool) {
        self.give(Input::Link { transport, up });
    }

    /// Lets the time pass, tick by tick as they are due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.election.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.election.handle_timeout(self.now);
            assert!(self.election.poll_timeout().is_none_or(|next| next > self.now), "a timeout that stays due");
        }
        self.now = end;
    }

    /// Lets the time pass while nothing runs.
    fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// The peer is Active for some time, and is heard on these transports.
    fn peer_active(&mut self, priority: u8, transports: &[usize], time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.hear(priority, transports);
            self.wait(ms(100));
        }
        self.hear(priority, transports);
    }

    fn role(&self) -> Role {
        self.election.role()
    }

    fn cause(&self) -> Cause {
        self.election.status(self.now).cause
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.election.status(self.now).alarms
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.election.poll_action()).collect()
    }
}

fn adverts(priority: u8) -> [Action; 2] {
    [EXT, INT].map(|transport| Action::SendAdvert { transport, priority })
}

fn notify(role: Role, cause: Cause) -> Action {
    Action::Notify { role, cause }
}

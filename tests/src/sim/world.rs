//! The world: the clock, the queue of what happens next, and the laws.

use std::time::{Duration, Instant};

use lb_userspace::ha::{Input, Role};

use super::{
    Chance, NEIGHBOURS, Net, SYNC, Setup,
    host::{Arrival, Effect, Host, Kind},
    queue::Queue,
};

const BEAT: Duration = Duration::from_millis(50);
/// A timer fires so late at most, when nothing is wrong.
const SLACK: Duration = Duration::from_micros(500);

/// How a host sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// The process stands still; the kernel keeps what arrives.
    Process,
    /// The machine stands still; what arrives is lost, and the clock jumps.
    Machine,
}

/// What can be done to a host.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It stands still for some time.
    Sleep(Sleep, Duration),
    /// Its process is killed, and starts again after some time. What is configured stays.
    Kill(Duration),
    /// It loses power, and starts again after some time.
    Reboot(Duration),
    /// It stops in good order, and starts again after some time.
    Stop(Duration),
    /// An input, such as a link that goes down.
    Input(Input),
}

#[derive(Debug)]
enum Event {
    Arrive(usize, Arrival),
    Learn(usize, usize),
    Tick(usize, u64),
    Beat(usize, u64),
    Wake(usize, u64),
    Start(usize, u64),
}

/// A world.
#[derive(Debug)]
pub struct World {
    /// What it is made of.
    pub setup: Setup,
    /// The segments. Say [`World::whole`] when all is well again.
    pub net: Net,
    /// The two hosts.
    pub hosts: [Host; 2],
    /// Whom the neighbours on each segment believe to hold the VIP.
    pub believed: [Option<usize>; 2],
    /// The first law that was broken.
    pub violation: Option<String>,
    /// The longest time for which two hosts held the same VIP.
    pub longest_dual: Duration,
    /// Told what happens, if somebody wants to know.
    pub trace: Option<Vec<String>>,
    start: Instant,
    now: Instant,
    queue: Queue<Event>,
    chance: Chance,
    whole_since: Option<Instant>,
    dual_since: Option<Instant>,
}

impl World {
    /// A world in which nothing runs yet.
    #[must_use]
    pub fn new(setup: Setup, chance: Chance) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times: an Instant has no other")]
        let start = Instant::now();
        Self {
            net: Net::new(setup.delay),
            hosts: [Host::new(&setup, 0), Host::new(&setup, 1)],
            setup,
            believed: [None; 2],
            violation: None,
            longest_dual: Duration::ZERO,
            trace: None,
            start,
            now: start,
            queue: Queue::new(),
            chance,
            whole_since: None,
            dual_since: None,
        }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Starts a host after some time.
    pub fn start(&mut self, host: usize, after: Duration) {
        self.hosts[host].generation += 1;
        let generation = self.hosts[host].generation;
        self.queue.push(self.now + after, Event::Start(host, generation));
    }

    /// From now on nothing is wrong any more: two Actives must agree within their detection time.
    pub fn whole(&mut self) {
        self.whole_since = Some(self.now);
    }

    /// From now on something may be wrong.
    pub const fn broken(&mut self) {
        self.whole_since = None;
    }

    /// Who is Active.
    #[must_use]
    pub fn actives(&self) -> Vec<usize> {
        (0..2).filter(|host| self.hosts[*host].up && self.hosts[*host].role() == Role::Active).collect()
    }

    /// How often roles changed.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.hosts.iter().map(|host| host.changes).sum()
    }

    /// Does something to a host. One that does not run feels nothing.
    pub fn inflict(&mut self, host: usize, fault: &Fault) {
        self.say(|| format!("host {host}: {fault:?}"));
        if !self.hosts[host].up || self.hosts[host].asleep.is_some() {
            return;
        }
        match fault {
            Fault::Sleep(kind, time) => {
                let until = self.now + *time;
                self.hosts[host].asleep = Some(until);
                self.hosts[host].deaf = *kind == Sleep::Machine;
                let generation = self.hosts[host].generation;
                self.queue.push(until, Event::Wake(host, generation));
            }
            Fault::Kill(time) => {
                self.hosts[host].up = false;
                self.start(host, *time);
            }
            Fault::Reboot(time) => {
                self.hosts[host].up = false;
                self.hosts[host].gate = [false; 2];
                self.hosts[host].vips = [false; 2];
                self.start(host, *time);
            }
            Fault::Stop(time) => {
                self.hosts[host].input(Input::Stop, self.now);
                self.perform(host);
                self.hosts[host].up = false;
                self.start(host, *time);
            }
            Fault::Input(input) => {
                if let Input::Link { transport, up } = input {
                    self.hosts[host].links[*transport] = *up;
                }
                self.hosts[host].input(input.clone(), self.now);
                self.step(host);
            }
        }
        self.judge();
    }

    /// Lets the time pass. Stops at the first violation.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.violation.is_none()
            && let Some((at, event)) = self.queue.pop_until(end)
        {
            self.now = at;
            self.happen(event);
            self.judge();
        }
        self.now = end;
    }

    /// Lets the time pass until something is so, or for `at_most`; returns how long that took.
    pub fn run_until(&mut self, at_most: Duration, is_so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.violation.is_none() && !is_so(self) {
            let next = self.queue.next_at()?;
            if next > begin + at_most {
                return None;
            }
            self.run(next - self.now);
        }
        Some(self.now - begin)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(host, generation) if self.hosts[host].generation == generation => {
                self.say(|| format!("host {host} starts"));
                self.hosts[host].start(&self.setup, host, self.now);
                if self.setup.heartbeat {
                    self.queue.push(self.now, Event::Beat(host, generation));
                }
                self.step(host);
            }
            Event::Wake(host, generation) if self.hosts[host].generation == generation => self.wake(host),
            Event::Tick(host, tick) if self.hosts[host].is_due(tick) => self.step(host),
            Event::Beat(host, generation) if self.hosts[host].generation == generation => {
                if self.runs(host, generation) {
                    self.send_beat(host);
                }
                self.queue.push(self.now + BEAT, Event::Beat(host, generation));
            }
            Event::Arrive(host, arrival) => {
                let target = &mut self.hosts[host];
                if matches!(&arrival, Arrival::Packet(segment, _) if !target.links[*segment]) {
                    return;
                }
                if target.asleep.is_some() && !target.deaf && target.backlog.len() < 200 {
                    target.backlog.push(arrival);
                } else if target.up && target.asleep.is_none() {
                    target.arrive(arrival, self.now);
                    self.step(host);
                }
            }
            Event::Learn(segment, host) => self.believed[segment] = Some(host),
            _ => {}
        }
    }

    fn runs(&self, host: usize, generation: u64) -> bool {
        let host = &self.hosts[host];
        host.up && host.asleep.is_none() && host.generation == generation
    }

    fn wake(&mut self, host: usize) {
        let now = self.now;
        self.say(|| format!("host {host} wakes"));
        let sleeper = &mut self.hosts[host];
        sleeper.asleep = None;
        // Three intervals after its last advert it may have a successor, and then it must listen for the skew time at
        // least. (A timer may have been late by the slack before.)
        let own = self.setup.interval[host];
        let silent = sleeper.spoke.map(|spoke| now - spoke).unwrap_or_default();
        let listens = matches!(&sleeper.kind, Kind::Director(election) if election.status(now).listening);
        if sleeper.role() == Role::Active && !listens && silent > own.duration() * 3 + SLACK {
            sleeper.woke = Some((now, own.skew(self.setup.version, self.setup.priority[host])));
        }
        // What the kernel has kept comes before the tick.
        for arrival in std::mem::take(&mut sleeper.backlog) {
            sleeper.arrive(arrival, now);
        }
        self.step(host);
    }

    /// Runs what is due on a host, and carries out what follows.
    fn step(&mut self, host: usize) {
        self.hosts[host].handle_timeout(self.now);
        self.perform(host);
        let target = &mut self.hosts[host];
        target.tick += 1;
        if let Some(due) = target.poll_timeout() {
            if due <= self.now {
                self.violation.get_or_insert(format!("host {host} has a timeout that stays due"));
            }
            let tick = target.tick;
            let at = due.max(self.now) + self.chance.between(Duration::ZERO, SLACK);
            self.queue.push(at, Event::Tick(host, tick));
        }
    }

    fn perform(&mut self, host: usize) {
        let before = self.hosts[host].changes;
        let effects = match self.hosts[host].perform(self.now) {
            Ok(effects) => effects,
            Err(law) => {
                self.violation.get_or_insert(format!("host {host}: {law}"));
                return;
            }
        };
        if self.hosts[host].changes != before {
            let (role, cause) = (self.hosts[host].role(), self.hosts[host].cause);
            self.say(|| format!("host {host} is {role:?}: {cause:?}"));
        }
        let peer = 1 - host;
        for effect in effects {
            match effect {
                Effect::Packet(segment, bytes) if self.hosts[host].links[segment] => {
                    self.say(|| format!("host {host} advertises {} on {segment}", bytes[22]));
                    if let Some(at) = self.net.carry(segment, host, peer, self.now, &mut self.chance) {
                        self.queue.push(at, Event::Arrive(peer, Arrival::Packet(segment, bytes)));
                    }
                }
                Effect::Announce(segment) if self.hosts[host].links[segment] => {
                    if let Some(at) = self.net.carry(segment, host, NEIGHBOURS, self.now, &mut self.chance) {
                        self.queue.push(at, Event::Learn(segment, host));
                    }
                }
                Effect::News if self.setup.heartbeat => self.send_beat(host),
                _ => {}
            }
        }
    }

    fn send_beat(&mut self, host: usize) {
        let peer = 1 - host;
        if let Some(beat) = self.hosts[host].beat()
            && let Some(at) = self.net.carry(SYNC, host, peer, self.now, &mut self.chance)
        {
            self.queue.push(at, Event::Arrive(peer, Arrival::Beat(beat)));
        }
    }

    /// How long two Actives that hear each other may both last: until the next advert of the one that wins.
    fn dual_limit(&self) -> Duration {
        self.setup.longest_interval() + self.net.longest_delay() * 2 + SLACK * 4
    }

    /// Checks the laws.
    fn judge(&mut self) {
        let dual = (0..2).any(|segment| self.hosts.iter().all(|host| host.serves(segment)));
        self.dual_since = dual.then(|| self.dual_since.unwrap_or(self.now));
        if let Some(since) = self.dual_since {
            self.longest_dual = self.longest_dual.max(self.now - since);
            if let Some(whole) = self.whole_since
                && self.now - since.max(whole) > self.dual_limit()
            {
                let time = self.now - since.max(whole);
                self.violation.get_or_insert(format!("two Actives for {time:?} although all is well"));
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if matches!(host.kind, Kind::Director(_)) && (host.vips[0] != host.vips[1] || host.gate[0] != host.gate[1])
            {
                self.violation.get_or_insert(format!("the VIPs of host {index} are apart"));
            }
        }
    }

    /// Notes something for people.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let at = self.now - self.start;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {}", at.as_secs_f64(), what()));
        }
    }
}

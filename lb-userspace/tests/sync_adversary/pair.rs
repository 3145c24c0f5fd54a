//! Two cores on a line that a test holds in its hands.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use lb_common::tcp::{
    State as ConnState,
    flag::{ACK, SYN},
};
use lb_userspace::sync::{
    Action, Config, Conn, Counters, Half, Input, Key, Notice, Psk, Refused, Replication, Services, State, Tenths,
    Timeouts, Write,
};

/// A director: a core, and the table as it wrote it.
pub(crate) struct Director {
    /// The core.
    pub(crate) core: Replication,
    /// The table, of conns of the peer and its own.
    pub(crate) table: BTreeMap<Key, (Conn, Instant)>,
    /// What the peer's notice said, every time that it changed.
    pub(crate) notices: Vec<Option<Notice>>,
}

/// An address of the service or of a backend.
pub(crate) fn address(a: u8, b: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 80, a, b), port)
}

/// The service.
pub(crate) fn vip() -> SocketAddrV4 {
    address(1, 243, 3306)
}

/// A conn of a client's port.
pub(crate) fn conn(port: u16) -> Conn {
    let half = Half { seen: SYN | ACK, ack: 1, seq: 1, idle: Tenths(0) };
    Conn {
        key: Key { client: address(1, 1, port), vip: vip() },
        backend: address(2, 167, 3306),
        client_port: port,
        forward: half,
        reverse: half,
        age: Tenths(0),
    }
}

/// A config of a node that nobody else has.
pub(crate) fn config(node: u16) -> Config {
    Config {
        node,
        epoch: [node as u8; 16],
        seed: [node as u8; 32],
        keys: vec![Psk::new([7; 32])],
        insecure: false,
        fingerprint: 1,
        timeouts: Timeouts::new(|_| Duration::from_secs(60)),
        capacity: 1000,
        ends: 1000,
        datagram: 1472,
        heartbeat: Duration::from_millis(50),
        refresh: Duration::from_secs(10),
    }
}

/// A conn of which nothing was seen for some time more.
fn later(conn: &Conn, time: Duration) -> Conn {
    let more = Tenths::from_duration(time);
    let half = |half: Half| Half { idle: half.idle.plus(more), ..half };
    Conn { forward: half(conn.forward), reverse: half(conn.reverse), age: conn.age.plus(more), ..*conn }
}

fn is_alive(conn: &Conn) -> bool {
    !matches!(conn.state(), ConnState::TimeWait | ConnState::Close)
}

impl Director {
    /// A director that has looked through its empty table.
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let mut services = Services::default();
        services.add(vip(), address(2, 167, 3306));
        services.add(vip(), address(2, 136, 3306));
        let core = Replication::new(config, now).expect("a config that makes sense");
        let mut director = Self { core, table: BTreeMap::new(), notices: Vec::new() };
        director.core.handle(Input::Services(services), now);
        director.run(now);
        director
    }

    /// Lets the core do what is due; answers the datagrams that it sends.
    pub(crate) fn run(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.core.handle_timeout(now);
        let mut sent = Vec::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send(bytes) => sent.push(bytes.to_vec()),
                Action::Write(Write::Create { conn, .. } | Write::Update(conn)) => {
                    self.table.insert(conn.key, (conn, now));
                }
                Action::Write(Write::Remove { key, idle }) => {
                    match self.table.get(&key).map(|(conn, at)| later(conn, now - *at)) {
                        Some(conn) if is_alive(&conn) && conn.idle().plus(Tenths::ROUNDING) < idle => {
                            self.core.handle(Input::Found(conn), now);
                        }
                        _ => drop(self.table.remove(&key)),
                    }
                }
                // A look that shows nothing: every conn gets one of its own.
                Action::Scan => self.core.handle(Input::Scanned, now),
                Action::Look(key) => match self.table.get(&key) {
                    Some((conn, at)) => self.core.handle(Input::Found(later(conn, now - *at)), now),
                    None => self.core.handle(Input::NotFound(key), now),
                },
                Action::Retire { key, .. } => {
                    self.table.remove(&key);
                    self.core.handle(Input::NotFound(key), now);
                }
                Action::Notice(notice) => self.notices.push(notice),
                Action::Beat(_) | Action::Drained(_) | Action::Event(_) => {}
            }
        }
        sent
    }

    /// A datagram arrives.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.core.handle(Input::Datagram(&mut bytes.to_vec()), now);
    }

    /// A conn is established here.
    pub(crate) fn open(&mut self, conn: Conn, now: Instant) {
        self.table.insert(conn.key, (conn, now));
        self.core.handle(Input::Established(conn), now);
    }

    /// A conn's key is taken by a handshake that does not complete.
    pub(crate) fn lose(&mut self, conn: &Conn, now: Instant) {
        self.table.remove(&conn.key);
        self.core.handle(Input::Replaced(conn.key), now);
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> Counters {
        self.core.status().counters
    }

    /// Frames that did not count for a cause.
    pub(crate) fn refused(&self, cause: Refused) -> u64 {
        self.counters().refused(cause)
    }

    /// What nobody may change without the key: the conns as the core and the table have them.
    pub(crate) fn contents(&self) -> (Vec<Key>, Vec<Key>) {
        let mut known: Vec<Key> = self.core.conns().map(|conn| conn.key).collect();
        known.sort();
        (known, self.table.keys().copied().collect())
    }
}

/// Two directors.
pub(crate) struct Pair {
    /// The directors.
    pub(crate) directors: [Director; 2],
    /// Every datagram so far, with who sent it.
    pub(crate) tape: Vec<(usize, Vec<u8>)>,
    /// The time.
    pub(crate) now: Instant,
}

impl Pair {
    /// Two directors that have not met.
    pub(crate) fn new(configs: [Config; 2]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times: an Instant has no other")]
        let now = Instant::now() + Duration::from_secs(100_000);
        Self { directors: configs.map(|config| Director::new(config, now)), tape: Vec::new(), now }
    }

    /// Lets the time pass, a millisecond at a time; what `passes` lets through arrives.
    pub(crate) fn run_with(&mut self, time: Duration, mut passes: impl FnMut(usize, &[u8]) -> bool) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(1);
            for from in 0..2 {
                for bytes in self.directors[from].run(self.now) {
                    if passes(from, &bytes) {
                        self.directors[1 - from].receive(&bytes, self.now);
                    }
                    self.tape.push((from, bytes));
                }
            }
        }
    }

    /// Lets the time pass on a good line.
    pub(crate) fn run(&mut self, time: Duration) {
        self.run_with(time, |_, _| true);
    }

    /// Two directors that are equal and have ten conns.
    pub(crate) fn equal() -> Self {
        let mut pair = Self::new([config(1), config(2)]);
        pair.run(Duration::from_millis(500));
        for port in 0..10 {
            let now = pair.now;
            pair.directors[0].open(conn(1000 + port), now);
        }
        pair.run(Duration::from_millis(500));
        for director in &pair.directors {
            assert_eq!(director.core.state(), State::Equal);
            assert_eq!(director.contents().0.len(), 10);
            assert_eq!(director.contents().1.len(), 10);
        }
        pair
    }

    /// The datagrams of a director so far.
    pub(crate) fn sent_by(&self, from: usize) -> Vec<Vec<u8>> {
        self.tape.iter().filter(|(sender, _)| *sender == from).map(|(_, bytes)| bytes.clone()).collect()
    }
}

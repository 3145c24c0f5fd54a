//! Random packets of a handful of conns through both programs and through a model of the design, compared step by step:
//! verdict, every byte, both conn tables, counters, traffic, load, events.
//!
//! The model is written from the design: the states of IPVS, the rules of the handshake and of resets. It knows nothing of
//! how the programs work. A failing seed prints the packets that led there.

use lb_common::{
    counter::Counter::{self, *},
    event::EventKind,
    service::Scheduler,
    tcp::State,
};
use lb_tests::{
    chance::Chance,
    packet::{Packet, Tcp, flag},
    prog::{BACKEND_ISN, CLIENT_ISN, Case, Flow, Port, Side, Site, case, network::*, run},
};

const SEEDS: u64 = 150;
const STEPS: usize = 40;

const SERVICES: [(&str, [&str; 3]); 2] = [
    ("10.80.1.243:3306", ["192.168.80.167:3306", "192.168.80.136:3306", "192.168.80.167:3306"]),
    ("10.80.1.244:3306", ["192.168.80.137:3306", "10.80.1.7:3306", "192.168.80.136:3307"]),
];
const CLIENTS: [&str; 4] = ["10.80.1.1:40000", "10.80.1.1:40001", "10.80.1.2:40000", "198.51.100.5:40000"];

/// What the director should know.
struct Model {
    site: Site,
    conns: Vec<Flow>,
    cursors: [usize; 2],
    /// Initial sequence numbers handed out.
    isn: u32,
}

/// What becomes of a packet.
enum Fate {
    Sent(Flow),
    Dropped(Counter),
    Passed,
}

/// What happens beside that.
#[derive(Default)]
struct Effects {
    counts: Vec<Counter>,
    events: Vec<(EventKind, Flow)>,
    refusal: bool,
}

impl Model {
    fn new() -> Self {
        let site = SERVICES.iter().fold(Site::new(), |site, (listen, ring)| site.service(listen, Scheduler::Rr, ring));
        Self { site, conns: Vec::new(), cursors: [0; 2], isn: CLIENT_ISN }
    }

    /// A conn that a client could open next; its backend is where the ring points.
    fn candidate(&self, client: &str, service: usize) -> Flow {
        let (listen, ring) = SERVICES[service];
        Flow::opened(&self.site, client, listen, ring[self.cursors[service] % ring.len()])
    }

    fn find(&self, like: &Flow) -> Option<usize> {
        self.conns.iter().position(|conn| (conn.client, conn.service) == (like.client, like.service))
    }

    /// A packet from the client of `like`.
    fn client_packet(&mut self, like: &Flow, packet: &Packet<Tcp>, effects: &mut Effects) -> Fate {
        let flags = packet.flag_bits();
        let bare_syn = flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
        let Some(index) = self.find(like) else {
            return if bare_syn { self.open(like, packet, effects) } else { Self::miss(effects) };
        };
        let conn = self.conns[index].clone();
        if conn.half_open {
            return self.handshake(index, &conn, packet, effects);
        }
        if bare_syn && matches!(conn.state(), State::FinWait | State::TimeWait | State::Close) {
            effects.counts.push(Reused);
            effects.events.push((EventKind::Replaced, conn));
            self.conns.remove(index);
            return self.open(like, packet, effects);
        }
        self.conns[index] = noted(&conn, packet, true, effects);
        Fate::Sent(conn)
    }

    /// A client's packet while its conn is half open.
    fn handshake(&mut self, index: usize, conn: &Flow, packet: &Packet<Tcp>, effects: &mut Effects) -> Fate {
        let flags = packet.flag_bits();
        let refused = conn.reverse.seen & flag::RST != 0;
        if flags & flag::RST != 0 {
            self.conns[index] = conn.after(packet);
            return Fate::Sent(conn.clone());
        }
        if flags & (flag::SYN | flag::ACK) == flag::SYN {
            if packet.seq_end() == conn.forward.seq && !refused {
                effects.counts.push(SynAgain);
                self.conns[index] = conn.after(packet);
                return Fate::Sent(conn.clone());
            }
            self.conns.remove(index);
            return self.open(conn, packet, effects);
        }
        let answered = conn.reverse.seen & flag::SYN != 0;
        let exact = packet.acknowledges() == Some(conn.reverse.seq) && flags & flag::SYN == 0;
        if !answered || !exact {
            return Fate::Dropped(BadHandshake);
        }
        effects.counts.push(Established);
        let done = conn.after(packet);
        let mut told = done.clone();
        told.forward.seen &= !flag::FIN;
        effects.events.push((EventKind::Established, told.clone()));
        if done.state() != told.state() {
            effects.events.push((EventKind::Closing, done.clone()));
        }
        self.conns[index] = done;
        Fate::Sent(conn.clone())
    }

    /// A SYN opens a conn where the ring points.
    fn open(&mut self, like: &Flow, syn: &Packet<Tcp>, effects: &mut Effects) -> Fate {
        let service = usize::from(like.service_id);
        let fresh = self.candidate(&like.client.to_string(), service);
        self.cursors[service] += 1;
        effects.counts.push(Opened);
        let nothing = Side { seen: 0, seq: 0, ack: 0, bytes: 0, hop: false };
        self.conns.push(fresh.opened_by(syn));
        Fate::Sent(Flow { forward: nothing, reverse: nothing, ..fresh })
    }

    fn miss(effects: &mut Effects) -> Fate {
        effects.refusal = true;
        Fate::Dropped(NoConn)
    }

    /// A packet from the backend of `like`.
    fn backend_packet(&mut self, like: &Flow, packet: &Packet<Tcp>, effects: &mut Effects) -> Fate {
        let found = self.conns.iter().position(|conn| conn.keys()[1] == like.keys()[1]);
        let Some(index) = found else { return Fate::Passed };
        let conn = self.conns[index].clone();
        self.conns[index] = if conn.half_open {
            let refuses = packet.flag_bits() & flag::RST;
            conn.after(packet).backend_sent(refuses)
        } else {
            noted(&conn, packet, false, effects)
        };
        Fate::Sent(conn)
    }
}

/// An established conn after a packet: flags, a RST's credibility, the event of a new state.
fn noted(conn: &Flow, packet: &Packet<Tcp>, forward: bool, effects: &mut Effects) -> Flow {
    let (own, peer) = if forward { (conn.forward, conn.reverse) } else { (conn.reverse, conn.forward) };
    let mut after = conn.after(packet);
    if packet.flag_bits() & flag::RST != 0 {
        if packet.seq_number() != own.seq && packet.seq_number() != peer.ack {
            effects.counts.push(BlindRst);
            return conn.after_stale(packet);
        }
        // IPVS: what a backend resets after both FINs is over anyway.
        let ignored = !forward && own.seen & peer.seen & flag::FIN != 0;
        after = match (ignored, forward) {
            (true, _) => after,
            (false, true) => after.client_sent(flag::RST),
            (false, false) => after.backend_sent(flag::RST),
        };
    }
    if after.state() != conn.state() {
        let closed = matches!(after.state(), State::TimeWait | State::Close);
        effects.events.push((if closed { EventKind::Closed } else { EventKind::Closing }, after.clone()));
    }
    after
}

/// A packet that this side of the conn could send now, or that somebody could send in its name.
fn invent(random: &mut Chance, model: &mut Model, conn: &Flow, exists: bool, forward: bool) -> Packet<Tcp> {
    let (own, peer) = if forward { (conn.forward, conn.reverse) } else { (conn.reverse, conn.forward) };
    let bare = if forward { conn.client() } else { conn.backend() };
    let len = random.below(100) as usize;
    if !exists {
        return match random.below(6) {
            0 => bare.ack(1).payload(len),
            1 => bare.rst(),
            2 => bare.fin().ack(1),
            3 => bare.syn().ack(1),
            _ => {
                model.isn = model.isn.wrapping_add(0x0123_4567);
                bare.syn().seq(model.isn)
            }
        };
    }
    // FIN and RST say again what their side has acknowledged already.
    let own_ack = if own.ack == 0 { peer.seq } else { own.ack };
    match (conn.half_open, forward, random.below(12)) {
        (true, true, 0 | 1) => bare.syn().seq(own.seq.wrapping_sub(1)),
        (true, true, 2) => {
            model.isn = model.isn.wrapping_add(0x0123_4567);
            bare.syn().seq(model.isn)
        }
        (true, true, 3) => bare.ack(peer.seq.wrapping_add(1 + random.below(9) as u32)),
        (true, true, 4) => bare.rst(),
        (true, true, 5) => bare.fin(),
        (true, true, 6) => bare.syn().ack(peer.seq),
        (true, true, 7) => bare.ack(peer.seq).fin(),
        (true, true, 8) => bare.ack(peer.seq).payload(len),
        (true, true, _) => bare.ack(peer.seq),
        // A backend that has refused is silent.
        (true, false, _) if own.seen & flag::RST != 0 => bare.seq(0).rst().ack(peer.seq),
        (true, false, 0) => bare.seq(0).rst().ack(peer.seq),
        (true, false, 1) => bare.syn().seq(BACKEND_ISN + random.below(1000) as u32).ack(peer.seq),
        (true, false, _) => bare.syn().seq(BACKEND_ISN).ack(peer.seq),
        (false, _, 0) => bare.ack(own_ack).fin().payload(len),
        (false, _, 1) => bare.ack(own_ack).fin().seq(own.seq.wrapping_sub(1)),
        (false, _, 2) => bare.ack(own_ack).rst(),
        (false, _, 3) => bare.rst().seq(peer.ack),
        (false, _, 4) => {
            let off = random.choose(&[5, 1000, 0x2000_0000, 0x6000_0000, u32::MAX - 5, u32::MAX - 0x3000_0000]);
            bare.rst().seq(own.seq.wrapping_add(off))
        }
        (false, true, 5) => bare.syn().seq(CLIENT_ISN),
        (false, true, 6) => {
            model.isn = model.isn.wrapping_add(0x0123_4567);
            // An attempt that is new to a closed conn; an old duplicate to one in use.
            let reusable = matches!(conn.state(), State::FinWait | State::TimeWait | State::Close);
            bare.syn().seq(if reusable { model.isn } else { own.seq.wrapping_sub(500) })
        }
        (false, false, 5) => bare.syn().seq(own.seq.wrapping_sub(1)).ack(own_ack),
        (false, _, 7) => bare.ack(peer.seq).seq(own.seq.wrapping_sub(60)).payload(50),
        _ => bare.ack(peer.seq).payload(len),
    }
}

/// One step: a packet, what the model makes of it, and the row that the programs must fulfil.
fn step(random: &mut Chance, model: &mut Model, row: Case) -> Case {
    let service = random.below(2) as usize;
    let client = random.choose(&CLIENTS);
    let candidate = model.candidate(client, service);
    let known = model.find(&candidate).map(|index| model.conns[index].clone());
    // Most packets are about a conn that there is: half of a conn's life is a dozen packets long.
    let known = match model.conns.len() as u64 {
        0 => known,
        _ if random.below(4) == 0 => known,
        n => Some(model.conns[random.below(n) as usize].clone()),
    };
    let exists = known.is_some();
    let conn = known.unwrap_or(candidate);
    let forward = random.below(10) < 6;
    let mut packet = invent(random, model, &conn, exists, forward);
    let port =
        conn.egress(if forward { lb_common::conn::Direction::Reverse } else { lb_common::conn::Direction::Forward });
    let of_service = forward || exists;
    let mut deferred = false;
    match random.below(24) {
        // What must not be translated leaves no trace.
        0 if of_service => {
            let packet = packet.ttl(1);
            let row = row.frame(port, packet.build());
            return if forward { row.answered(&conn.error_about(&packet, (11, 0), 0), Ttl) } else { row };
        }
        1 if of_service => return row.frame(port, packet.fragment(0, true).build()).dropped(Fragment),
        2 => (packet, deferred) = (packet.partial_checksum(), of_service),
        3 => (packet, deferred) = (packet.vlan(7), of_service),
        4 => packet = packet.ip_options(&[1; 4]),
        _ => {}
    }
    let mut effects = Effects::default();
    let fate = if forward {
        model.client_packet(&conn, &packet, &mut effects)
    } else {
        model.backend_packet(&conn, &packet, &mut effects)
    };
    let mut row = match fate {
        Fate::Sent(by) => {
            let side = if forward { by.forward } else { by.reverse };
            if !side.hop {
                effects.counts.push(HopLookup);
            }
            row.translates(&by, &packet)
        }
        Fate::Dropped(counter) => row.frame(port, packet.build()).dropped(counter),
        Fate::Passed => {
            deferred = false;
            row.frame(port, packet.build())
        }
    };
    row = row.counts(&effects.counts);
    for (kind, flow) in &effects.events {
        row = row.tells(*kind, flow);
    }
    if effects.refusal {
        row = row.tells_refusal(EventKind::Miss, &conn, NoConn);
    }
    if deferred {
        row = row.deferred_by_xdp();
    }
    row.leaves(&model.conns.iter().collect::<Vec<_>>())
}

#[test]
fn the_programs_agree_with_the_model() {
    let mut rows = Vec::new();
    let mut reached = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let (mut random, mut model) = (Chance::new(seed), Model::new());
        let mut row = case(format!("seed {seed}")).at(&model.site);
        for _ in 0..STEPS {
            row = step(&mut random, &mut model, row);
            reached.extend(model.conns.iter().filter(|conn| !conn.half_open).map(Flow::state));
        }
        rows.push(row);
    }
    // A generator that never leaves the handshake would prove nothing.
    assert_eq!(reached.len(), 5, "states reached: {reached:?}");
    run(&rows);
}

#[test]
fn the_ports_of_the_test_network_are_where_the_model_thinks() {
    let model = Model::new();
    let inner = model.candidate(CLIENTS[0], 0);
    assert_eq!(inner.egress(lb_common::conn::Direction::Forward), Port::Int);
    assert_eq!(inner.egress(lb_common::conn::Direction::Reverse), Port::Ext);
    assert_eq!(mac_of(CLIENT_FAR), mac_of(CLIENT2));
}

//! Conns of the other director, as `lb_replica` writes them: two directors' maps, packets of one conn at both.

use lb_common::{
    MapType as _,
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey, Origin, Proto},
    replica::{BATCH, Op, Outcome, Request},
    service::Scheduler,
    tcp::{State, flag},
};
use lb_tests::prog::{Bench, Flow, Hook, Port, Site, Sizes, Verdict, network::*, put};

/// The conn of the n-th client port.
fn nth(n: u16) -> Flow {
    Flow::mysql(&format!("10.80.1.1:{}", 40_000 + n), SERVER1)
}

/// What the agent would ask for, of a conn that was seen this long ago; `known`: it knows of one that was.
fn request(bench: &mut Bench, flow: &Flow, op: Op, idle: u32, known: Option<u32>) -> Request {
    let now = bench.jiffies().unwrap();
    let [forward, reverse] = flow.entries();
    Request {
        key: forward.0,
        backend_addr: Ipv4::from(*flow.backend.ip()),
        backend_port: flow.backend.port(),
        client_port: flow.client_port,
        backend: flow.backend_id,
        op,
        outcome: Outcome::Full,
        forward_seen: forward.1.seen,
        reverse_seen: reverse.1.seen,
        knows: u16::from(known.is_some()),
        forward_ack: forward.1.ack,
        forward_seq: forward.1.seq,
        reverse_ack: reverse.1.ack,
        reverse_seq: reverse.1.seq,
        forward_last: now.wrapping_sub(idle),
        reverse_last: now.wrapping_sub(idle),
        created: now.wrapping_sub(flow.age + 1000),
        known: match op {
            Op::Update => 100,
            _ => now.wrapping_sub(known.unwrap_or_default()),
        },
    }
}

fn write(bench: &mut Bench, requests: &[Request]) -> Vec<Outcome> {
    let frame: Vec<u8> = requests.iter().flat_map(|request| request.bytes().to_vec()).collect();
    let back = bench.replicate(&frame).unwrap();
    back.chunks(Request::SIZE).map(|bytes| Request::decode(bytes).unwrap().outcome).collect()
}

fn create(bench: &mut Bench, flow: &Flow) -> Outcome {
    let request = request(bench, flow, Op::Create, 5, None);
    write(bench, &[request])[0]
}

/// A packet goes through, translated as the conn says.
#[track_caller]
fn passes(
    bench: &mut Bench,
    flow: &Flow,
    port: Port,
    packet: &lb_tests::packet::Packet<lb_tests::packet::Tcp>,
) -> Flow {
    let outcome = bench.run(port, &packet.build()).unwrap();
    assert_eq!(outcome.verdict, Verdict::Redirect);
    assert_eq!(outcome.packet, flow.translated(packet).build());
    flow.after(packet)
}

fn both_entries(bench: &mut Bench, flow: &Flow) -> Option<[Conn; 2]> {
    let conns = bench.tables.conns().unwrap();
    let [forward, reverse] = flow.keys().map(|key| conns.get(&key).copied());
    assert_eq!(forward.is_some(), reverse.is_some(), "half a conn");
    Some([forward?, reverse?])
}

/// On each hook, two directors of the same config.
fn on_both(site: &Site, test: impl Fn(&mut Bench, &mut Bench)) {
    for hook in Hook::ALL {
        let [mut one, mut other] = [Bench::load(hook).unwrap(), Bench::load(hook).unwrap()];
        site.apply(&mut one.tables).unwrap();
        site.apply(&mut other.tables).unwrap();
        test(&mut one, &mut other);
        // The namespaces lie in each other.
        drop(other);
        drop(one);
    }
}

#[test]
fn a_conn_goes_on_at_the_other_director_byte_for_byte_and_comes_back() {
    on_both(&Site::mysql(), |one, other| {
        let flow = nth(1);
        let syn = flow.client_syn();
        let flow = {
            one.run(Port::Ext, &syn.build()).unwrap();
            flow
        };
        let answer = flow.backend_syn_ack();
        let flow = passes(one, &flow, Port::Int, &answer);
        let ack = flow.client_ack();
        let flow = passes(one, &flow, Port::Ext, &ack);
        let query = flow.client_ack().payload(30);
        let flow = passes(one, &flow, Port::Ext, &query);
        assert_eq!(create(other, &flow), Outcome::Done);
        assert_eq!(other.tables.load(flow.backend_id).unwrap(), 1, "it counts for lc and wlc");
        let [forward, reverse] = both_entries(other, &flow).unwrap();
        assert_eq!((forward.dir, reverse.dir), (Direction::Forward, Direction::Reverse));
        assert_eq!((forward.origin, forward.hop_gen, reverse.hop_gen), (Origin::Peer, 0, 0));
        assert_eq!((forward.seq, forward.ack, reverse.seq), (flow.forward.seq, flow.forward.ack, flow.reverse.seq));
        assert_ne!(forward.created, other.jiffies().unwrap());

        // The VIPs move: both directions, in any order, and what was lost on the way once more.
        let result = flow.backend_ack().payload(700);
        let flow = passes(other, &flow, Port::Int, &result);
        let flow = passes(other, &flow, Port::Ext, &query);
        let next = flow.client_ack().payload(99);
        let flow = passes(other, &flow, Port::Ext, &next);
        assert_eq!(both_entries(other, &flow).unwrap()[0].seq, flow.forward.seq);
        assert_eq!(other.tables.events().unwrap(), [], "nothing has changed that anybody wants to know");

        // And back, with what the other one has seen meanwhile.
        let update = request(one, &flow, Op::Update, 0, None);
        let created = both_entries(one, &flow).unwrap()[0].created;
        assert_eq!(write(one, &[Request { created, ..update }]), [Outcome::Done]);
        let more = flow.client_ack().payload(11);
        let flow = passes(one, &flow, Port::Ext, &more);
        let end = flow.client_ack().fin();
        let flow = passes(one, &flow, Port::Ext, &end);
        let end = flow.backend_ack().fin();
        let flow = passes(one, &flow, Port::Int, &end);
        assert_eq!(flow.state(), State::TimeWait);
        assert_eq!(one.tables.load(flow.backend_id).unwrap(), 0);
        // The other one hears that it is closed, then that it is gone.
        let created = both_entries(other, &flow).unwrap()[0].created;
        let closed = Request { created, ..request(other, &flow, Op::Update, 0, None) };
        assert_eq!(write(other, &[closed]), [Outcome::Done]);
        assert_eq!(other.tables.load(flow.backend_id).unwrap(), 0, "a closed conn is no load");
        let gone = request(other, &flow, Op::Remove, 0, Some(9));
        assert_eq!(write(other, &[gone, gone]), [Outcome::Done, Outcome::Nothing]);
        assert_eq!(other.tables.conns().unwrap().len(), 0);
        assert_eq!(other.tables.load(flow.backend_id).unwrap(), 0);
    });
}

/// What one side has sent while its packets went elsewhere may be more than a window: the first packet is believed.
#[test]
fn the_first_packet_after_a_hand_over_is_believed_and_so_is_its_fin() {
    on_both(&Site::mysql(), |_, other| {
        let flow = nth(1).established();
        assert_eq!(create(other, &flow), Outcome::Done);
        let far = flow.client_ack().seq(flow.forward.seq.wrapping_add(0x2000_0000)).payload(10);
        other.run(Port::Ext, &far.build()).unwrap();
        assert_eq!(both_entries(other, &flow).unwrap()[0].seq, far.seq_end());
        let farther = far.clone().seq(far.seq_end().wrapping_add(0x2000_0000));
        other.run(Port::Ext, &farther.build()).unwrap();
        assert_eq!(both_entries(other, &flow).unwrap()[0].seq, far.seq_end(), "only the first");

        let second = nth(2).established();
        assert_eq!(create(other, &second), Outcome::Done);
        let fin = second.client_ack().fin().seq(second.forward.seq.wrapping_add(0x2000_0000));
        other.run(Port::Ext, &fin.build()).unwrap();
        assert_ne!(both_entries(other, &second).unwrap()[0].seen & flag::FIN, 0);
    });
}

#[test]
fn what_the_packet_path_knows_better_stays() {
    on_both(&Site::mysql(), |_, other| {
        let flow = nth(1).established();
        let now = other.jiffies().unwrap();
        let seen_at = |ago| Flow { age: ago, ..flow.clone() };
        put(other, &seen_at(200), now).unwrap();
        let mine = both_entries(other, &flow).unwrap();
        let rival = Flow { backend: format!("{SERVER2}:3306").parse().unwrap(), backend_id: 1, ..flow.clone() };
        let mut ask = |flow: &Flow, op, known| {
            let request = request(other, flow, op, 5, known);
            write(other, &[request])[0]
        };
        // The agent knows of no conn of that key, or of one that was silent for longer.
        for (op, known) in [
            (Op::Create, None),
            (Op::Create, Some(900)),
            (Op::Remove, None),
            (Op::Remove, Some(900)),
            (Op::Retire, Some(900)),
        ] {
            assert_eq!(ask(&rival, op, known), Outcome::Kept, "{op} {known:?}");
        }
        assert_eq!(ask(&rival, Op::Update, None), Outcome::Nothing, "an update of another conn");
        assert_eq!(both_entries(other, &flow), Some(mine));
        // It knows all there is to know.
        let mut ask = |flow: &Flow, op, known| {
            let request = request(other, flow, op, 5, known);
            write(other, &[request])[0]
        };
        assert_eq!(ask(&rival, Op::Create, Some(150)), Outcome::Done);
        assert_eq!(both_entries(other, &rival).unwrap()[0].backend, 1);
        assert_eq!(other.tables.conns().unwrap().len(), 2, "nothing is left of the one before");
        assert_eq!((other.tables.load(0).unwrap(), other.tables.load(1).unwrap()), (0, 1));
    });
}

#[test]
fn a_closed_conn_goes_whatever_was_seen_of_it_unless_it_is_only_doubted() {
    on_both(&Site::mysql(), |_, other| {
        let closed = nth(1).in_state(State::TimeWait);
        let now = other.jiffies().unwrap();
        put(other, &closed, now).unwrap();
        let long = request(other, &closed, Op::Retire, 0, Some(50_000));
        assert_eq!(write(other, &[long]), [Outcome::Kept]);
        let remove = Request { op: Op::Remove, ..long };
        assert_eq!(write(other, &[remove]), [Outcome::Done]);
        assert_eq!(other.tables.conns().unwrap().len(), 0);
    });
}

#[test]
fn an_update_goes_to_the_conn_of_its_age_only_and_never_back() {
    on_both(&Site::mysql(), |_, other| {
        let flow = nth(1).established();
        let now = other.jiffies().unwrap();
        put(other, &Flow { age: 10, ..flow.clone() }, now).unwrap();
        let before = both_entries(other, &flow).unwrap();
        let closed = flow.in_state(State::Close);
        let created = before[0].created;
        let update = |bench: &mut Bench, created, idle| {
            let request = Request { created, ..request(bench, &closed, Op::Update, idle, None) };
            write(bench, &[request])[0]
        };
        assert_eq!(update(other, created.wrapping_sub(101), 0), Outcome::Nothing, "an older conn of the key");
        assert_eq!(update(other, created.wrapping_add(101), 0), Outcome::Nothing, "a younger one");
        assert_eq!(both_entries(other, &flow), Some(before));
        // Flags count in any case; numbers and times only if they are news.
        assert_eq!(update(other, created.wrapping_add(100), 9000), Outcome::Done);
        let [forward, reverse] = both_entries(other, &flow).unwrap();
        assert_eq!(State::of(forward.seen, reverse.seen), State::Close);
        assert_eq!((forward.seq, forward.last_seen), (before[0].seq, before[0].last_seen));
        assert_eq!(other.tables.load(0).unwrap(), 0);
        // Once more: it is uncounted once.
        assert_eq!(update(other, created, 0), Outcome::Done);
        assert_eq!(other.tables.load(0).unwrap(), 0);
    });
}

#[test]
fn there_is_no_room_when_the_table_is_full_or_the_backends_side_is_taken() {
    for hook in Hook::ALL {
        let mut bench = Bench::with_sizes(hook, Sizes { conns: 3, ..Sizes::default() }).unwrap();
        Site::mysql().apply(&mut bench.tables).unwrap();
        assert_eq!(create(&mut bench, &nth(1).established()), Outcome::Done);
        assert_eq!(create(&mut bench, &nth(2).established()), Outcome::Full);
        assert_eq!(bench.tables.conns().unwrap().len(), 2, "{hook}: no half of it is left");
        assert_eq!(bench.tables.load(0).unwrap(), 1);
    }
    // Two services share a backend: on each director a client got the port first.
    let backend = format!("{SERVER1}:3306");
    let ports = [3306, 3307].map(|port| format!("{VIP}:{port}"));
    let site = ports.iter().fold(Site::new(), |site, listen| site.service(listen, Scheduler::Rr, &[&backend]));
    on_both(&site, |_, other| {
        let [one, two] = ports.each_ref().map(|listen| {
            let flow = Flow::opened(&site, "10.80.1.1:40000", listen, &backend).answered();
            flow.after(&flow.client_ack())
        });
        assert_eq!(create(other, &one), Outcome::Done);
        assert_eq!(create(other, &two), Outcome::Full);
        assert_eq!(create(other, &two.remapped_to(40_001)), Outcome::Done);
        assert_eq!(other.tables.conns().unwrap().len(), 4);
    });
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    on_both(&Site::mysql(), |_, other| {
        let flow = nth(1).established();
        let good = request(other, &flow, Op::Create, 0, None);
        let mut bytes = good.bytes().to_vec();
        // Cut anywhere: what is not whole is not looked at.
        for length in 14..Request::SIZE {
            let back = other.replicate(&bytes[..length]).unwrap();
            assert_eq!(back, bytes[..length]);
        }
        // An operation, or a protocol, of a version to come.
        for (place, value) in [
            (std::mem::offset_of!(Request, op), 4_u8),
            (std::mem::offset_of!(Request, op), 255),
            (std::mem::offset_of!(FlowKey, proto), Proto::Udp as u8),
            (std::mem::offset_of!(FlowKey, proto), 0),
        ] {
            let before = std::mem::replace(&mut bytes[place], value);
            let outcome = other.replicate(&bytes).unwrap()[std::mem::offset_of!(Request, outcome)];
            assert_eq!(outcome, Outcome::Nothing as u8, "byte {place} is {value}");
            bytes[place] = before;
        }
        assert_eq!(other.tables.conns().unwrap().len(), 0);
        // A backend that nobody has: it counts for nobody.
        let nobody = Request { backend: u16::MAX, ..good };
        assert_eq!(write(other, &[nobody]), [Outcome::Done]);
        assert_eq!(
            write(other, &[Request { op: Op::Remove, knows: 1, known: good.forward_last, ..nobody }]),
            [Outcome::Done]
        );
        // As many as fit, and the frame of one byte more is none of more requests.
        let many: Vec<Request> =
            (0..BATCH as u16).map(|n| request(other, &nth(n).established(), Op::Create, 0, None)).collect();
        assert_eq!(write(other, &many), [Outcome::Done; BATCH]);
        assert_eq!(other.tables.conns().unwrap().len(), 2 * BATCH);
    });
}

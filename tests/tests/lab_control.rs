//! lbctl against a working agent: what it shows is held against what really happened, and what it changes takes effect
//! on new connections only.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use lb_common::backend::BackendState;
use lb_common::counter::Counter;
use lb_common::tcp::State;
use lb_tests::checks::{Sessions, Setting, Share, by_servers, spread};
use lb_tests::lab::{Director, Lab, Offload, Seen, addr, now, wait_for};
use lb_tests::packet::tcp;
use lb_userspace::control::protocol::{
    BackendAnswer, ConnView, DropView, Mode, RateView, ServiceView, StatsView, Status,
};

fn lab(offload: Offload) -> (Lab, Vec<Share>) {
    let setting = Setting::of("tc", offload);
    let lab = setting.up().unwrap();
    let shares = setting.shares(&lab);
    (lab, shares)
}

fn service(d1: &Director) -> ServiceView {
    let mut services: Vec<ServiceView> = d1.ctl(&["services"]).unwrap();
    assert_eq!(services.len(), 1);
    services.remove(0)
}

/// Drops so far, by reason; only those that happened.
fn drops(d1: &Director) -> BTreeMap<String, u64> {
    let drops: Vec<DropView> = d1.ctl(&["drops"]).unwrap();
    drops.into_iter().filter(|drop| drop.count > 0).map(|drop| (drop.reason, drop.count)).collect()
}

#[test]
fn status_names_the_agent_the_interfaces_and_the_tables_as_they_are() {
    let (lab, _) = lab(Offload::On);
    let d1 = lab.d1();
    let _sessions = Sessions::open(&lab, 5).unwrap();
    let status: Status = d1.ctl(&["status"]).unwrap();
    assert_eq!(status.pid, d1.agent_pid().unwrap());
    assert_eq!(status.pin_dir, d1.pins());
    assert_eq!((status.services, status.backends, status.backends_up), (1, 2, 2));
    assert_eq!(status.events_lost, 0);
    let links = d1.links().unwrap();
    for interface in &status.interfaces {
        let link = &links[&format!("link_{}_tc", interface.name)];
        assert_eq!((u64::from(interface.link_id), u64::from(interface.program_id)), (link.link, link.program));
        assert_eq!(interface.mode, Mode::Tc);
    }
    let conns = status.tables.iter().find(|table| table.name == "conns").unwrap();
    assert_eq!(conns.entries, d1.map_dump("conns").unwrap().len() as u64);
    assert_eq!(conns.entries, 10);
    // What an operator reads.
    let text = d1.ctl_text(&["status"]).unwrap();
    assert!(text.contains(&format!("pid {}", status.pid)) && text.contains("ext0"), "{text}");
}

#[test]
fn services_and_conns_list_exactly_the_sessions_that_the_servers_list() {
    let (lab, _) = lab(Offload::On);
    let d1 = lab.d1();
    let mut sessions = Sessions::open(&lab, 9).unwrap();
    let conns = sessions.agree(&lab).unwrap();
    for conn in &conns {
        assert_eq!(
            (conn.vip, conn.service.as_str(), *conn.client.ip()),
            (addr::SERVICE, "mysql", lab.client().address())
        );
        assert!(conn.bytes_in > 100 && conn.bytes_out > 100 && conn.idle_seconds <= 5, "{conn:?}");
    }

    // Every filter selects what it says.
    let rs1 = lab.servers()[0].address();
    let count = |arguments: &[&str]| -> usize {
        let conns: Vec<ConnView> = d1.ctl(&[&["conns"], arguments].concat()).unwrap();
        conns.len()
    };
    let on_rs1 = usize::try_from(sessions.by_backend()[&rs1]).unwrap();
    assert_eq!(count(&["--backend", &rs1.to_string()]), on_rs1);
    assert_eq!(count(&["--client", &conns[0].client.to_string()]), 1);
    assert_eq!(count(&["--client", "10.80.1.0/24"]), 9);
    assert_eq!(count(&["--client", "10.80.2.0/24"]), 0);
    assert_eq!(count(&["--idle-gt", "1h"]), 0);
    assert_eq!(count(&["--service", "mysql", "--limit", "3"]), 3);

    // The layout of ipvsadm -Lnc and -Ln.
    let text = d1.ctl_text(&["conns"]).unwrap();
    let line = format!("{:<18} {:<18} {}", conns[0].client, addr::SERVICE, conns[0].destination);
    let line = text.lines().find(|shown| shown.ends_with(&line)).unwrap_or_else(|| panic!("{line}\n{text}"));
    assert!(line.starts_with("TCP") && line.contains("ESTABLISHED"), "{line}");
    let text = d1.ctl_text(&["services"]).unwrap();
    assert!(text.contains(&format!("TCP  {} rr", addr::SERVICE)), "{text}");
    assert!(text.lines().any(|line| line.contains("-> 192.168.80.167:3306") && line.contains("Masq")), "{text}");

    // What a backend's side closes is no longer active, and the rest is.
    sessions.answer().unwrap();
    drop(sessions);
    wait_for("the end of the sessions", Duration::from_secs(5), || Ok(by_servers(&lab)?.is_empty().then_some(())))
        .unwrap();
    let service = service(d1);
    assert_eq!((service.active, service.inactive), (0, 9), "closed conns wait for their timeout");
    assert_eq!(count(&["--state", State::Established.name()]), 0);
}

#[test]
fn stats_count_every_packet_and_byte_that_the_hosts_themselves_counted() {
    // Without offload and with small answers a packet is a packet everywhere: no host merges or splits one.
    let (lab, shares) = lab(Offload::Off);
    let d1 = lab.d1();
    let to_service = format!("ip daddr {} tcp dport {}", addr::VIP, addr::MYSQL_PORT);
    let sent = lab.client().host().count_packets("to_service", "output", &to_service).unwrap();
    let answered: Vec<_> = lab
        .servers()
        .iter()
        .map(|server| server.host().count_packets("answers", "output", "tcp sport 3306").unwrap())
        .collect();
    spread(&lab, &shares, 100, 5).unwrap();

    let truth = wait_for("quiet after the last FIN", Duration::from_secs(5), || {
        let before = sent.read()?;
        thread::sleep(Duration::from_millis(100));
        Ok((sent.read()? == before).then_some(before))
    })
    .unwrap();
    let stats: Vec<StatsView> = d1.ctl(&["stats"]).unwrap();
    let [stats] = stats.as_slice() else { panic!("{stats:?}") };
    assert_eq!(stats.total.conns, 100);
    assert_eq!(Seen { packets: stats.total.in_packets, bytes: stats.total.in_bytes }, truth);
    for (backend, counter) in stats.backends.iter().zip(&answered) {
        let Seen { packets, bytes } = counter.read().unwrap();
        assert_eq!((backend.traffic.out_packets, backend.traffic.out_bytes), (packets, bytes), "{}", backend.address);
        assert_eq!(backend.traffic.conns, 50);
    }
    assert_eq!(stats.total.out_packets, stats.backends.iter().map(|backend| backend.traffic.out_packets).sum::<u64>());
    assert_eq!(drops(d1), BTreeMap::new(), "nothing was dropped");
}

#[test]
fn rate_shows_the_pace_at_which_a_client_connects() {
    const PER_SECOND: u32 = 40;
    let (lab, _) = lab(Offload::On);
    let rate = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let started = now();
            for number in 0..4 * PER_SECOND {
                let due = Duration::from_secs(1) * number / PER_SECOND;
                thread::sleep(due.saturating_sub(started.elapsed()));
                lab.client().connect(addr::SERVICE).unwrap();
            }
        });
        thread::sleep(Duration::from_secs(1));
        let rates: Vec<RateView> = lab.d1().ctl(&["rate", "--interval", "2s"]).unwrap();
        client.join().unwrap();
        rates
    });
    let [rate] = rate.as_slice() else { panic!("{rate:?}") };
    let expected = u64::from(PER_SECOND);
    assert!(rate.total.cps.abs_diff(expected) <= expected / 10, "{PER_SECOND} connections a second, shown: {rate:?}");
    assert!(rate.backends.iter().all(|backend| backend.rate.cps.abs_diff(expected / 2) <= expected / 10), "{rate:?}");
    assert!(rate.interval_ms.abs_diff(2000) < 500, "{rate:?}");
    // A login takes 9 packets or so each way.
    assert!(rate.total.in_pps > 5 * rate.total.cps && rate.total.out_pps > 4 * rate.total.cps, "{rate:?}");
}

#[test]
fn every_drop_is_counted_under_its_reason() {
    let (lab, _) = lab(Offload::Off);
    let d1 = lab.d1();
    assert_eq!(drops(d1), BTreeMap::new());
    let client = lab.client();
    let from = |port| SocketAddrV4::new(client.address(), port).to_string();

    // Mid-stream segments that belong to no conn: dropped, and not answered by the director's kernel either.
    let to_client = client.host().count_packets("resets", "input", "tcp flags rst").unwrap();
    for port in 0..7 {
        let stray = tcp().from(from(50_000 + port).as_str()).to(addr::SERVICE.to_string().as_str());
        client.host().inject(&stray.seq(1).ack(1).payload("SELECT 1"), addr::SERVICE).unwrap();
    }
    let expected = BTreeMap::from([(Counter::NoConn.name().to_owned(), 7)]);
    wait_for("seven drops", Duration::from_secs(2), || Ok((drops(d1) == expected).then_some(()))).unwrap();
    assert_eq!(to_client.read().unwrap().packets, 0, "a stray segment was answered");

    // SYNs while no backend takes new conns.
    for server in lab.servers() {
        let _: BackendAnswer = d1.ctl(&["backend", "drain", &format!("{}:3306", server.address())]).unwrap();
    }
    for port in 0..5 {
        let syn = tcp().from(from(51_000 + port).as_str()).to(addr::SERVICE.to_string().as_str());
        client.host().inject(&syn.syn().seq(1), addr::SERVICE).unwrap();
    }
    let expected = BTreeMap::from([(Counter::NoConn.name().to_owned(), 7), (Counter::NoBackend.name().to_owned(), 5)]);
    wait_for("five more", Duration::from_secs(2), || Ok((drops(d1) == expected).then_some(()))).unwrap();
    assert_eq!(to_client.read().unwrap().packets, 5, "whom nobody takes is told so");

    let text = d1.ctl_text(&["drops"]).unwrap();
    assert!(text.lines().any(|line| line.starts_with("no_backend") && line.contains(" 5 ")), "{text}");
    assert!(text.contains("lbctl backend undrain"), "a drop comes with its remedy: {text}");
    let refused = client.host().enter(|| Ok(TcpStream::connect(addr::SERVICE).map(drop))).unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "as by a host without a server");
}

#[test]
fn a_drained_backend_keeps_its_sessions_and_gets_no_new_ones() {
    let (lab, shares) = lab(Offload::On);
    let d1 = lab.d1();
    let mut old = Sessions::open(&lab, 4).unwrap();
    let [first, second] = shares[..] else { panic!("two backends") };
    let only = |share: Share| vec![Share { weight: 1, ..share }];

    let answer: BackendAnswer = d1.ctl(&["backend", "drain", &first.address().to_string()]).unwrap();
    assert_eq!((answer.backend.state, answer.backend.active), (BackendState::Draining, 2));
    spread(&lab, &only(second), 50, 3).unwrap();
    old.answer().unwrap();
    old.agree(&lab).unwrap();
    let text = d1.ctl_text(&["services"]).unwrap();
    assert!(
        text.lines().any(|line| line.contains(&first.address().to_string()) && line.ends_with("draining")),
        "{text}"
    );

    // It is the operator's word until the operator takes it back, not until the next restart.
    d1.kill_agent().unwrap();
    d1.restart_agent().unwrap();
    assert_eq!(service(d1).backends[0].state, BackendState::Draining);
    spread(&lab, &only(second), 50, 3).unwrap();

    let answer: BackendAnswer = d1.ctl(&["backend", "undrain", &first.address().to_string()]).unwrap();
    assert_eq!((answer.backend.state, answer.backend.weight), (BackendState::Up, 1));
    spread(&lab, &shares, 100, 3).unwrap();
    old.answer().unwrap();
}

#[test]
fn a_weight_takes_effect_with_the_next_connection() {
    let setting = Setting { scheduler: "wrr".to_owned(), ..Setting::default() };
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let [first, second] = setting.shares(&lab)[..] else { panic!("two backends") };
    let mut old = Sessions::open(&lab, 3).unwrap();
    for (one, other) in [(3, 1), (1, 4), (0, 1), (65535, 65535), (1, 1)] {
        d1.set_weight(first.address(), one).unwrap();
        let answer = d1.set_weight(second.address(), other).unwrap();
        assert_eq!(answer.backend.weight, other);
        let shown = service(d1);
        assert_eq!(shown.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [one, other]);
        // Equal weights are equal shares, however large they are.
        let (one, other) = if one == other { (1, 1) } else { (one, other) };
        let shares = [Share { weight: one, ..first }, Share { weight: other, ..second }];
        spread(&lab, &shares, 20 * u64::from(one + other), 2).unwrap();
        old.answer().unwrap();
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason_and_an_exit_code() {
    let (lab, shares) = lab(Offload::On);
    let d1 = lab.d1();
    let before = service(d1);
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = d1.lbctl(arguments).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    };
    refused(&["backend", "drain", "192.168.80.99:3306"], 1, "192.168.80.99:3306");
    refused(&["backend", "weight", &shares[0].address().to_string(), "65536"], 2, "65535");
    refused(&["backend", "drain", &shares[0].address().to_string(), "--service", "pgsql"], 1, "pgsql");
    refused(&["frobnicate"], 2, "frobnicate");
    assert_eq!(service(d1), before);

    d1.stop_agent().unwrap();
    refused(&["status"], 3, "is lb-agent running?");
}

//! The distribution's keepalived in the lab: first two of them, which shows that the lab can tell a good switch from a
//! bad one, then one of them beside our agent.

use std::net::SocketAddrV4;
use std::time::Duration;

use lb_tests::lab::{EchoServer, Knocks, Lab, LabOptions, Server, VipWatch, VrrpOptions, addr, now};

/// For what takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_millis(200);
/// How long answers to an ARP question are collected.
const WINDOW: Duration = Duration::from_millis(100);

fn pair_lab() -> Lab {
    LabOptions { clients: 3, directors: 2, mariadb: None, ..LabOptions::default() }.up().unwrap()
}

fn echo_servers(lab: &Lab) -> Vec<EchoServer> {
    let at = |server: &Server| SocketAddrV4::new(server.address(), addr::MYSQL_PORT);
    lab.servers().iter().map(|server| EchoServer::start(server.host(), at(server)).unwrap()).collect()
}

/// How many directors answer each host that asks for a VIP.
fn answers(lab: &Lab) -> Vec<usize> {
    lab.askers().unwrap().iter().map(|asker| asker.ask(WINDOW).unwrap().len()).collect()
}

#[test]
fn two_keepalived_hand_over_in_order_but_a_killed_one_goes_on_answering_arp() {
    let lab = pair_lab();
    let (d1, d2) = (lab.d1(), lab.d2());
    let _servers = echo_servers(&lab);
    let backends: Vec<_> = lab.servers().iter().map(Server::address).collect();
    let watch = VipWatch::start(&lab).unwrap();
    let options = VrrpOptions::fast();
    for director in lab.directors() {
        director.start_nft(&backends).unwrap();
        director.start_keepalived(&options, None).unwrap();
    }
    watch.wait_for(0, LIMIT).unwrap();
    assert_eq!(answers(&lab), [1; 5]);

    let knocks = Knocks::start(lab.client(), addr::SERVICE).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();
    let stopped = now();
    d1.stop_keepalived().unwrap();
    watch.wait_for(1, LIMIT).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();
    let history = watch.history().unwrap();
    println!("SIGTERM: {:?} without an answer\n{}", knocks.stop().unwrap().gap(stopped), history.describe());
    assert_eq!((history.promotions(), history.twice()), (2, Duration::ZERO));

    d1.start_keepalived(&options, None).unwrap();
    d2.kill_keepalived().unwrap();
    // It cannot take its addresses off, so both have them from now on, and who asks gets two answers.
    lb_tests::lab::wait_for("d1's VIPs", LIMIT, || Ok(watch.history()?.complete_since(0))).unwrap();
    assert_eq!(watch.active().unwrap(), None, "{}", watch.history().unwrap().describe());
    assert_eq!(answers(&lab), [2; 5]);
}

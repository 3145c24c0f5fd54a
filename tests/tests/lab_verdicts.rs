//! Two directors see a server differently: both say so, each goes by its own eyes, and it ends when the path heals or the
//! other director is gone.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::Result;
use lb_tests::{
    checks::Pair,
    health,
    lab::{AgentOptions, Director, Lab, LabOptions, Server, VrrpOptions, addr, wait_for},
};
use lb_userspace::control::protocol::{CheckView, ServiceView, Status};
use mysql::prelude::Queryable as _;

const LIMIT: Duration = Duration::from_secs(30);
const PACE: &str = "inter = \"300ms\"\nfastinter = \"200ms\"\ndowninter = \"300ms\"\ntimeout = \"500ms\"\n";

fn agent(lab: &Lab) -> AgentOptions {
    let file = health::password_file(lab.d1().host(), health::PASSWORD).unwrap();
    let login = format!("user = {:?}\npassword_file = {:?}\n", health::USER, file.display().to_string());
    AgentOptions { check: format!("[service.check]\nlevel = \"auth\"\n{login}{PACE}"), ..lab.agent_options() }
}

/// The director's own packets to a server do not get out. What it forwards is no packet of its own.
fn cut(director: &Director, server: Option<&Server>) -> Result<()> {
    let mut rules = "table inet cut\ndelete table inet cut\n".to_owned();
    if let Some(server) = server {
        rules += "table inet cut {\n chain output {\n type filter hook output priority filter;\n";
        rules += &format!(" ip daddr {} drop\n }}\n}}\n", server.address());
    }
    director.host().check_with_input(&["nft", "-f", "-"], &rules).map(drop)
}

fn check(director: &Director, server: &Server) -> CheckView {
    let status: Status = director.ctl(&["status"]).unwrap();
    let at = SocketAddrV4::new(server.address(), addr::MYSQL_PORT);
    status.checks.into_iter().find(|check| check.address == at).unwrap()
}

/// Waits until a director says this of a server: its own verdict, the peer's, and what it calls the difference.
fn until(director: &Director, server: &Server, state: &str, peer: Option<&str>, difference: Option<&str>) {
    let wanted = |check: &CheckView| {
        check.state == state && check.peer.as_deref() == peer && check.disagreement.as_deref() == difference
    };
    let what = format!("{state}, {peer:?} there, {difference:?}");
    wait_for(&what, LIMIT, || Ok(wanted(&check(director, server)).then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}: {:#?}\n{}", check(director, server), director.agent_log().unwrap()));
}

/// Which servers new sessions reach.
fn reached(lab: &Lab) -> Vec<u32> {
    let ids = (0..8).map(|_| lab.client().connect(addr::SERVICE).unwrap().query_first("SELECT @@server_id").unwrap());
    let mut ids: Vec<u32> = ids.map(Option::unwrap).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn a_server_that_one_director_cannot_reach_is_called_a_fault_of_the_network_on_both() {
    let lab = LabOptions { directors: 2, ..LabOptions::default() }.up().unwrap();
    for server in lab.servers() {
        let (user, password) = (health::USER, health::PASSWORD);
        server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    }
    let agent = agent(&lab);
    let pair = Pair::of(lab, VrrpOptions::fast(), agent).unwrap().synced().unwrap();
    let (lab, d1, d2) = (&pair.lab, pair.director(0), pair.director(1));
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    pair.start(0).unwrap();
    pair.gets(0).unwrap();
    // Alone, nobody contradicts.
    until(d1, rs1, "up", None, None);
    pair.start(1).unwrap();
    for director in [d1, d2] {
        until(director, rs1, "up", Some("up"), None);
        until(director, rs2, "up", Some("up"), None);
    }

    // d2, the Backup, does not reach rs1.
    cut(d2, Some(rs1)).unwrap();
    until(d2, rs1, "down", Some("up"), Some("down-here-only"));
    until(d1, rs1, "up", Some("down"), Some("down-there-only"));
    until(d1, rs2, "up", Some("up"), None);
    let log = |director: &Director, text: &str| {
        wait_for(text, LIMIT, || Ok(director.agent_log()?.contains(text).then_some(()))).unwrap();
    };
    log(d1, "down from the other director only");
    log(d2, "down from here only");
    assert!(d1.ctl_text(&["services"]).unwrap().contains("down-there-only"));
    assert!(d2.ctl_text(&["services"]).unwrap().contains("down-here-only"));
    assert!(d1.ctl_text(&["status"]).unwrap().contains("look at the network there"));
    assert!(d2.ctl_text(&["status"]).unwrap().contains("look at the network here"));
    let services: Vec<ServiceView> = d1.ctl(&["services"]).unwrap();
    assert_eq!(services[0].backends[0].disagreement.as_deref(), Some("down-there-only"));

    // Each goes by its own eyes: the Active reaches both, so both serve.
    let both = [rs1.id().min(rs2.id()), rs1.id().max(rs2.id())];
    assert_eq!(reached(lab), both);
    let on_rs1 = |session: &mut mysql::Conn| {
        session.query_first::<u32, _>("SELECT @@server_id").unwrap().is_some_and(|id| id == rs1.id())
    };
    let mut open: Vec<mysql::Conn> = (0..8).map(|_| lab.client().connect(addr::SERVICE).unwrap()).collect();
    let there: Vec<bool> = open.iter_mut().map(on_rs1).collect();
    assert_eq!(there.iter().filter(|on_rs1| **on_rs1).count(), 4);

    // After a failover the new Active does not: rs1 gets nothing, and its sessions are told at once.
    lab.wait_until_safe(LIMIT).unwrap();
    pair.stop(0).unwrap();
    pair.takes(1).unwrap();
    assert_eq!(reached(lab), [rs2.id()]);
    let alive: Vec<bool> = open.iter_mut().map(|session| session.query_drop("SELECT 1").is_ok()).collect();
    let kept: Vec<bool> = there.iter().map(|on_rs1| !on_rs1).collect();
    assert_eq!(alive, kept, "sessions of rs2 go on, those of rs1 do not hang");
    drop(open);
    // An agent that is gone has no opinion.
    until(d2, rs1, "down", None, None);
    pair.restart(0).unwrap();
    until(d1, rs1, "up", Some("down"), Some("down-there-only"));
    until(d2, rs1, "down", Some("up"), Some("down-here-only"));

    // One that is killed says no goodbye.
    pair.kill(0).unwrap();
    until(d2, rs1, "down", None, None);
    pair.restart(0).unwrap();
    until(d2, rs1, "down", Some("up"), Some("down-here-only"));

    // The path heals: the difference ends on both, and rs1 serves again.
    cut(d2, None).unwrap();
    until(d2, rs1, "up", Some("up"), None);
    until(d1, rs1, "up", Some("up"), None);
    assert_eq!(reached(lab), both);
    log(d1, "both directors see it alike");
    log(d2, "both directors see it alike");

    // A server that is dead for both is no difference.
    rs1.kill9().unwrap();
    until(d1, rs1, "down", Some("down"), None);
    until(d2, rs1, "down", Some("down"), None);
    for director in [d1, d2] {
        let log = director.agent_log().unwrap();
        let last = log.lines().rfind(|line| line.contains("other director") || line.contains("see it alike"));
        assert!(last.is_some_and(|line| line.contains("see it alike")), "{last:?}");
    }
}

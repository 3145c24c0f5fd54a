//! The operator's side end to end: the real `lbctl` against the real server, with sample data behind it.

#[path = "control/agent.rs"]
mod agent;
#[path = "control/failures.rs"]
mod failures;
#[path = "control/load.rs"]
mod load;
#[path = "control/socket.rs"]
mod socket;

use agent::{Agent, FIRST, SECOND, Sample, VIP, command};
use lb_userspace::control::{
    client::Client,
    protocol::{BackendAnswer, ConnView, DiffView, DropView, FailoverAnswer, RateView, ServiceView, StatsView, Status},
};
use serde::de::DeserializeOwned;
use std::time::Duration;

fn json<T: DeserializeOwned>(agent: &Agent, line: &str) -> T {
    let out = agent.lbctl(&format!("{line} -o json")).ok();
    assert!(out.ends_with('\n'));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn services_read_like_ipvsadm_ln() {
    let expected = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.80.1.243:3306 wrr
  -> 192.168.80.167:3306          Masq    3      9          2
  -> 192.168.80.136:3306          Masq    1      9          2
TCP  10.80.1.243:3307 wrr
  -> 192.168.80.136:3306          Masq    1      9          2
";
    let agent = Agent::start(0);
    assert_eq!(agent.lbctl("services").ok(), expected);
    let services: Vec<ServiceView> = json(&agent, "services");
    assert_eq!(services.len(), 2);
    assert_eq!((services[0].listen, services[0].backends[1].address), (VIP, SECOND));
}

#[test]
fn conns_read_like_ipvsadm_lnc() {
    let expected = "\
LB connection entries
pro expire state       source             virtual            destination
TCP 481:00 ESTABLISHED 10.80.1.0:40000    10.80.1.243:3306   192.168.80.167:3306
TCP 480:59 ESTABLISHED 10.80.1.0:40001    10.80.1.243:3306   192.168.80.136:3306
TCP 480:58 ESTABLISHED 10.80.1.0:40002    10.80.1.243:3306   192.168.80.167:3306
TCP 480:57 ESTABLISHED 10.80.1.0:40003    10.80.1.243:3306   192.168.80.136:3306
TCP 480:56 TIME_WAIT   10.80.1.0:40004    10.80.1.243:3306   192.168.80.167:3306
";
    assert_eq!(Agent::start(5).lbctl("conns").ok(), expected);
    let titles: String = expected.lines().take(2).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(Agent::start(0).lbctl("conns").ok(), titles);
    assert_eq!(json::<Vec<ConnView>>(&Agent::start(0), "conns"), []);
}

#[test]
fn filters_select_the_same_conns_as_reading_all_of_them() {
    let agent = Agent::start(1000);
    let all: Vec<ConnView> = (0..1000).map(Sample::conn).collect();
    assert_eq!(json::<Vec<ConnView>>(&agent, "conns"), all);
    let check = |line: &str, wanted: &dyn Fn(&ConnView) -> bool| {
        let expected: Vec<_> = all.iter().filter(|c| wanted(c)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{line} would test nothing");
        assert_eq!(json::<Vec<ConnView>>(&agent, line), expected, "{line}");
    };
    check("conns --client 10.80.1.7", &|c| c.client.ip().octets()[3] == 7);
    check("conns --client 10.80.1.0/30", &|c| c.client.ip().octets()[3] < 4);
    check("conns --client 10.80.1.0/24:40003", &|c| c.client.port() == 40_003);
    check("conns --backend 192.168.80.167", &|c| c.destination == FIRST);
    check("conns --state time_wait", &|c| c.state == lb_common::tcp::State::TimeWait);
    check("conns --idle-gt 90", &|c| c.idle_seconds > 90);
    check("conns --idle-gt 1m --backend 192.168.80.136:3306", &|c| c.idle_seconds > 60 && c.destination == SECOND);
    check("conns --limit 3", &|c| all[..3].contains(c));
    check("conns --limit 2 --idle-gt 97", &|c| [&all[98], &all[99]].contains(&c));
    assert_eq!(json::<Vec<ConnView>>(&agent, "conns --service ro"), []);
    assert_eq!(json::<Vec<ConnView>>(&agent, "conns --limit 0"), []);
    assert_eq!(json::<Vec<ConnView>>(&agent, "conns --service rw"), all);
}

#[test]
fn the_json_of_a_conn_is_stable() {
    let line = serde_json::to_string(&Sample::conn(22)).unwrap();
    let expected = r#"{"protocol":"TCP","expires_seconds":28838,"state":"ESTABLISHED","client":"10.80.1.2:40002","virtual":"10.80.1.243:3306","destination":"192.168.80.167:3306","service":"rw","idle_seconds":22,"age_seconds":22,"bytes_in":1022,"bytes_out":9022,"origin":"local","client_port_at_backend":1024}"#;
    assert_eq!(line, expected);
    assert_eq!(Agent::start(23).lbctl("conns -o json --client 10.80.1.2:40002").ok(), format!("[\n{expected}\n]\n"));
}

#[test]
fn stats_and_rates_read_like_those_of_ipvsadm() {
    let agent = Agent::start(0);
    let stats = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.80.1.243:3306                  400     4000     8000   400000  800000K
  -> 192.168.80.167:3306               300     3000     6000   300000  600000K
  -> 192.168.80.136:3306               100     1000     2000   100000  200000K
";
    assert_eq!(agent.lbctl("stats").ok(), stats);
    assert!(agent.lbctl("stats --exact").ok().contains("  800000 1600000000\n"));
    let stats: Vec<StatsView> = json(&agent, "stats");
    assert_eq!(stats[0].total.out_bytes, 2_400_000_000);

    let rate = agent.lbctl("rate --interval 200ms").ok();
    let titles = "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n";
    assert!(rate.contains(titles), "{rate}");
    let rates: Vec<RateView> = json(&agent, "rate --interval 200ms");
    let (rate, first) = (rates[0].total, rates[0].backends[0].rate);
    // 400 conns in 200 ms, or a little more on a busy machine.
    let expected = 400 * 1000 / rates[0].interval_ms;
    assert!(rates[0].interval_ms >= 200 && rate.cps.abs_diff(expected) <= expected / 50, "{rates:?}");
    assert!(rate.cps.abs_diff(first.cps * 4 / 3) <= 2 && rate.in_pps.abs_diff(rate.cps * 10) <= 10, "{rates:?}");
}

#[test]
fn status_shows_interfaces_tables_and_warnings() {
    let agent = Agent::start(0);
    let out = agent.lbctl("status").ok();
    for part in [
        "lb-agent 0.1.0, pid 4242, up 1m1s, map layout 1, protocol 1\n",
        "ext0           2  xdp     92      151        2h  mode = \"auto\": the driver supports it\n",
        "conns       40    200000    0%  32.0 MiB\n",
        "\nwarning: rp_filter is strict",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert_eq!(json::<Status>(&agent, "status"), Sample::status());
}

#[test]
fn drops_name_reason_and_remedy() {
    let agent = Agent::start(0);
    let out = agent.lbctl("drops").ok();
    assert!(out.starts_with("REASON   PACKETS  MEANING\nno_conn        7  a packet of a service belonged"), "{out}");
    assert_eq!(out.lines().count(), 3);
    let all = agent.lbctl("drops --all").ok();
    assert!(all.lines().any(|line| line.split_whitespace().take(2).eq(["port_collision", "0"])), "{all}");
    let drops: Vec<DropView> = json(&agent, "drops");
    assert_eq!(drops.len(), lb_common::counter::Counter::ALL.iter().filter(|c| c.is_drop()).count());
}

#[test]
fn a_backend_is_drained_weighed_and_brought_back() {
    let agent = Agent::start(0);
    let drained = agent.lbctl("backend drain 192.168.80.167:3306").ok();
    assert_eq!(drained, "rw 192.168.80.167:3306: draining, weight 0, 9 active conns left\n");
    let services = agent.lbctl("services").ok();
    assert!(services.contains("192.168.80.167:3306          Masq    0      9          2          draining\n"));
    let back: BackendAnswer = json(&agent, "backend undrain 192.168.80.167:3306 --service rw");
    assert_eq!((back.backend.weight, back.backend.state.name()), (1, "up"));
    let weighed = agent.lbctl("backend weight 192.168.80.136:3306 65535 --service ro").ok();
    assert_eq!(weighed, "ro 192.168.80.136:3306: up, weight 65535\n");
    let weights: Vec<_> = json::<Vec<ServiceView>>(&agent, "services").iter().map(|s| s.backends[0].weight).collect();
    assert_eq!(weights, [1, 65535]);
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let agent = Agent::start(0);
    let ran = command("drops").env("LB_SOCKET", &agent.socket).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    // The option wins.
    let ran = command("drops --socket /nonexistent").env("LB_SOCKET", &agent.socket).output().unwrap();
    assert_eq!(ran.status.code(), Some(3));
}

#[test]
fn one_connection_serves_many_calls() {
    let agent = Agent::start(10);
    let mut client = Client::connect(&agent.socket).unwrap();
    for _ in 0..50 {
        assert_eq!(client.status().unwrap().pid, 4242);
        assert_eq!(client.conns(&Default::default()).unwrap().count(), 10);
        assert!(client.rate(Duration::ZERO).unwrap_err().to_string().contains("must be 100 to 60000"));
        assert!(client.drops().unwrap().iter().any(|drop| drop.count == 7));
    }
}

#[test]
fn a_failover_tells_what_each_change_of_the_role_cost() {
    let agent = Agent::start(0);
    let there = "10.80.1.242 has taken over: 1.500 ms without an Active, 40 conns before, 40 after\n";
    let back = "this director has taken over from 10.80.1.242: 0.900 ms without an Active, 40 conns before, 40 after\n";
    assert_eq!(agent.lbctl("failover").ok(), there);
    assert_eq!(agent.lbctl("failover --drill").ok(), [there, back].concat());
    let answer: FailoverAnswer = json(&agent, "failover --drill");
    let roles: Vec<_> = answer.steps.iter().map(|step| (step.role.as_str(), step.gap_us)).collect();
    assert_eq!(roles, [("Backup", 1500), ("Active", 900)]);
    agent.lbctl("failover --force").fails(1, "the peer lacks conns");
}

#[test]
fn the_peer_and_what_differs_are_asked_for() {
    let agent = Agent::start(0);
    agent.lbctl("peer").fails(1, "there is no [sync] in the config");
    assert!(agent.lbctl("diff").ok().contains("open  waits        ESTABLISHED  10.80.1.1:40000"));
    let conns: Vec<DiffView> = json(&agent, "diff --limit 1");
    assert_eq!((conns.len(), conns[0].idle_seconds, conns[0].ended), (1, 75, false));
}

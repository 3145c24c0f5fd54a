use super::*;
use crate::control::protocol::{BackendRate, BackendTraffic, TableView};
use lb_common::{
    conn::{Origin, Proto},
    service::Scheduler,
    tcp::State,
};

const VIP: &str = "10.80.1.243:3306";
const FIRST: &str = "192.168.80.167:3306";
const SECOND: &str = "192.168.80.136:3306";

fn at(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn status() -> Status {
    Status {
        version: 1,
        agent_version: "0.1.0".to_owned(),
        abi: 1,
        pid: 1,
        uptime_seconds: 0,
        config_path: "/etc/lb/lb.toml".into(),
        pin_dir: "/sys/fs/bpf/lb/v1".into(),
        interfaces: Vec::new(),
        tables: vec![TableView { name: "conns".to_owned(), entries: 4, capacity: 200_000, bytes: 1 }],
        services: 1,
        backends: 2,
        backends_up: 1,
        events_lost: 0,
        warnings: Vec::new(),
        checks: Vec::new(),
        vrrp: None,
        sync: None,
    }
}

fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn services_have_the_columns_of_ipvsadm_ln() {
    let backend = |address, weight, state, active, inactive| BackendView {
        address: at(address),
        forward: "Masq".to_owned(),
        weight,
        state,
        word: String::new(),
        active,
        inactive,
        left: None,
        disagreement: None,
    };
    let services = [
        ServiceView {
            name: "mysql".to_owned(),
            listen: at(VIP),
            protocol: Proto::Tcp,
            scheduler: Scheduler::Wrr,
            backends: vec![
                backend(FIRST, 3, BackendState::Up, 9, 2),
                backend(SECOND, 0, BackendState::Draining, 1_234_567_890, 0),
                BackendView {
                    disagreement: Some("down-there-only".to_owned()),
                    ..backend(FIRST, 3, BackendState::Up, 9, 2)
                },
                BackendView {
                    disagreement: Some("down-here-only".to_owned()),
                    ..backend(FIRST, 3, BackendState::Down, 9, 2)
                },
                BackendView {
                    disagreement: Some("down-there-only".to_owned()),
                    ..backend(FIRST, 0, BackendState::Draining, 9, 2)
                },
            ],
            active: 10,
            inactive: 2,
        },
        ServiceView {
            name: "empty".to_owned(),
            listen: at("255.255.255.255:65535"),
            protocol: Proto::Tcp,
            scheduler: Scheduler::Mh,
            backends: Vec::new(),
            active: 0,
            inactive: 0,
        },
    ];
    let expected = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.80.1.243:3306 wrr
  -> 192.168.80.167:3306          Masq    3      9          2
  -> 192.168.80.136:3306          Masq    0      1234567890 0          draining
  -> 192.168.80.167:3306          Masq    3      9          2          down-there-only
  -> 192.168.80.167:3306          Masq    3      9          2          down-here-only
  -> 192.168.80.167:3306          Masq    0      9          2          draining, down-there-only
TCP  255.255.255.255:65535 mh
";
    assert_eq!(printed(|out| super::services(out, &status(), &services)), expected);
}

#[test]
fn conns_have_the_columns_of_ipvsadm_lnc() {
    let conn = |expires_seconds, state, client: &str| ConnView {
        protocol: Proto::Tcp,
        expires_seconds,
        state,
        client: at(client),
        vip: at(VIP),
        destination: at(FIRST),
        service: "mysql".to_owned(),
        idle_seconds: 1,
        age_seconds: 1,
        bytes_in: 1,
        bytes_out: 1,
        origin: Origin::Local,
        client_port_at_backend: None,
    };
    let expected = "\
LB connection entries
pro expire state       source             virtual            destination
TCP 481:00 ESTABLISHED 10.80.1.1:40000    10.80.1.243:3306   192.168.80.167:3306
TCP 14:59  SYN_RECV    255.255.255.255:65535 10.80.1.243:3306   192.168.80.167:3306
TCP 00:00  CLOSE       1.2.3.4:5          10.80.1.243:3306   192.168.80.167:3306
";
    let shown = printed(|out| {
        conn_titles(out)?;
        super::conn(out, &conn(28_860, State::Established, "10.80.1.1:40000"))?;
        super::conn(out, &conn(899, State::SynRecv, "255.255.255.255:65535"))?;
        super::conn(out, &conn(0, State::Close, "1.2.3.4:5"))
    });
    assert_eq!(shown, expected);
}

#[test]
fn stats_have_the_columns_of_ipvsadm_stats() {
    let total = Traffic {
        conns: 99_999_999,
        in_packets: 100_000_000,
        out_packets: 1_000_000_000,
        in_bytes: 100_000_000_000,
        out_bytes: 123_456_000_000_000,
    };
    let traffic = Traffic { conns: 2, in_packets: 15, out_packets: 20, in_bytes: 15_000, out_bytes: 20_000 };
    let stats = [StatsView {
        name: "mysql".to_owned(),
        listen: at(VIP),
        protocol: Proto::Tcp,
        total,
        backends: vec![BackendTraffic { address: at(FIRST), traffic }],
    }];
    let expected = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.80.1.243:3306             99999999  100000K    1000M     100G     123T
  -> 192.168.80.167:3306                 2       15       20    15000    20000
";
    assert_eq!(printed(|out| super::stats(out, &status(), &stats, false)), expected);

    let exact = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.80.1.243:3306             99999999 100000000 1000000000 100000000000 123456000000000
  -> 192.168.80.167:3306                 2       15       20    15000    20000
";
    assert_eq!(printed(|out| super::stats(out, &status(), &stats, true)), exact);
}

#[test]
fn rates_have_the_columns_of_ipvsadm_rate() {
    let rate = Rate { cps: 14, in_pps: 1_000, out_pps: 900, in_bps: 64_000, out_bps: 250_000_000 };
    let rates = [RateView {
        name: "mysql".to_owned(),
        listen: at(VIP),
        protocol: Proto::Tcp,
        interval_ms: 1000,
        total: rate,
        backends: vec![BackendRate { address: at(SECOND), rate: Rate::default() }],
    }];
    let expected = "\
LB Virtual Server version 0.1.0 (size=200000)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  10.80.1.243:3306                   14     1000      900    64000  250000K
  -> 192.168.80.136:3306                 0        0        0        0        0
";
    assert_eq!(printed(|out| super::rates(out, &status(), &rates, false)), expected);
}

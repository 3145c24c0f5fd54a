//! The lab itself, without any agent: plain kernel routing from the client through d1 to each server. What the other
//! tests build on must hold here first, and nothing may be left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lb_tests::lab::{
    Lab, LabOptions, Offload, Segment, SysbenchOptions, Transfer, addr, cleanup, peer, prepare_sysbench, wait_for,
};
use mysql::prelude::Queryable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RS1: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 167);
const RS2: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 136);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 1);

fn port(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, addr::MYSQL_PORT)
}

/// A lab whose director routes: it holds the VIPs, so the servers' replies come back through it.
fn routed(options: LabOptions) -> Lab {
    let lab = options.up().unwrap();
    lab.d1().enable_forwarding().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    lab
}

#[test]
fn a_client_reaches_every_server_through_the_director_with_its_own_address() {
    let lab = routed(LabOptions::default());
    let mut ids = BTreeMap::new();
    for server in lab.servers() {
        let mut session = lab.client().connect(port(server.address())).unwrap();
        let peer = peer(&mut session).unwrap();
        assert_eq!(peer.backend, server.address());
        assert_eq!(peer.client_seen, CLIENT);
        ids.insert(peer.server_id, peer.backend);
        let host: Option<String> = session.query_first("SELECT @@hostname").unwrap();
        assert_eq!(host.as_deref(), Some(server.host().name()));

        let sessions = server.processlist().unwrap();
        let clients: Vec<_> = sessions.iter().filter(|session| session.user == addr::USER).collect();
        assert_eq!(clients.len(), 1, "{sessions:?}");
        assert_eq!(clients[0].address, Some(CLIENT));
    }
    assert_eq!(ids, BTreeMap::from([(167, RS1), (136, RS2)]));

    let work = lab.client().many_connections_to(port(RS1), 100, 5, 8).unwrap();
    assert_eq!((work.connections, work.queries, work.failed_connections, work.failed_queries), (100, 500, 0, 0));
    assert_eq!(work.by_backend, BTreeMap::from([(RS1, 100)]));
    assert_eq!(work.client_seen, BTreeSet::from([CLIENT]));
    assert!(work.errors.is_empty(), "{:?}", work.errors);
}

#[test]
fn every_packet_to_a_server_passes_the_director() {
    let lab = routed(LabOptions::default());
    lab.client().connect(port(RS1)).unwrap();

    // Without forwarding there is no other way.
    lab.d1().host().sysctl("ipv4/ip_forward", "0").unwrap();
    let work = lab.client().many_connections_to(port(RS1), 1, 1, 1).unwrap();
    assert_eq!((work.connections, work.failed_connections, work.failed_queries), (0, 1, 1), "{:?}", work.errors);
    assert!(!work.errors.is_empty());
    lab.d1().enable_forwarding().unwrap();
    lab.client().connect(port(RS1)).unwrap();
}

#[test]
fn the_firewall_of_a_director_refuses_what_the_kernel_routes() {
    let lab = routed(LabOptions::default());
    lab.d1().firewall_default_drop().unwrap();
    assert_eq!(lab.d1().firewall_drops().unwrap(), 0);
    assert!(lab.client().connect(port(RS1)).is_err(), "a SYN went through the firewall");
    assert!(lab.d1().firewall_drops().unwrap() > 0);
    lab.client().host().check(&["ping", "-c1", "-W2", &addr::VIP.to_string()]).unwrap();

    lab.d1().firewall_off().unwrap();
    lab.client().connect(port(RS1)).unwrap();
    lab.d1().firewall_off().unwrap();
}

#[test]
fn sixty_four_mebibytes_arrive_intact_in_both_directions_with_and_without_checksum_offload() {
    for offload in [Offload::On, Offload::Off] {
        let lab = routed(LabOptions { offload, ..LabOptions::default() });
        let down = lab.client().download_from(port(RS1), 64).unwrap();
        let up = lab.client().upload_to(port(RS2), 64).unwrap();
        for (transfer, backend) in [(&down, RS1), (&up, RS2)] {
            let Transfer { backend: from, bytes, elapsed, .. } = transfer;
            assert_eq!((*from, *bytes), (backend, 64 << 20));
            println!("offload {offload:?}: {backend} {bytes} bytes in {elapsed:?}");
        }
    }
}

#[test]
fn the_offload_setting_reaches_the_senders_and_the_director_ports_run_napi() {
    for (offload, expected) in [(Offload::On, "tx-checksumming: on"), (Offload::Off, "tx-checksumming: off")] {
        let lab = LabOptions { offload, mariadb: None, ..LabOptions::default() }.up().unwrap();
        for host in [lab.client().host(), lab.servers()[0].host(), lab.servers()[1].host()] {
            let features = host.check(&["ethtool", "-k", "eth0"]).unwrap();
            assert!(features.contains(expected), "{}: {features}", host.name());
        }
        for director_port in ["d1-ext0", "d1-int0"] {
            let features = lab.switch().check(&["ethtool", "-k", director_port]).unwrap();
            assert!(features.contains("generic-receive-offload: on"), "{director_port}: {features}");
        }
    }
}

#[test]
fn sysbench_runs_against_a_server_and_reports_numbers() {
    let lab = routed(LabOptions::default());
    prepare_sysbench(lab.servers(), 1000).unwrap();
    let options = SysbenchOptions { server: port(RS2), threads: 4, seconds: 2, table_size: 1000, ..Default::default() };
    let report = lab.client().sysbench(&options).unwrap();
    assert!(report.completed, "{report:?}");
    assert!(report.queries > 100 && report.fatal.is_empty() && report.latency_max_ms > 0.0, "{report:?}");

    let running = lab.client().start_sysbench(&SysbenchOptions { seconds: 20, ..options }).unwrap();
    wait_for("sysbench's sessions", Duration::from_secs(10), || {
        let sessions = lab.server(RS2)?.processlist()?;
        Ok((sessions.iter().filter(|session| session.user == addr::USER).count() == 4).then_some(()))
    })
    .unwrap();
    lab.server(RS2).unwrap().kill9().unwrap();
    let report = running.wait().unwrap();
    assert!(!report.completed && !report.fatal.is_empty(), "{report:?}");
}

#[test]
fn a_server_stops_starts_freezes_and_dies_on_request() {
    let lab = routed(LabOptions::default());
    let server = lab.server(RS1).unwrap();
    let login = || lab.client().many_connections_to(port(RS1), 1, 1, 1).unwrap().connections;
    assert_eq!(login(), 1);

    server.freeze().unwrap();
    assert_eq!(login(), 0, "a frozen server answered");
    server.thaw().unwrap();
    assert_eq!(login(), 1);

    server.stop().unwrap();
    assert_eq!(login(), 0);
    assert!(server.stop().is_err() && server.pid().is_err());
    server.start().unwrap();
    assert!(server.start().is_err(), "it cannot run twice");
    assert_eq!(login(), 1, "the account is gone after a restart");

    let before = server.pid().unwrap();
    server.kill9().unwrap();
    assert_eq!(login(), 0);
    server.start().unwrap();
    assert_ne!(server.pid().unwrap(), before);
    assert_eq!(login(), 1);
}

#[test]
fn the_vips_move_together_from_one_director_to_the_other_and_traffic_follows() {
    let lab = routed(LabOptions { directors: 2, ..LabOptions::default() });
    let [d1, d2] = lab.directors() else { panic!("two directors") };
    assert_eq!((d1.holds_vips().unwrap(), d2.holds_vips().unwrap()), (true, false));
    let ping = |from: &lb_tests::lab::Host, to: Ipv4Addr| from.check(&["ping", "-c1", "-W2", &to.to_string()]).unwrap();
    ping(lab.client().host(), addr::VIP);
    ping(lab.servers()[0].host(), addr::INTERNAL_VIP);
    ping(d1.host(), d2.address(Segment::Sync).unwrap());

    lab.take_vips(d2).unwrap();
    assert_eq!((d1.holds_vips().unwrap(), d2.holds_vips().unwrap()), (false, true));
    ping(lab.client().host(), addr::VIP);
    ping(lab.servers()[0].host(), addr::INTERNAL_VIP);
    // The servers' way back leads through d2 now, the client's way there still through d1: routing needs both.
    assert_eq!(lab.client().many_connections_to(port(RS1), 1, 1, 1).unwrap().connections, 0);
    d2.enable_forwarding().unwrap();
    lab.client().connect(port(RS1)).unwrap();
}

#[test]
fn nothing_is_left_after_a_lab_even_when_its_user_panics() {
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = routed(LabOptions::default());
        left = Some(Traces::of(lab.id()));
        left.as_ref().unwrap().assert_all_exist();
        panic!("on purpose");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    left.unwrap().assert_none_exist();
}

#[test]
fn two_labs_live_side_by_side_and_one_name_is_one_lab() {
    let options = LabOptions { mariadb: None, ..LabOptions::default() };
    let first = options.up().unwrap();
    let second = options.up().unwrap();
    for lab in [&first, &second] {
        lab.d1().enable_forwarding().unwrap();
        lab.take_vips(lab.d1()).unwrap();
        lab.client().host().check(&["ping", "-c1", "-W2", &RS1.to_string()]).unwrap();
    }
    let same = LabOptions { id: Some(first.id().to_owned()), ..options };
    let error = same.up().unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
    // The refused one must not have touched the living one.
    first.client().host().check(&["ping", "-c1", "-W2", &RS1.to_string()]).unwrap();
    let traces = Traces::of(first.id());
    first.down().unwrap();
    traces.assert_none_exist();
    second.client().host().check(&["ping", "-c1", "-W2", &RS1.to_string()]).unwrap();
}

/// The test starts itself once more as the owner of a lab, in a process that can be killed.
#[test]
fn a_lab_whose_owner_was_killed_dies_with_it_and_down_removes_the_rest() {
    const OWNER: &str = "LB_TEST_OWN_LAB";
    if let Ok(id) = std::env::var(OWNER) {
        let lab = LabOptions { id: Some(id), ..LabOptions::default() }.up().unwrap();
        fs::write(lab.directory().join("ready"), "").unwrap();
        thread::sleep(Duration::from_secs(60));
        return;
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let id = format!("victim{}", std::process::id());
        let owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", thread::current().name().unwrap()])
            .env(OWNER, &id)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut victim = Victim { id: id.clone(), owner };
        let ready = std::env::temp_dir().join(format!("lb-lab-{id}/ready"));
        wait_for("the other lab", Duration::from_secs(60), || Ok(fs::exists(&ready)?.then_some(()))).unwrap();
        let traces = Traces::of(&id);
        traces.assert_all_exist();

        kill(Pid::from_raw(victim.owner.id().cast_signed()), signal).unwrap();
        let status = victim.owner.wait().unwrap();
        if signal == Signal::SIGTERM {
            assert_eq!(status.code(), Some(130), "the handler removes everything, then exits");
        } else {
            wait_for("the end of its processes", Duration::from_secs(10), || {
                Ok(traces.processes.iter().all(|pid| !is_running(*pid)).then_some(()))
            })
            .unwrap();
            assert!(Path::new(&traces.record).exists());
            assert_eq!(cleanup::remove_unowned(Some(&id)).unwrap(), [id]);
        }
        traces.assert_none_exist();
    }
}

/// Ends the other process and its lab when the test fails in between.
struct Victim {
    id: String,
    owner: Child,
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.owner.kill();
        let _ = self.owner.wait();
        let _ = cleanup::remove_unowned(Some(&self.id));
    }
}

/// What a lab leaves on the machine while it lives.
struct Traces {
    record: String,
    namespaces: Vec<String>,
    processes: Vec<u32>,
    directory: String,
}

impl Traces {
    fn of(id: &str) -> Self {
        let record = format!("/run/lb-lab/{id}.json");
        let state: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        let list = |key: &str| state[key].as_array().unwrap().clone();
        assert_eq!(state["id"], id);
        Self {
            record,
            namespaces: list("namespaces").iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            processes: list("processes").iter().map(|process| process["pid"].as_u64().unwrap() as u32).collect(),
            directory: state["directory"].as_str().unwrap().to_owned(),
        }
    }

    fn present(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut present = Vec::new();
        for name in &self.namespaces {
            let path = format!("/run/netns/{name}");
            present.extend(Path::new(&path).exists().then(|| path.clone()));
            present.extend(mounts.contains(&format!(" {path} ")).then(|| format!("mount on {path}")));
        }
        present.extend(self.processes.iter().filter(|pid| is_running(**pid)).map(|pid| format!("process {pid}")));
        let files = [&self.record, &self.directory];
        present.extend(files.into_iter().filter(|path| Path::new(path).exists()).cloned());
        present
    }

    fn assert_all_exist(&self) {
        let expected = 2 * self.namespaces.len() + self.processes.len() + 2;
        assert_eq!(self.namespaces.len(), 5);
        assert_eq!(self.processes.len(), 2, "a mariadbd per server");
        assert_eq!(self.present().len(), expected, "{:?}", self.present());
    }

    fn assert_none_exist(&self) {
        assert_eq!(self.present(), Vec::<String>::new());
    }
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

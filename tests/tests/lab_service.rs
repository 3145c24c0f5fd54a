//! The agent as a service: what it tells systemd, and whether systemd takes its unit file.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lb_tests::lab::{LabOptions, binary, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn systemd_accepts_the_unit_file() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/dist/lb-agent.service"));
    // It names the place where a package puts the agent.
    let agent = binary("lb-agent").unwrap().display().to_string();
    let unit = unit.unwrap().replace("/usr/sbin/lb-agent", &agent);
    assert!(unit.contains(&agent));
    let directory = tempfile::tempdir().unwrap();
    let verify = |unit: &str| {
        let path = directory.path().join("lb-agent.service");
        fs::write(&path, unit).unwrap();
        let done = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (accepted, said) = verify(&unit);
    // What it says of other units of the machine does not matter.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("lb-agent")).collect();
    assert!(accepted && ours.is_empty(), "{said}");
    let (_, said) = verify(&unit.replace("Type=notify", "Type=notfy"));
    assert!(said.contains("notfy"), "a mistake is not seen: {said}");
}

#[test]
fn systemd_hears_that_the_agent_is_ready_and_alive_and_stopping_and_nothing_while_it_is_stuck() {
    let options = LabOptions { directors: 1, clients: 0, servers: 1, mariadb: None, ..LabOptions::default() };
    let lab = options.up().unwrap();
    let d1 = lab.d1();
    let extra = "[vrrp]\n[[vip]]\naddress = \"10.80.1.243/24\"\ninterface = \"ext0\"\nvrid = 52\n\
                 [director.d1]\npriority = 100";
    let mut agent = lab.agent_options();
    extra.clone_into(&mut agent.extra);
    let config = d1.write_config(&agent).unwrap();
    let address = d1.host().directory().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let log = d1.host().directory().join("service.log");
    let hear = |wanted: &str| {
        wait_for(wanted, LIMIT, || Ok(std::iter::from_fn(next).find(|text| text.contains(wanted))))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", fs::read_to_string(&log).unwrap_or_default()))
    };

    let mut command = Command::new(binary("lb-agent").unwrap());
    command.args(["run", "--config"]).arg(&config);
    command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "600000");
    let mut running = d1.host().spawn("service", command).unwrap();
    assert!(hear("READY=1").contains("STATUS=Backup"));
    hear("STATUS=Active");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }

    running.signal(Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    while next().is_some() {}
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(next(), None, "whoever is stuck gives no sign of life");
    running.signal(Signal::SIGCONT).unwrap();
    hear("WATCHDOG=1");

    running.signal(Signal::SIGTERM).unwrap();
    hear("STOPPING=1");
    let ended = wait_for("the end", LIMIT, || running.try_wait()).unwrap();
    assert!(ended.success(), "{ended}");
    d1.unload(&config).unwrap();
}

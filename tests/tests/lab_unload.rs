//! Stopping the agent leaves the packet path at work; taking it off is a command of its own, and leaves nothing.

use lb_tests::checks::{Sessions, Setting, both_ways, exact_shares};
use lb_tests::lab::{LabOptions, Offload, VrrpOptions};

fn stays_until_it_is_unloaded(mode: &str, offload: Offload, hooks: usize) {
    let setting = Setting::of(mode, offload);
    let lab = setting.lab().unwrap();
    let d1 = lab.d1();
    assert!(d1.hooked().unwrap().is_empty());
    let config = d1.write_config(&setting.agent(&lab)).unwrap();
    d1.start_agent(&setting.agent(&lab)).unwrap();
    let attached = d1.hooked().unwrap();
    assert_eq!(attached.len(), hooks, "{attached:?}");
    let links = d1.links().unwrap();
    let mut sessions = Sessions::open(&lab, 4).unwrap();

    // SIGTERM: a clean end, the socket gone, everything else as it was.
    assert!(d1.stop_agent().unwrap().success());
    assert!(!d1.control_socket().exists(), "the control socket is still there");
    assert_eq!((d1.hooked().unwrap(), d1.links().unwrap()), (attached, links));
    sessions.answer().unwrap();
    let work = lab.client().many_connections(100, 3, 4).unwrap();
    exact_shares(&work, lab.client().address(), &setting.shares(&lab)).unwrap();
    both_ways(&lab, 4).unwrap();

    let said = d1.unload(&config).unwrap();
    assert!(said.contains("ext0") && said.contains("int0"), "it tells what it took off: {said}");
    assert_eq!(d1.hooked().unwrap(), Vec::<String>::new());
    assert!(d1.pinned().unwrap().is_empty() && !d1.pin_directory().exists(), "{:?}", d1.pinned().unwrap());
    assert!(sessions.answer().is_err(), "a session goes on without a packet path");
    assert_eq!(lab.client().many_connections(1, 1, 1).unwrap().connections, 0);

    // Nothing to take off is fine, and a fresh start finds a clean host.
    d1.unload(&config).unwrap();
    d1.restart_agent().unwrap();
    let work = lab.client().many_connections(20, 3, 4).unwrap();
    exact_shares(&work, lab.client().address(), &setting.shares(&lab)).unwrap();
}

#[test]
fn the_packet_path_works_without_the_agent_until_it_is_unloaded_tc() {
    stays_until_it_is_unloaded("tc", Offload::On, 2);
}

#[test]
fn the_packet_path_works_without_the_agent_until_it_is_unloaded_xdp() {
    stays_until_it_is_unloaded("xdp", Offload::Off, 4);
}

#[test]
fn a_running_agent_keeps_its_packet_path_from_being_unloaded() {
    let setting = Setting::default();
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let (attached, config) = (d1.hooked().unwrap(), d1.write_config(&setting.agent(&lab)).unwrap());
    let output = d1.agent_once(&[], &["unload", "--config", config.to_str().unwrap()]).unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process uses"), "{said}");
    assert_eq!(d1.hooked().unwrap(), attached);
    let work = lab.client().many_connections(20, 3, 4).unwrap();
    exact_shares(&work, lab.client().address(), &setting.shares(&lab)).unwrap();
}

#[test]
fn an_agent_that_is_asked_to_takes_its_packet_path_along() {
    let lab = LabOptions { directors: 2, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let d1 = lab.d1();
    let alone = lab.agent_options().mode("tc");
    // The election and the sync use the packet path, too.
    let paired = alone.clone().vrrp(&VrrpOptions::fast()).sync(lab.sync_options().unwrap());
    let until_stopped = ["timeout", "--preserve-status", "--signal=TERM", "3"];
    let alone = |asked| ("alone", &alone, asked);
    for ((what, options, asked), left) in
        [(alone(None), 2), (alone(Some("--detach")), 0), (("of a pair", &paired, Some("--detach")), 0)]
    {
        let config = d1.write_config(options).unwrap();
        let arguments = ["run", "--config", config.to_str().unwrap(), "--node", "d1"];
        let arguments: Vec<_> = arguments.into_iter().chain(asked).collect();
        println!("{what}: {asked:?}");
        let output = d1.agent_once(&until_stopped, &arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(d1.hooked().unwrap().len(), left, "{arguments:?}");
        assert_eq!(d1.pinned().unwrap().is_empty(), left == 0, "{arguments:?}");
    }
}

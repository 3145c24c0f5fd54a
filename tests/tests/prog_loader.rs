//! Start, restart, failure and unload of the packet path, with the real object and the real kernel.

use std::thread;

use lb_common::conn::FlowKey;
use lb_tests::sandbox::{conn, object, run, sandbox, service};
use lb_userspace::datapath::{self, Datapath, Error, Hook, Mode};
use serde_json::Value;

/// The id of the XDP program that the kernel names for an interface.
fn xdp_program(interface: &str) -> Option<u32> {
    let text = run(&format!("ip -d link show dev {interface}"));
    let (_, rest) = text.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The ids of the programs at the TC ingress of an interface: at TCX, or at clsact where the kernel has no TCX.
fn tc_programs(interface: &str) -> Vec<u32> {
    use aya::programs::{SchedClassifier, TcAttachType};
    if let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        return programs.iter().map(|program| program.id()).collect();
    }
    let shown: Value = serde_json::from_str(&run("bpftool -j net show")).unwrap();
    let ingress = |entry: &&Value| entry["devname"] == interface && entry["kind"] == "clsact/ingress";
    let id = |entry: &Value| entry["id"].as_u64().unwrap() as u32;
    shown[0]["tc"].as_array().unwrap().iter().filter(ingress).map(id).collect()
}

#[test]
fn a_restart_adopts_links_and_conns_and_replaces_the_programs() {
    sandbox(|sandbox| {
        let first = sandbox.open(&[("va", Mode::Xdp), ("vb", Mode::Tc)]).unwrap();
        assert!(first.report().adopted_maps.is_empty() && first.report().notes.is_empty());
        let before = first.report().interfaces.clone();
        assert_eq!(before[0].hook, Hook::XdpNative);
        assert_eq!(before[0].links.iter().map(|link| link.hook).collect::<Vec<_>>(), [Hook::XdpNative, Hook::Tc]);
        assert_eq!((before[1].hook, before[1].links.len()), (Hook::Tc, 1));
        let (plan, ids) = first.apply(&[service()]).unwrap();
        assert!(!plan.is_empty());
        assert_eq!(ids.backends, [[0]]);
        let [forward, reverse] = conn(40_000);
        first.tables().conns.insert_many(&[forward, reverse]).unwrap();
        let generation = first.tables().control.get(0).unwrap().hop_gen;

        // As after kill -9: nothing but the descriptors goes.
        drop(first);
        assert_eq!(xdp_program("va"), Some(before[0].links[0].program_id), "still attached without an agent");

        let second = sandbox.open(&[("va", Mode::Xdp), ("vb", Mode::Tc)]).unwrap();
        assert_eq!(second.report().adopted_maps, lb_common::abi::map::ALL);
        for (old, new) in before.iter().zip(&second.report().interfaces) {
            for (old, new) in old.links.iter().zip(&new.links) {
                assert_eq!(old.link_id, new.link_id, "{new:?}");
                assert_ne!(old.program_id, new.program_id, "{new:?}");
                assert!(new.adopted);
            }
        }
        assert_eq!(xdp_program("va"), Some(second.report().interfaces[0].links[0].program_id));
        assert_eq!(tc_programs("vb"), [second.report().interfaces[1].links[0].program_id]);
        assert_eq!(second.tables().conns.get(&forward.0).unwrap(), Some(forward.1));
        assert_eq!(second.tables().conns.get(&reverse.0).unwrap(), Some(reverse.1));
        assert!(second.apply(&[service()]).unwrap().0.is_empty(), "the same config changes nothing");
        assert!(second.tables().control.get(0).unwrap().hop_gen > generation, "next hops are looked up again");
    });
}

#[test]
fn a_partial_set_of_pins_is_completed() {
    sandbox(|sandbox| {
        drop(sandbox.open(&[("va", Mode::Xdp)]).unwrap());
        let all = sandbox.pinned();
        for name in ["half_open", "stats", "link_va_tc"] {
            std::fs::remove_file(sandbox.pins().join(name)).unwrap();
        }
        let again = sandbox.open(&[("va", Mode::Xdp)]).unwrap();
        assert_eq!(again.report().adopted_maps.len(), lb_common::abi::map::ALL.len() - 2);
        assert_eq!(again.report().interfaces[0].links.iter().map(|l| l.adopted).collect::<Vec<_>>(), [true, false]);
        assert_eq!(sandbox.pinned(), all);
    });
}

#[test]
fn a_pin_of_another_shape_is_refused_and_left_alone() {
    sandbox(|sandbox| {
        std::fs::create_dir_all(sandbox.pins()).unwrap();
        let pin = sandbox.pins().join("conns");
        run(&format!("bpftool map create {} type hash key 16 value 56 entries 10 name conns", pin.display()));
        let error = sandbox.refuse(&[("va", Mode::Tc)]);
        assert!(matches!(&error, Error::PinMismatch { path, .. } if *path == pin), "{error}");
        let text = error.to_string();
        assert!(text.contains("value size 56 instead of 64") && text.contains("lb-agent unload"), "{text}");
        assert_eq!(sandbox.pinned(), ["conns"]);
        assert!(tc_programs("va").is_empty());
    });
}

#[test]
fn pinned_maps_keep_their_size_and_the_operator_is_told() {
    sandbox(|sandbox| {
        drop(sandbox.open(&[("va", Mode::Tc)]).unwrap());
        let mut settings = sandbox.settings(&[("va", Mode::Tc)]);
        settings.tables.conns = 50_000;
        let second = Datapath::open(&object(), &settings).unwrap();
        assert_eq!(second.tables().conns.capacity(), 40_000);
        let notes = &second.report().notes;
        assert!(notes.len() == 1 && notes[0].contains("conns keeps its 40000"), "{notes:?}");
    });
}

#[test]
fn an_unknown_interface_is_named_together_with_those_that_exist() {
    sandbox(|sandbox| {
        let error = sandbox.refuse(&[("va", Mode::Tc), ("eth9", Mode::Auto)]);
        let Error::NoInterface { name, mut known } = error else { panic!("{error}") };
        known.sort();
        assert_eq!((name.as_str(), known), ("eth9", vec!["lo".to_owned(), "va".to_owned(), "vb".to_owned()]));
        assert!(!sandbox.root().exists(), "nothing was made");
    });
}

#[test]
fn an_occupied_xdp_hook_is_refused_with_the_id_of_the_program() {
    sandbox(|sandbox| {
        let mut other = aya::Ebpf::load(&object()).unwrap();
        let program: &mut aya::programs::Xdp = other.program_mut("lb_xdp_pass").unwrap().try_into().unwrap();
        program.load().unwrap();
        program.attach("va", aya::programs::xdp::XdpMode::Driver).unwrap();
        let id = program.info().unwrap().id();

        let error = sandbox.refuse(&[("vb", Mode::Tc), ("va", Mode::Xdp)]);
        assert!(matches!(&error, Error::XdpBusy { program, .. } if *program == Some(id)), "{error}");
        assert!(error.to_string().contains(&format!("bpftool prog show id {id}")), "{error}");
        // The start had attached to vb, and to the TC hook of va.
        assert_eq!((tc_programs("va"), tc_programs("vb")), (vec![], vec![]));
        assert_eq!(xdp_program("va"), Some(id), "the other program stays");
        assert!(!sandbox.root().exists());
    });
}

#[test]
fn a_failed_restart_leaves_the_old_program_running() {
    sandbox(|sandbox| {
        let first = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let running = first.report().interfaces[0].links[0].program_id;
        drop(first);
        let before = sandbox.pinned();
        // The loopback driver has no native XDP.
        let error = sandbox.refuse(&[("va", Mode::Tc), ("lo", Mode::Xdp)]);
        assert!(matches!(&error, Error::Attach { interface, .. } if interface == "lo"), "{error}");
        assert_eq!(tc_programs("va"), [running]);
        assert_eq!((tc_programs("lo"), sandbox.pinned()), (vec![], before));
    });
}

#[test]
fn the_link_of_an_interface_that_was_made_anew_is_replaced() {
    sandbox(|sandbox| {
        let first = sandbox.open(&[("va", Mode::Xdp)]).unwrap();
        let old = first.report().interfaces[0].clone();
        drop(first);
        run("ip link del va");
        run("ip link add va type veth peer name vb");
        let second = sandbox.open(&[("va", Mode::Xdp)]).unwrap();
        let new = &second.report().interfaces[0];
        assert_ne!(old.ifindex, new.ifindex);
        assert!(new.links.iter().all(|link| !link.adopted));
        assert_eq!(xdp_program("va"), Some(new.links[0].program_id));
        assert_eq!(tc_programs("va"), [new.links[1].program_id]);
    });
}

#[test]
fn a_changed_mode_or_list_of_interfaces_takes_links_off() {
    sandbox(|sandbox| {
        let first = sandbox.open(&[("va", Mode::Xdp), ("vb", Mode::Tc)]).unwrap();
        let tc = first.report().interfaces[0].links[1].link_id;
        drop(first);
        let second = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        assert_eq!(second.report().interfaces[0].links[0].link_id, tc);
        assert_eq!((xdp_program("va"), tc_programs("vb")), (None, vec![]));
        let notes = second.report().notes.join("; ");
        assert!(notes.contains("detached from va (xdp)") && notes.contains("detached from vb (tc)"), "{notes}");
        drop(second);
        let third = sandbox.open(&[("va", Mode::XdpGeneric)]).unwrap();
        assert_eq!(third.report().interfaces[0].hook, Hook::XdpGeneric);
        drop(third);
        let fourth = sandbox.open(&[("va", Mode::Xdp)]).unwrap();
        assert_eq!(fourth.report().interfaces[0].hook, Hook::XdpNative);
        assert!(!fourth.report().interfaces[0].links[0].adopted);
    });
}

#[test]
fn auto_takes_tc_on_a_veth_and_says_why() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Auto)]).unwrap();
        let status = &datapath.report().interfaces[0];
        assert_eq!(status.hook, Hook::Tc);
        assert!(status.why.starts_with("veth"), "{}", status.why);
    });
}

#[test]
fn interfaces_with_dots_in_their_names_can_be_pinned() {
    sandbox(|sandbox| {
        run("ip link add va.100 type veth peer name vc");
        let first = sandbox.open(&[("va.100", Mode::Tc)]).unwrap();
        let id = first.report().interfaces[0].links[0].link_id;
        drop(first);
        let second = sandbox.open(&[("va.100", Mode::Tc)]).unwrap();
        assert_eq!(second.report().interfaces[0].links[0].link_id, id);
    });
}

#[test]
fn only_one_agent_uses_a_pin_directory() {
    sandbox(|sandbox| {
        let first = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        assert!(matches!(sandbox.refuse(&[("va", Mode::Tc)]), Error::Locked { .. }));
        assert!(matches!(datapath::unload(&sandbox.root()), Err(Error::Locked { .. })));
        drop(first);
        drop(sandbox.open(&[("va", Mode::Tc)]).unwrap());
    });
}

#[test]
fn unload_leaves_nothing_behind() {
    sandbox(|sandbox| {
        drop(sandbox.open(&[("va", Mode::Xdp), ("vb", Mode::Tc)]).unwrap());
        let done = datapath::unload(&sandbox.root()).unwrap();
        assert!(done.iter().any(|line| line.contains("detached from va (xdp)")), "{done:?}");
        assert_eq!((xdp_program("va"), tc_programs("va"), tc_programs("vb")), (None, vec![], vec![]));
        assert!(!sandbox.root().exists());
        assert_eq!(datapath::unload(&sandbox.root()).unwrap(), Vec::<String>::new(), "a second time there is nothing");

        sandbox.open(&[("va", Mode::Xdp)]).unwrap().detach().unwrap();
        assert_eq!((xdp_program("va"), tc_programs("va")), (None, vec![]));
        assert!(!sandbox.pins().exists());
    });
}

#[test]
fn without_a_bpf_file_system_the_message_tells_how_to_mount_it() {
    sandbox(|sandbox| {
        nix::mount::umount(&sandbox.bpffs).unwrap();
        let text = sandbox.refuse(&[("va", Mode::Tc)]).to_string();
        assert!(text.contains(&format!("mount -t bpf bpf {}", sandbox.bpffs.display())), "{text}");
        assert!(!sandbox.root().exists());
    });
}

#[test]
fn a_missing_capability_is_named() {
    sandbox(|sandbox| {
        drop_capabilities(&[21, 39]);
        let error = sandbox.refuse(&[("va", Mode::Tc)]);
        assert!(matches!(&error, Error::Capabilities { missing } if missing == &["CAP_BPF"]), "{error}");
    });
}

/// Takes capabilities out of the calling thread's effective set.
fn drop_capabilities(numbers: &[u32]) {
    // struct __user_cap_header_struct of version 3, and two struct __user_cap_data_struct.
    let header = [0x2008_0522_u32, 0];
    let mut data = [0_u32; 6];
    // SAFETY: the kernel writes two structures of three words each.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) }, 0);
    for number in numbers {
        data[(*number as usize / 32) * 3] &= !(1 << (number % 32));
    }
    // SAFETY: as above; the kernel only reads.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }, 0);
}

#[test]
fn large_tables_are_read_and_changed_in_slices() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let conns = &datapath.tables().conns;
        let entries: Vec<_> = (10_000..25_000).flat_map(conn).collect();
        assert_eq!(conns.insert_many(&entries).unwrap(), entries.len());
        let mut found = Vec::new();
        conns.for_each_slice(|slice| found.extend_from_slice(slice)).unwrap();
        found.sort_by_key(|entry| entry.0);
        let mut expected = entries.clone();
        expected.sort_by_key(|entry| entry.0);
        assert!(found == expected, "{} entries of {}", found.len(), expected.len());

        // Every other key is missing: a batch stops at each of them and goes on.
        let mut keys: Vec<FlowKey> = entries.iter().map(|entry| entry.0).collect();
        keys.iter_mut().skip(1).step_by(2).for_each(|key| key.reserved1 = 1);
        assert_eq!(conns.remove_many(&keys).unwrap(), entries.len() / 2);

        let many: Vec<_> = (1_024..65_000).flat_map(conn).collect();
        let error = conns.insert_many(&many).unwrap_err();
        assert!(matches!(error, Error::Full { map: "conns", capacity: 40_000 }), "{error}");
    });
}

#[test]
fn the_clock_runs_at_a_known_rate() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let first = datapath.clock().unwrap();
        thread::sleep(std::time::Duration::from_millis(100));
        let second = datapath.clock().unwrap();
        assert_eq!(datapath::clock::rate(first, second), Some(datapath.ticks().hz));
    });
}

#[test]
fn bytes_that_are_no_value_are_an_error_with_map_and_key() {
    sandbox(|sandbox| {
        let datapath = sandbox.open(&[("va", Mode::Tc)]).unwrap();
        let map = aya::maps::MapData::from_pin(sandbox.pins().join("backends")).unwrap();
        let mut raw: aya::maps::Array<_, [u8; 16]> = aya::maps::Map::Array(map).try_into().unwrap();
        raw.set(3, [9; 16], 0).unwrap();
        let text = datapath.tables().backends.get(3).unwrap_err().to_string();
        assert!(text.contains("map backends, entry 3") && text.contains("byte 10 is 9"), "{text}");
        assert!(datapath.tables().backends.all().is_err());
    });
}

#[test]
fn the_handle_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Datapath>();
}

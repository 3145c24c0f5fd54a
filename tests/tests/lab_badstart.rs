//! A start that cannot work: a message that names the cause and the remedy, an exit code, and nothing left behind. Not on
//! the interfaces, not pinned, and no socket; also when the cause shows only half way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lb_tests::checks::{Setting, exact_shares};
use lb_tests::lab::{Director, Lab, LabOptions, LinkFacts, Offload, binary};

/// A lab without servers: the agent does not get that far.
fn lab() -> Lab {
    let lab = LabOptions { mariadb: None, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    lab
}

/// The configuration of the lab, changed by `edit`, in a file of its own.
fn config(lab: &Lab, mode: &str, edit: impl FnOnce(String) -> String) -> PathBuf {
    let path = lab.d1().write_config(&lab.agent_options().mode(mode)).unwrap();
    let text = edit(fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    path
}

/// Everything on a director that a start could change.
#[derive(Debug, PartialEq)]
struct Traces {
    hooked: Vec<String>,
    pinned: Vec<PathBuf>,
    /// Somebody listens on the control socket.
    answered: bool,
    /// Links and programs by their ids.
    links: BTreeMap<String, LinkFacts>,
}

fn traces(d1: &Director) -> Traces {
    Traces {
        hooked: d1.hooked().unwrap(),
        pinned: d1.pinned().unwrap().into_iter().collect(),
        answered: UnixStream::connect(d1.control_socket()).is_ok(),
        links: d1.links().unwrap(),
    }
}

fn run(d1: &Director, wrapper: &[&str], config: &Path) -> Output {
    d1.agent_once(wrapper, &["run", "--config", config.to_str().unwrap()]).unwrap()
}

/// The start fails by itself, says every one of `words`, and leaves everything as it was.
fn fails(d1: &Director, wrapper: &[&str], config: &Path, words: &[&str]) {
    let before = traces(d1);
    let output = run(d1, wrapper, config);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(code.is_some_and(|code| code != 0 && code != 124), "{code:?}: it did not end by itself:\n{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(traces(d1), before, "something was left behind after:\n{said}");
}

fn is_clean(d1: &Director) -> bool {
    let Traces { hooked, pinned, answered, links } = traces(d1);
    let file = d1.control_socket().exists();
    hooked.is_empty() && pinned.is_empty() && links.is_empty() && !answered && !file
}

#[test]
fn an_unknown_interface_is_named_with_those_that_exist() {
    let lab = lab();
    let d1 = lab.d1();
    // The second interface is the missing one, so the first could be attached already.
    for (known, unknown) in [("ext0", "eth9"), ("int0", "eth9")] {
        for mode in ["tc", "xdp"] {
            let config = config(&lab, mode, |text| text.replace(known, unknown));
            fails(d1, &[], &config, &["interface \"eth9\" does not exist", "ext0, int0"]);
            assert!(is_clean(d1));
        }
    }
    // The control: without the mistake it starts.
    d1.start_agent(&lab.agent_options().mode("tc")).unwrap();
    assert!(!is_clean(d1));
}

#[test]
fn a_missing_bpf_file_system_comes_with_the_command_that_mounts_it() {
    let lab = lab();
    let without = ["unshare", "--mount", "sh", "-c", "umount --lazy /sys/fs/bpf && exec \"$0\" \"$@\""];
    fails(
        lab.d1(),
        &without,
        &config(&lab, "tc", |text| text),
        &["not on a BPF file system", "mount -t bpf bpf /sys/fs/bpf"],
    );
    assert!(is_clean(lab.d1()));
}

#[test]
fn a_missing_capability_is_named() {
    let lab = lab();
    let config = config(&lab, "tc", |text| text);
    // CAP_SYS_ADMIN stands for the newer ones, so it goes too.
    for (dropped, words) in [
        ("-bpf,-sys_admin", &["missing CAP_BPF"][..]),
        ("-perfmon,-sys_admin", &["missing CAP_PERFMON"]),
        ("-net_admin", &["missing CAP_NET_ADMIN"]),
        ("-all", &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
    ] {
        fails(lab.d1(), &["setpriv", &format!("--bounding-set={dropped}")], &config, words);
        assert!(is_clean(lab.d1()));
    }
}

#[test]
fn a_control_socket_that_somebody_listens_on_is_left_to_him() {
    let lab = lab();
    let d1 = lab.d1();
    let config = config(&lab, "tc", |text| text);
    let listener = UnixListener::bind(d1.control_socket()).unwrap();
    fails(d1, &[], &config, &[d1.control_socket().to_str().unwrap()]);
    assert!(d1.hooked().unwrap().is_empty() && d1.pinned().unwrap().is_empty());

    // A socket file without a listener is what a killed agent leaves: no reason to fail.
    drop(listener);
    assert!(d1.control_socket().exists());
    d1.start_agent(&lab.agent_options().mode("tc")).unwrap();
    assert!(d1.ctl_text(&["status"]).is_ok());
}

#[test]
fn a_second_agent_on_the_same_director_does_not_touch_the_first() {
    let setting = Setting::of("xdp", Offload::Off);
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let links = d1.links().unwrap();

    // The same socket, then only the same pins, then only the same interfaces.
    fails(d1, &[], &config(&lab, "xdp", |text| text), &[d1.control_socket().to_str().unwrap()]);
    let config_of_pins = config(&lab, "xdp", |text| own(text, "control_socket", &other_socket(d1)));
    fails(d1, &[], &config_of_pins, &["another process uses", "pin_dir"]);
    let config_of_hooks =
        config(&lab, "xdp", |text| own(own(text, "control_socket", &other_socket(d1)), "pin_dir", &other_pins(d1)));
    fails(d1, &[], &config_of_hooks, &["ext0 already runs", "bpftool prog show id", "mode = \"tc\""]);
    assert!(!Path::new(&other_socket(d1)).exists());

    assert_eq!(d1.links().unwrap(), links);
    let work = lab.client().many_connections(20, 3, 4).unwrap();
    exact_shares(&work, lab.client().address(), &setting.shares(&lab)).unwrap();
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_where_it_is_broken() {
    let lab = lab();
    let d1 = lab.d1();
    let cases: [(&str, &str, &[&str]); 4] = [
        ("scheduler = \"rr\"", "scheduler = \"rrr\"", &["agent.toml:", "rrr", "wrr"]),
        ("schema_version = 1", "schema_version = 1\nshema = 2", &["agent.toml:2:1", "shema"]),
        ("weight = 1", "weight = -1", &["agent.toml:", "-1"]),
        ("[[service]]", "[[service]", &["agent.toml:"]),
    ];
    for (right, wrong, words) in cases {
        let config = config(&lab, "tc", |text| text.replacen(right, wrong, 1));
        fails(d1, &[], &config, &[words, &["nothing was changed"]].concat());
        assert!(is_clean(d1));
    }
    fails(d1, &[], Path::new("/nonexistent/lb.toml"), &["/nonexistent/lb.toml"]);

    // A running agent that is killed and meets the broken file leaves the packet path of before.
    d1.start_agent(&lab.agent_options().mode("tc")).unwrap();
    let links = d1.links().unwrap();
    d1.kill_agent().unwrap();
    fails(d1, &[], &config(&lab, "tc", |text| text.replace("\"rr\"", "\"rrr\"")), &["nothing was changed"]);
    assert_eq!(d1.links().unwrap(), links);
}

/// The first interface is taken over and gets a link more, then the second refuses: XDP takes one program only.
#[test]
fn a_start_that_fails_half_way_gives_back_the_packet_path_of_before() {
    let setting = Setting::of("tc", Offload::Off);
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    d1.kill_agent().unwrap();

    // A foreign program on int0: that of another agent, which leaves it when it stops.
    let other = config(&lab, "xdp", |text| {
        let own = own(own(text, "control_socket", &other_socket(d1)), "pin_dir", &other_pins(d1));
        own.replace("[[interface]]\nname = \"ext0\"\nmode = \"xdp\"\n", "")
    });
    let output = run(d1, &["timeout", "--signal=TERM", "3"], &other);
    assert_eq!(output.status.code(), Some(124), "it ran until it was stopped: {output:?}");
    assert!(d1.hooked().unwrap().iter().any(|hook| hook.starts_with("int0 xdp")), "{:?}", d1.hooked().unwrap());
    fs::remove_file(&other).unwrap();

    fails(d1, &[], &config(&lab, "xdp", |text| text), &["int0 already runs", "bpftool prog show id"]);
    let work = lab.client().many_connections(20, 3, 4).unwrap();
    exact_shares(&work, lab.client().address(), &setting.shares(&lab)).unwrap();
}

/// Gives a setting of the `[agent]` section another value.
fn own(text: String, what: &str, value: &str) -> String {
    let start = text.find(&format!("{what} = ")).unwrap();
    let end = start + text[start..].find('\n').unwrap();
    format!("{}{what} = {value:?}{}", &text[..start], &text[end..])
}

/// A control socket that is not that of the director's agent.
fn other_socket(d1: &Director) -> String {
    d1.host().directory().join("other.sock").display().to_string()
}

/// Pins that are not those of the director's agent, and go with the lab.
fn other_pins(d1: &Director) -> String {
    d1.pin_directory().join("other").display().to_string()
}

/// Commands of bpf(2), `enum bpf_cmd` of `linux/bpf.h`.
const BPF_MAP_CREATE: u32 = 0;
const BPF_PROG_LOAD: u32 = 5;
const BPF_LINK_CREATE: u32 = 28;

/// Makes the kernel refuse these commands of bpf(2) to the command and its children, as one built without them does:
/// a seccomp filter (`Documentation/userspace-api/seccomp_filter.rst`) answers with `errno`.
fn without(command: &mut Command, commands: &[u32], errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let count = commands.len() as u8;
    // The number of the call, then the low word of its first argument, in `struct seccomp_data`.
    let mut filter = vec![step(LOAD, 0, 0, 0), step(EQUAL, 0, count + 1, libc::SYS_bpf as u32), step(LOAD, 0, 0, 16)];
    filter.extend((0..count).zip(commands).map(|(at, &cmd)| step(EQUAL, count - at, 0, cmd)));
    filter.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is valid for the call, which copies it; nothing is allocated between fork and exec.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if refused == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: `install` makes two system calls.
    unsafe { command.pre_exec(install) };
}

#[test]
fn a_kernel_without_a_feature_is_refused_and_nothing_stays() {
    let lab = lab();
    let d1 = lab.d1();
    let config = config(&lab, "xdp", |text| text);
    for (what, commands, errno, words) in [
        ("bpf(2)", &[BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_LINK_CREATE][..], libc::ENOSYS, &["bpf(2)", "6.1"][..]),
        ("programs of these types", &[BPF_PROG_LOAD], libc::EINVAL, &["load the program"]),
        ("BPF links at these hooks", &[BPF_LINK_CREATE], libc::EINVAL, &["ext0", "attach"]),
    ] {
        let mut command = d1.host().command("timeout").unwrap();
        command.args(["-k", "2", "10"]).arg(binary("lb-agent").unwrap()).args(["run", "--config"]).arg(&config);
        without(&mut command, commands, errno);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("without {what}:\n{said}");
        assert_eq!(output.status.code(), Some(1), "without {what}: {said}");
        for word in words {
            assert!(said.to_lowercase().contains(word), "without {what}: `{word}` is not in:\n{said}");
        }
        assert!(!said.contains("panicked"), "{said}");
        assert!(is_clean(d1), "without {what}, something stays after:\n{said}");
    }
}

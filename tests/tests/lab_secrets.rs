//! No secret leaves the file that it is in: the check user's password, the password of VRRP 2, the key of the sync. A pair
//! that logs everything, has everything asked, and is given configs with secrets in every wrong place.

use std::{
    fs,
    net::SocketAddrV4,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_tests::{
    checks::Pair,
    health,
    lab::{AgentOptions, Director, LabOptions, SyncOptions, VrrpOptions, addr, binary, wait_for},
};
use lb_userspace::control::protocol::{Status, SyncView};
use mysql::prelude::Queryable as _;

const LIMIT: Duration = Duration::from_secs(30);
/// As long as VRRP carries, and nothing that stands anywhere by chance.
const AUTH: &str = "vR7-pW5x";
const OTHER_AUTH: &str = "oTh-eR3y";
/// What the operator pasted into the wrong place, or spelt wrongly.
const PASTED: &str = "Pasted-9f-Secret";

/// Everything that came out, and where it came from.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn note(&mut self, place: impl Into<String>, what: impl Into<Vec<u8>>) {
        let mut what = what.into();
        what.make_ascii_lowercase();
        self.0.push((place.into(), what));
    }

    /// Nothing of it holds `secret`, in any case of letters.
    fn lacks(&self, name: &str, secret: &[u8]) {
        let secret = secret.to_ascii_lowercase();
        for (place, what) in &self.0 {
            let found = what.windows(secret.len()).position(|window| window == secret);
            if let Some(at) = found {
                let around = String::from_utf8_lossy(&what[at.saturating_sub(200)..(at + 100).min(what.len())]);
                panic!("{name} leaked in {place}: …{around}…");
            }
        }
    }

    /// The test looked where there was something to see.
    fn holds(&self, text: &str) {
        let text = text.to_ascii_lowercase();
        let holds = |what: &[u8]| what.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(self.0.iter().any(|(_, what)| holds(what)), "nobody said {text:?}");
    }
}

/// What the operator can ask, as text and as JSON.
fn ask(director: &Director, seen: &mut Seen) {
    let config = director.host().directory().join("agent.toml").display().to_string();
    let questions: [&[&str]; 9] = [
        &["status"],
        &["services"],
        &["conns"],
        &["stats"],
        &["drops", "--all"],
        &["peer"],
        &["diff"],
        &["backend", "undrain", "192.168.80.167:3306"],
        &["check-user", "--sql", "--config", &config],
    ];
    for question in questions {
        for more in [&[][..], &["-o", "json"]] {
            let output = director.lbctl(&[question, more].concat()).unwrap();
            seen.note(format!("lbctl {question:?} {more:?}"), [output.stdout, output.stderr].concat());
        }
    }
}

/// What the kernel tells of the process, and of the tables.
fn look_at(director: &Director, seen: &mut Seen) {
    let pid = director.agent_pid().unwrap();
    for file in ["cmdline", "environ", "comm", "maps"] {
        seen.note(format!("/proc/agent/{file}"), fs::read(format!("/proc/{pid}/{file}")).unwrap());
    }
    for map in director.pinned().unwrap() {
        let path = map.display().to_string();
        let output = director.host().run(&["bpftool", "map", "dump", "pinned", &path]).unwrap();
        seen.note(format!("dump of {path}"), [output.stdout, output.stderr].concat());
    }
    seen.note("the log", director.agent_log().unwrap());
}

/// Every file that the director's daemons left, but those that hold secrets by right.
fn read_files(directory: &Path, by_right: &[PathBuf], seen: &mut Seen) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_file() && !by_right.contains(&path) {
            seen.note(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

/// What `lb-agent check` and `lb-agent run` say of a config.
fn check(director: &Director, text: &str, seen: &mut Seen) {
    let path = director.host().directory().join("wrong.toml");
    fs::write(&path, text).unwrap();
    let mut said = String::new();
    for verb in ["check", "run"] {
        let mut command = director.host().command(binary("lb-agent").unwrap()).unwrap();
        let output = command.args([verb, "--config"]).arg(&path).output().unwrap();
        assert!(!output.status.success(), "{verb}: a wrong config was taken:\n{text}");
        said += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    let mut command = director.host().command(binary("lbctl").unwrap()).unwrap();
    let output = command.args(["check-user", "--sql", "--config"]).arg(&path).output().unwrap();
    said += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    fs::remove_file(&path).unwrap();
    seen.note(format!("what is said of\n{text}"), said);
}

#[test]
fn no_secret_leaves_its_file() {
    let lab = LabOptions { directors: 2, ..LabOptions::default() }.up().unwrap();
    let (user, password) = (health::USER, health::PASSWORD);
    for server in lab.servers() {
        server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    }
    let file = health::password_file(lab.d1().host(), password).unwrap();
    // The hook writes down all that it is given.
    let hook = lab.directory().join("hook");
    let told = lab.directory().join("told");
    fs::write(&hook, format!("#!/bin/sh\n(env; cat; echo) >> {}\n", told.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let vrrp = VrrpOptions {
        auth: Some(AUTH.to_owned()),
        extra: format!("notify = {:?}\n", hook.display().to_string()),
        ..VrrpOptions::classic()
    };
    let agent = AgentOptions {
        log: "trace".to_owned(),
        // Small tables are soon read.
        extra: "[table]\nconns = 1024\nhalf_open = 1024\nservices = 4\nbackends = 16".to_owned(),
        check: format!(
            "[service.check]\nlevel = \"auth\"\nuser = {user:?}\npassword_file = {:?}\ninter = \"300ms\"\n\
             relogin = \"500ms\"\n",
            file.display().to_string()
        ),
        ..lab.agent_options()
    };
    let template = agent.clone();
    let pair = Pair::of(lab, vrrp.clone(), agent).unwrap().synced().unwrap();
    let (lab, d1) = (&pair.lab, pair.director(0));
    let rs1 = &lab.servers()[0];
    let key_file = lab.directory().join("sync.key");
    let key = fs::read_to_string(&key_file).unwrap();
    let key = key.lines().find(|line| line.len() == 64).unwrap();
    pair.start(0).unwrap();
    pair.gets(0).unwrap();
    pair.start(1).unwrap();
    lab.wait_until_safe(LIMIT).unwrap();
    let mut session = lab.client().connect(addr::SERVICE).unwrap();
    session.query_drop("SELECT 1").unwrap();

    // Something to complain about: another password at the server.
    rs1.sql(&format!("ALTER USER {user}@'192.168.80.%' IDENTIFIED BY 'another'")).unwrap();
    let at = SocketAddrV4::new(rs1.address(), addr::MYSQL_PORT);
    let denied = |status: Status| status.checks.iter().any(|check| check.address == at && check.trouble.is_some());
    wait_for("access denied", LIMIT, || Ok(denied(d1.ctl(&["status"])?).then_some(()))).unwrap();

    let mut seen = Seen::default();
    for director in lab.directors() {
        ask(director, &mut seen);
        look_at(director, &mut seen);
    }

    // A peer with another key and another VRRP password: both are refused, and neither is told.
    pair.stop(1).unwrap();
    let other_key = lab.directory().join("other.key");
    lab.keygen(&other_key).unwrap();
    let other = SyncOptions { key_file: Some(other_key.clone()), ..lab.sync_options().unwrap() };
    let stranger = template.vrrp(&VrrpOptions { auth: Some(OTHER_AUTH.to_owned()), ..vrrp.clone() }).sync(other);
    pair.director(1).start_agent(&stranger).unwrap();
    let refuses = |view: &SyncView| view.refused.contains_key("unknown key");
    wait_for("frames of another key", LIMIT, || Ok(Some(d1.peer()?).filter(refuses))).unwrap();
    let differs = |director: &Director| Ok(director.agent_log()?.contains("another password").then_some(()));
    wait_for("adverts with another password", LIMIT, || differs(d1)).unwrap();
    for director in lab.directors() {
        ask(director, &mut seen);
        look_at(director, &mut seen);
    }

    // Configs with secrets where none belong, and lines with secrets that are wrong in another way.
    let right = fs::read_to_string(d1.host().directory().join("agent.toml")).unwrap();
    let with = |section: &str, line: &str| right.replacen(&format!("{section}\n"), &format!("{section}\n{line}\n"), 1);
    let auth = format!("auth = {AUTH:?}");
    let mut wrong = Vec::new();
    for key in ["password", "pass", "passwd", "pasword", "passwrod", "db_secret", "Password"] {
        for value in [format!("{PASTED:?}"), PASTED.to_owned(), format!("'{PASTED}'")] {
            wrong.push(with("[service.check]", &format!("{key} = {value}")));
        }
    }
    wrong.push(with("[service.check]", &format!("password {PASTED}")));
    wrong.push(with("[service.check]", &format!("secret: {PASTED}")));
    wrong.push(right.replace(&file.display().to_string(), PASTED));
    wrong.push(right.replace("password_file", "pasword_file").replace(&file.display().to_string(), PASTED));
    for line in [
        format!("auth = {AUTH}"),
        format!("auth = \"{AUTH}x{PASTED}\""),
        format!("atuh = {AUTH:?}"),
        format!("auth_pass {AUTH}"),
        format!("auth_pass = {AUTH:?}"),
        format!("authentication = {AUTH:?}"),
        format!("auth = {AUTH:?}\nauth = {AUTH:?}"),
        format!("auth = [{AUTH:?}]"),
    ] {
        wrong.push(right.replace(&auth, &line));
    }
    // Version 3 has no password, and says so.
    wrong.push(right.replace("version = 2", "version = 3"));
    for line in [
        format!("key_file = {key:?}"),
        format!("key = {key:?}"),
        format!("psk = {key}"),
        format!("key_file = {key}"),
        format!("insecure = {key:?}"),
        key.to_owned(),
    ] {
        let own = format!("key_file = {:?}", key_file.display().to_string());
        wrong.push(right.replace(&own, &line));
    }
    for text in &wrong {
        assert_ne!(*text, right);
        check(d1, text, &mut seen);
    }
    // Files with secrets that cannot be used.
    let bad = lab.directory().join("bad.key");
    fs::write(&bad, format!("{key}0\n")).unwrap();
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o600)).unwrap();
    let text = right.replace(&key_file.display().to_string(), &bad.display().to_string());
    let path = d1.host().directory().join("wrong.toml");
    fs::write(&path, text).unwrap();
    let output = d1.agent_once(&[], &["check", "--config", &path.display().to_string()]).unwrap();
    seen.note("a key file with a bad key", [output.stdout, output.stderr].concat());
    fs::remove_file(&path).unwrap();

    // All that was left behind, and what the hook was told.
    let by_right: Vec<PathBuf> = lab.directors().iter().map(|d| d.host().directory().join("agent.toml")).collect();
    let by_right = [by_right, vec![file, key_file.clone(), other_key.clone(), bad]].concat();
    read_files(lab.directory(), &by_right, &mut seen);
    lab.directors().iter().for_each(|director| read_files(director.host().directory(), &by_right, &mut seen));

    for text in ["1045", user, "line 1 is no key", "unknown key", "Active", "lb_check", "the password is"] {
        seen.holds(text);
    }
    let other_key = fs::read_to_string(&other_key).unwrap();
    let other_key = other_key.lines().find(|line| line.len() == 64).unwrap();
    let bytes =
        |hex: &str| (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect::<Vec<_>>();
    for (name, secret) in [
        ("the password of the check user", password.as_bytes()),
        ("a pasted password", PASTED.as_bytes()),
        ("the password of VRRP", AUTH.as_bytes()),
        ("the peer's password of VRRP", OTHER_AUTH.as_bytes()),
        ("the key of the sync", key.as_bytes()),
        ("half of the key of the sync", &key.as_bytes()[..32]),
        ("the bytes of the key of the sync", &bytes(key)),
        ("the peer's key of the sync", other_key.as_bytes()),
    ] {
        seen.lacks(name, secret);
    }
    println!(
        "{} places, {} bytes, {} wrong configs: no secret in them",
        seen.0.len(),
        seen.0.iter().map(|(_, what)| what.len()).sum::<usize>(),
        wrong.len()
    );
}

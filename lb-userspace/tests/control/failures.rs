//! What the operator sees when something is wrong: exit codes and messages.

use crate::agent::{Agent, FIRST, Ran, command, lbctl};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};
use tempfile::TempDir;

#[test]
fn an_agent_that_refuses_is_exit_code_1() {
    let agent = Agent::start(3);
    agent.lbctl("backend drain 10.0.0.1:3306").fails(1, "lbctl: no service has a backend 10.0.0.1:3306");
    agent.lbctl("backend drain 192.168.80.136:3306").fails(1, "name one: rw, ro");
    agent.lbctl("backend drain 192.168.80.136:3306 --service rx").fails(1, "no service is called 'rx'");
    for form in ["table", "json"] {
        agent.lbctl(&format!("conns --service rx -o {form}")).fails(1, "no service is called 'rx'");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_without_talking_to_anyone() {
    for line in ["", "dance", "backend drain", "backend weight 1.2.3.4:5", "conns --limit x", "status -o yaml"] {
        assert_eq!(Ran::of(command(line).output().unwrap()).code, Some(2), "{line}");
    }
    for line in ["--help", "--version", "help conns"] {
        let ran = Ran::of(command(line).output().unwrap());
        assert!(ran.code == Some(0) && !ran.out.is_empty(), "{line}: {ran:?}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_exit_code_3() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    lbctl(&path, "status").fails(3, "is lb-agent running? Start it (systemctl start lb-agent), or name its socket");
    fs::write(&path, "").unwrap();
    lbctl(&path, "status").fails(3, "is lb-agent running?");
}

#[test]
fn a_user_without_rights_learns_what_to_do() {
    let agent = Agent::start(0);
    fs::set_permissions(&agent.socket, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(agent.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Root may connect to anything, so as root try it as somebody else, with a copy of the tool that is within reach.
    let tool = agent.dir.path().join("lbctl");
    // Another process copies it: a test beside this one that forks while we hold the copy open for writing would keep it
    // busy.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_lbctl")).arg(&tool).status().unwrap().success());
    let mut command = Command::new(&tool);
    command.args(["status", "--socket"]).arg(&agent.socket);
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    Ran::of(command.output().unwrap()).fails(3, "permission denied on");
}

#[test]
fn an_agent_that_is_stuck_is_left_after_the_timeout() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    // Clients wait in the queue of a listener that never accepts.
    let _listener = UnixListener::bind(&path).unwrap();
    lbctl(&path, "status --timeout 100ms").fails(3, "does not answer");
}

/// Answers each client's first line with `answer`, then closes.
fn fake_agent(answer: &'static str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (dir, path)
}

#[test]
fn another_version_and_nonsense_are_told_apart() {
    for (answer, code, message) in [
        ("{\"version\":2,\"ok\":true,\"data\":[1]}\n", 1, "the agent speaks protocol version 2, this lbctl version 1"),
        ("{\"version\":2,\"ok\":false,\"error\":{\"code\":\"new\",\"message\":\"too old\"}}\n", 1, "lbctl: too old\n"),
        ("hello\n", 1, "makes no sense"),
        ("{\"version\":1,\"ok\":true,\"data\":{}}\n", 1, "makes no sense: missing field"),
        ("", 3, "broke: the agent closed it"),
        ("{\"version\":1,\"ok\":true,", 3, "broke: the agent closed it"),
    ] {
        let (_dir, path) = fake_agent(answer);
        lbctl(&path, "status").fails(code, message);
    }
}

#[test]
fn a_listing_that_is_cut_short_is_no_success() {
    let cut = "{\"end\":true,\"count\":1}\n";
    let (_dir, path) = fake_agent(cut);
    lbctl(&path, "conns").fails(1, "0 of 1 elements arrived");

    // The agent dies behind the first conn: what came is printed, the exit code tells that it is not all.
    let line = serde_json::json!({"item": crate::agent::Sample::conn(0)}).to_string() + "\n";
    let (_dir, path) = fake_agent(Box::leak(line.into_boxed_str()));
    let ran = lbctl(&path, "conns");
    assert_eq!((ran.code, ran.out.lines().count()), (Some(3), 3), "{ran:?}");
    assert!(ran.out.contains(&FIRST.to_string()));
}

fn raw(socket: &Path, input: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(input.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_unknown_version_or_verb_has_its_own_code() {
    let agent = Agent::start(0);
    let answer = raw(&agent.socket, "{\"version\":2,\"verb\":\"status\"}\n");
    assert!(
        answer.starts_with("{\"version\":1,\"ok\":false,\"error\":{\"code\":\"version\",\"message\":\""),
        "{answer}"
    );
    let answer = raw(&agent.socket, "{\"version\":1,\"verb\":\"reload\"}\n");
    assert!(answer.contains("\"code\":\"unknown_verb\""), "{answer}");
    let answer = raw(&agent.socket, "{\"version\":1,\"verb\":\"services\"}\n");
    assert!(
        answer.starts_with("{\"item\":{\"name\":\"rw\",\"listen\":\"10.80.1.243:3306\",\"protocol\":\"TCP\""),
        "{answer}"
    );
    assert!(answer.ends_with("\n{\"end\":true,\"count\":2}\n"), "{answer}");
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_failure() {
    let agent = Agent::start(100_000);
    for line in ["conns", "conns -o json"] {
        let mut lbctl = command(line);
        lbctl.arg("--socket").arg(&agent.socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = lbctl.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        Ran::of(child.wait_with_output().unwrap()).ok();
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let agent = Agent::start(0);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = command("services").arg("--socket").arg(&agent.socket).stdout(full).output().unwrap();
    Ran::of(ran).fails(1, "cannot write the output: No space left on device");
}

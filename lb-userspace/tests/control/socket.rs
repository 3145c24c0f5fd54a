//! The socket file: who may use it, and who may replace it.

use crate::agent::{Agent, lbctl};
use lb_userspace::control::server::{BindError, ControlSocket};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
};
use tempfile::TempDir;

fn bind(path: &std::path::Path) -> Result<ControlSocket, BindError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    ControlSocket::bind(path)
}

#[test]
fn owner_and_group_may_connect_and_nobody_else() {
    let agent = Agent::start(0);
    let mode = fs::metadata(&agent.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
}

#[test]
fn a_clean_stop_removes_the_socket_and_a_new_start_works() {
    let mut agent = Agent::start(0);
    agent.stop();
    assert!(!agent.socket.exists());
    drop(bind(&agent.socket).unwrap());
    assert!(!agent.socket.exists());
}

#[test]
fn the_socket_of_a_dead_agent_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead process leaves its socket behind");
    lbctl(&path, "status").fails(3, "is lb-agent running?");
    bind(&path).unwrap();
}

#[test]
fn the_socket_of_a_living_agent_is_left_alone() {
    let mut agent = Agent::start(0);
    let error = bind(&agent.socket).unwrap_err();
    assert!(error.to_string().contains("another agent listens on"), "{error}");
    agent.lbctl("status").ok();
    agent.stop();

    // A stopped process whose queue is full is alive too.
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    while let Some(client) = connect_at_once(&path) {
        waiting.push(client);
        assert!(waiting.len() < 10_000);
    }
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    drop(listener);
}

fn connect_at_once(path: &std::path::Path) -> Option<std::os::fd::OwnedFd> {
    use nix::sys::socket::*;
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).ok().map(|()| fd)
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    fs::write(&path, "precious").unwrap();
    let error = bind(&path).unwrap_err();
    assert!(error.to_string().contains("is no socket: remove it"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let error = bind(&path.join("below/agent.sock")).unwrap_err();
    assert!(error.to_string().contains("create the directory"), "{error}");
    let long = dir.path().join("x".repeat(120));
    let error = anyhow::Error::new(bind(&long).unwrap_err());
    assert!(format!("{error:#}").contains("File name too long"), "{error:#}");
}

#[test]
fn a_successor_keeps_its_socket_when_the_old_agent_stops() {
    let mut old = Agent::start(0);
    fs::remove_file(&old.socket).unwrap();
    let _successor = UnixListener::bind(&old.socket).unwrap();
    old.stop();
    assert!(old.socket.exists());
}

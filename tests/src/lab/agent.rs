//! The agent of a director: its configuration file, its process, and `lbctl` beside it. The real binaries; the lab
//! only knows their command line, the file format and the control socket.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::addr;
use super::director::Director;
use super::host::Host;
use super::process::{Process, tail};
use super::sync::SyncOptions;
use super::vrrp::VrrpOptions;
use super::wait::wait_for;

const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the agent's configuration file says.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Hook of both interfaces: `auto`, `xdp`, `xdp-generic` or `tc`.
    pub mode: String,
    /// The interface towards the clients; `ext0` unless a test has put a VLAN device on it.
    pub external: String,
    /// Filter of the log.
    pub log: String,
    /// The services.
    pub services: Vec<ServiceOptions>,
    /// TOML put in front of the `[[interface]]` tables: `[timeouts]`, `[table]`.
    pub extra: String,
    /// TOML of every `[[service]]` after its own keys: `[service.check]`.
    pub check: String,
    /// TOML of the first service's backends after their own keys, in their order: `backup = true`.
    pub backend_keys: Vec<String>,
    /// The election; without it the director is alone, and somebody else gives it the VIPs.
    pub vrrp: Option<VrrpOptions>,
    /// Connection sync; only beside `vrrp`.
    pub sync: Option<SyncOptions>,
}

/// One `[[service]]`.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Name.
    pub name: String,
    /// VIP and port.
    pub listen: SocketAddrV4,
    /// rr, wrr, lc, wlc, sh or mh.
    pub scheduler: String,
    /// Policy for mid-stream packets without a conn: drop or rst.
    pub no_conn: String,
    /// The backends.
    pub backends: Vec<BackendOptions>,
}

/// One `[[service.backend]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendOptions {
    /// Address and port.
    pub address: SocketAddrV4,
    /// Weight; 0 drains.
    pub weight: u16,
}

impl AgentOptions {
    /// The classic service in front of `servers`: round robin, weight 1 each.
    pub fn classic(servers: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let backends = servers
            .into_iter()
            .map(|server| BackendOptions { address: SocketAddrV4::new(server, addr::MYSQL_PORT), weight: 1 })
            .collect();
        Self {
            mode: "auto".to_owned(),
            external: "ext0".to_owned(),
            log: "info".to_owned(),
            services: vec![ServiceOptions {
                name: "mysql".to_owned(),
                listen: addr::SERVICE,
                scheduler: "rr".to_owned(),
                no_conn: "drop".to_owned(),
                backends,
            }],
            extra: String::new(),
            check: String::new(),
            backend_keys: Vec::new(),
            vrrp: None,
            sync: None,
        }
    }

    /// Makes the director one of a pair.
    #[must_use]
    pub fn vrrp(mut self, vrrp: &VrrpOptions) -> Self {
        self.vrrp = Some(vrrp.clone());
        self
    }

    /// Makes both directors tell each other of their conns.
    #[must_use]
    pub fn sync(mut self, sync: SyncOptions) -> Self {
        self.sync = Some(sync);
        self
    }

    /// Sets the hook of both interfaces.
    #[must_use]
    pub fn mode(mut self, mode: &str) -> Self {
        mode.clone_into(&mut self.mode);
        self
    }

    /// Sets the scheduler of the first service and the weights of its backends, in their order.
    #[must_use]
    pub fn weights(mut self, scheduler: &str, weights: &[u16]) -> Self {
        if let Some(service) = self.services.first_mut() {
            scheduler.clone_into(&mut service.scheduler);
            for (backend, weight) in service.backends.iter_mut().zip(weights) {
                backend.weight = *weight;
            }
        }
        self
    }

    /// Renders the configuration file of an agent that pins below `pins` and is controlled over `socket`.
    pub fn render(&self, pins: &Path, socket: &Path) -> String {
        let mut text = format!(
            "schema_version = 1\n\n[agent]\npin_dir = {:?}\ncontrol_socket = {:?}\nlog = {:?}\n",
            pins.display().to_string(),
            socket.display().to_string(),
            self.log
        );
        if !self.extra.is_empty() {
            let _ = write!(text, "\n{}\n", self.extra.trim());
        }
        if let Some(vrrp) = &self.vrrp {
            let _ = write!(text, "\n{}", vrrp.toml());
        }
        if let Some(sync) = &self.sync {
            let _ = write!(text, "\n{}", sync.toml());
        }
        for interface in [self.external.as_str(), "int0"] {
            let _ = write!(text, "\n[[interface]]\nname = {interface:?}\nmode = {:?}\n", self.mode);
        }
        for service in &self.services {
            let ServiceOptions { name, listen, scheduler, no_conn, backends } = service;
            let _ = write!(
                text,
                "\n[[service]]\nname = {name:?}\nlisten = \"{listen}\"\nscheduler = {scheduler:?}\nno_conn = {no_conn:?}\n"
            );
            if !self.check.is_empty() {
                let _ = writeln!(text, "{}", self.check.trim());
            }
            for (at, backend) in backends.iter().enumerate() {
                let _ = write!(
                    text,
                    "[[service.backend]]\naddress = \"{}\"\nweight = {}\n",
                    backend.address, backend.weight
                );
                if let Some(keys) = self.backend_keys.get(at) {
                    let _ = writeln!(text, "{}", keys.trim());
                }
            }
        }
        text
    }
}

/// A started agent; None as process once it was stopped or killed.
#[derive(Debug)]
pub(crate) struct Agent {
    config: PathBuf,
    process: Option<Process>,
}

impl Director {
    /// Writes the configuration and starts the agent; returns when its control socket answers.
    ///
    /// # Errors
    /// When an agent runs already, the binary is missing, or it exits or stays silent; the message holds its log.
    pub fn start_agent(&self, options: &AgentOptions) -> Result<()> {
        if options.mode == "xdp" {
            self.make_switch_pass()?;
        }
        let config = self.write_config(options)?;
        self.run_agent(config)
    }

    /// Writes the configuration file without starting anything, and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, options: &AgentOptions) -> Result<PathBuf> {
        let config = self.host().directory().join("agent.toml");
        fs::write(&config, options.render(&self.pin_directory(), &self.control_socket()))
            .with_context(|| format!("write {}", config.display()))?;
        Ok(config)
    }

    /// Starts the agent again with the configuration that it had.
    ///
    /// # Errors
    /// As [`Director::start_agent`], and when none was started before.
    pub fn restart_agent(&self) -> Result<()> {
        let config = self.agent().as_ref().map(|agent| agent.config.clone());
        self.run_agent(config.with_context(|| format!("{}: no agent was started yet", self.host().name()))?)
    }

    /// Stops the agent with SIGTERM, after 10 s with SIGKILL. The packet path stays attached.
    ///
    /// # Errors
    /// When none runs.
    pub fn stop_agent(&self) -> Result<ExitStatus> {
        self.end_agent(|process| process.terminate(STOP_LIMIT))
    }

    /// Kills the agent with SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_agent(&self) -> Result<ExitStatus> {
        self.end_agent(Process::kill9)
    }

    /// Sends a signal to the agent: SIGHUP to reload, SIGSTOP and SIGCONT to freeze and thaw it.
    ///
    /// # Errors
    /// When none runs.
    pub fn signal_agent(&self, signal: Signal) -> Result<()> {
        let agent = self.agent();
        let process = agent.as_ref().and_then(|agent| agent.process.as_ref());
        process.with_context(|| format!("{}: no agent runs", self.host().name()))?.signal(signal)
    }

    /// Process id of the running agent.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent_pid(&self) -> Result<u32> {
        let agent = self.agent();
        let process = agent.as_ref().and_then(|agent| agent.process.as_ref());
        Ok(process.with_context(|| format!("{}: no agent runs", self.host().name()))?.pid())
    }

    /// All that the agents of this director logged so far.
    ///
    /// # Errors
    /// When none was started yet.
    pub fn agent_log(&self) -> Result<String> {
        let path = self.agent_log_path();
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Runs `lbctl` on this director against its agent. A non-zero exit is not an error here.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<Output> {
        let socket = self.control_socket().display().to_string();
        let program = binary("lbctl")?.display().to_string();
        self.host().run(&[&[program.as_str(), "--socket", &socket], arguments].concat())
    }

    fn run_agent(&self, config: PathBuf) -> Result<()> {
        let name = self.host().name();
        let mut agent = self.agent();
        if let Some(running) = agent.as_mut().and_then(|agent| agent.process.as_mut())
            && running.try_wait()?.is_none()
        {
            bail!("{name}: an agent runs already (pid {})", running.pid());
        }
        let mut command = Command::new(binary("lb-agent")?);
        command.args(["run", "--config"]).arg(&config);
        if let Some(record) = self.host().record() {
            record.add_pins(&self.pin_directory())?;
        }
        let mut process = self.host().spawn("agent", command)?;
        let ready = wait_for(&format!("{name}: the agent's answer"), READY_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("{name}: the agent ended with {status}");
            }
            Ok(answers(&self.control_socket()).ok())
        });
        if let Err(error) = ready {
            return Err(error.context(format!("log of the agent:\n{}", tail(&self.agent_log_path(), 30))));
        }
        *agent = Some(Agent { config, process: Some(process) });
        Ok(())
    }

    fn end_agent(&self, how: impl FnOnce(&mut Process) -> Result<ExitStatus>) -> Result<ExitStatus> {
        let mut agent = self.agent();
        let process = agent.as_mut().and_then(|agent| agent.process.take());
        how(&mut process.with_context(|| format!("{}: no agent runs", self.host().name()))?)
    }

    fn agent_log_path(&self) -> PathBuf {
        self.host().directory().join("agent.log")
    }

    fn agent(&self) -> MutexGuard<'_, Option<Agent>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the status once. Any answer in the protocol counts: what it says is for the test to judge.
fn answers(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"{\"version\":1,\"verb\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line)?;
    if answer.get("ok").and_then(Value::as_bool).is_none() {
        bail!("not an answer: {line}");
    }
    Ok(())
}

/// Control socket of the agent on a director, also of a lab that another process started.
pub fn agent_socket(director: &Host) -> PathBuf {
    director.directory().join("agent.sock")
}

/// Finds `lb-agent` or `lbctl`: by LB_AGENT_BIN or LBCTL_BIN, else in the target directory of the running program.
///
/// # Errors
/// When it was not built; the message says how.
pub fn binary(name: &str) -> Result<PathBuf> {
    let variable = if name == "lb-agent" { "LB_AGENT_BIN" } else { "LBCTL_BIN" };
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let running = std::env::current_exe().context("find the running program")?;
    // target/debug/deps/test-…, target/debug/xtask
    running.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file()).with_context(
        || format!("{name} is not built: run `cargo xtask build-ebpf && cargo build -p lb-userspace --bin {name}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_file_says_what_the_options_say() {
        let options = AgentOptions {
            extra: "[timeouts]\nestablished = \"5s\"".to_owned(),
            ..AgentOptions::classic([Ipv4Addr::new(192, 168, 80, 167), Ipv4Addr::new(192, 168, 80, 136)])
        };
        let text = options.mode("tc").weights("wrr", &[3, 1]).render(Path::new("/pins"), Path::new("/run/a.sock"));
        assert_eq!(
            text,
            r#"schema_version = 1

[agent]
pin_dir = "/pins"
control_socket = "/run/a.sock"
log = "info"

[timeouts]
established = "5s"

[[interface]]
name = "ext0"
mode = "tc"

[[interface]]
name = "int0"
mode = "tc"

[[service]]
name = "mysql"
listen = "10.80.1.243:3306"
scheduler = "wrr"
no_conn = "drop"
[[service.backend]]
address = "192.168.80.167:3306"
weight = 3
[[service.backend]]
address = "192.168.80.136:3306"
weight = 1
"#
        );
    }
}

//! keepalived on a director: Debian's own, the program that the agent replaces and pairs with. Every one has its own
//! configuration, pid files and network; its log is `keepalived.log` of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::director::Director;
use super::process::Process;
use super::record::ProcessId;
use super::vrrp::VrrpOptions;
use super::wait::wait_for;

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

impl Director {
    /// Starts keepalived; returns when its VRRP process runs. See [`VrrpOptions::keepalived`] for `notify`.
    ///
    /// # Errors
    /// When one runs already, or it ends at once; the message holds its log.
    pub fn start_keepalived(&self, options: &VrrpOptions, notify: Option<&Path>) -> Result<()> {
        let config = self.keepalived_file("conf");
        fs::write(&config, options.keepalived(self.index(), notify))
            .with_context(|| format!("write {}", config.display()))?;
        self.restart_keepalived()
    }

    /// Starts keepalived with the configuration that it had.
    ///
    /// # Errors
    /// As [`Director::start_keepalived`].
    pub fn restart_keepalived(&self) -> Result<()> {
        let name = self.host().name();
        let mut running = self.keepalived_slot();
        if running.is_some() {
            bail!("{name}: keepalived runs already");
        }
        let [config, pid, vrrp_pid] = ["conf", "pid", "vrrp.pid"].map(|end| self.keepalived_file(end));
        // Of a killed one; a pid file makes the next one refuse to start.
        for stale in [&pid, &vrrp_pid] {
            if stale.exists() {
                fs::remove_file(stale).with_context(|| format!("delete {}", stale.display()))?;
            }
        }
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--no-syslog", "--log-detail", "--dont-respawn"]);
        command.arg("--use-file").arg(&config).arg("--pid").arg(&pid).arg("--vrrp_pid").arg(&vrrp_pid);
        let mut process = self.host().spawn("keepalived", command)?;
        wait_for(&format!("{name}: keepalived's VRRP process"), START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("{name}: keepalived ended with {status}:\n{}", process.log_tail(20));
            }
            Ok(vrrp_process(&process))
        })?;
        *running = Some(process);
        Ok(())
    }

    /// Stops keepalived with SIGTERM: it sends priority 0 and takes its addresses off.
    ///
    /// # Errors
    /// When none runs.
    pub fn stop_keepalived(&self) -> Result<()> {
        self.take_keepalived()?.terminate(STOP_LIMIT).map(drop)
    }

    /// Kills keepalived, both its processes, so that it can do nothing more: no priority 0, and the addresses stay.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_keepalived(&self) -> Result<()> {
        let mut process = self.take_keepalived()?;
        let child = vrrp_process(&process).context("keepalived has no VRRP process")?;
        // When the parent dies, the child gets SIGTERM and would say goodbye. A stopped process does not.
        let vrrp = Pid::from_raw(i32::try_from(child.pid).context("pid out of range")?);
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            kill(vrrp, signal).with_context(|| format!("send {signal} to keepalived's VRRP process {vrrp}"))?;
        }
        process.kill9()?;
        wait_for("end of keepalived's VRRP process", STOP_LIMIT, || Ok((!child.is_alive()).then_some(())))
    }

    /// Whether keepalived was started and neither stopped nor killed since.
    pub fn runs_keepalived(&self) -> bool {
        self.keepalived_slot().is_some()
    }

    /// All that keepalived logged so far on this director.
    ///
    /// # Errors
    /// When none was started yet.
    pub fn keepalived_log(&self) -> Result<String> {
        let path = self.keepalived_file("log");
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn take_keepalived(&self) -> Result<Process> {
        self.keepalived_slot().take().with_context(|| format!("{}: no keepalived runs", self.host().name()))
    }

    fn keepalived_file(&self, end: &str) -> PathBuf {
        self.host().directory().join(format!("keepalived.{end}"))
    }

    fn keepalived_slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.keepalived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The child of keepalived that speaks VRRP; None until it has been started.
fn vrrp_process(parent: &Process) -> Option<ProcessId> {
    let pid = parent.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let child = children.split_ascii_whitespace().next()?.parse().ok()?;
    ProcessId::of(child, "keepalived's VRRP process").ok()
}

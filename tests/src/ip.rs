//! Many commands of `ip` in one process, in the namespace of the calling thread.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Runs the lines of `commands`, as `ip -batch` reads them.
///
/// # Errors
///
/// There is no `ip`, or it refuses a line.
pub(crate) fn batch(commands: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `ip` (Debian package iproute2)")?;
    ip.stdin.take().context("stdin of ip")?.write_all(commands.as_bytes())?;
    let output = ip.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

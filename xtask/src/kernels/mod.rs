//! Tests under Debian's stock kernels, in QEMU's software emulation: which kernels, where they come from, and the run.
//!
//! The machine's own kernel is one of many that operators have. What a guest needs is in `guest`; nothing of it touches
//! the host's network or its pins.

mod guest;

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{cmd, paths, setup};

/// Those of Debian 12 and 13. 6.1 is the oldest that we support.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its full version, as in `uname -r`.
    pub(crate) version: String,
    folder: PathBuf,
}

impl Kernel {
    fn image(&self) -> PathBuf {
        self.folder.join(format!("boot/vmlinuz-{}", self.version))
    }
}

/// The newest kernel of each series that this machine's package lists offer, and why the others are missing.
///
/// # Errors
///
/// A package cannot be fetched or unpacked.
pub(crate) fn fetch() -> Result<(Vec<Kernel>, Vec<String>)> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for series in SERIES {
        match newest(series)? {
            Some(version) => found.push(unpacked(&version)?),
            None => missing.push(format!("Linux {series}: no package linux-image-{series}.*-cloud-amd64 here")),
        }
    }
    Ok((found, missing))
}

fn newest(series: &str) -> Result<Option<String>> {
    let prefix = format!("linux-image-{series}.");
    let names = cmd::capture(Command::new("apt-cache").args(["pkgnames", &prefix]))?;
    let versions = names.lines().filter_map(|name| {
        // 6.1.0-50-cloud-amd64, but not …-cloud-amd64-dbg or …-cloud-amd64-unsigned.
        let version = name.strip_prefix("linux-image-")?;
        version.ends_with("-cloud-amd64").then(|| (numbers(version), version.to_owned()))
    });
    Ok(versions.max().map(|(_, version)| version))
}

/// The numbers of a version, by which versions compare.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn unpacked(version: &str) -> Result<Kernel> {
    let kernel = Kernel { version: version.to_owned(), folder: paths::kernels().join(version) };
    if !kernel.image().is_file() {
        setup::unpack(&format!("linux-image-{version}"), &kernel.folder)?;
    }
    Ok(kernel)
}

/// The command that boots `kernel`, runs the test programs on it one after the other, and ends.
///
/// # Errors
///
/// The guest's file system cannot be made.
pub(crate) fn command(kernel: &Kernel, programs: &[(String, PathBuf)], rest: &[String]) -> Result<Command> {
    let files = guest::files(kernel, &kernel.folder, programs, &rest.join(" "))?;
    let mut command = Command::new("timeout");
    // A guest that hangs must not hang the run. The serial line is the guest's only way out.
    command.args(["900", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-smp", "2", "-m", "3072"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(files);
    command.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(numbers("6.1.0-9-cloud-amd64") < numbers("6.1.0-50-cloud-amd64"));
        assert!(numbers("6.12.9+deb12-cloud-amd64") < numbers("6.12.115+deb12-cloud-amd64"));
    }
}

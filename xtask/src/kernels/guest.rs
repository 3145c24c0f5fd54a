//! The file system of a guest, in memory: a shell, a few network tools, kernel modules, and the test programs.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst`, written by cpio(1).

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::Kernel;
use crate::{cmd, paths};

/// What the tests run beside themselves.
const TOOLS: [&str; 5] = ["ip", "bpftool", "nft", "unshare", "nsenter"];
/// What busybox stands in for.
const APPLETS: [&str; 10] = ["sh", "mount", "mkdir", "cat", "echo", "sleep", "uname", "insmod", "poweroff", "kill"];
/// In the order of their dependencies; the rest of what the tests need is built in.
const MODULES: [&str; 7] = ["llc", "stp", "bridge", "veth", "macvlan", "sch_ingress", "cls_bpf"];

const INIT: &str = "#!/bin/sh
export PATH=/bin:/tools RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do insmod $module; done
ip link set lo up
";

/// Writes the archive and answers its path.
pub(super) fn files(
    kernel: &Kernel,
    unpacked: &Path,
    programs: &[(String, PathBuf)],
    arguments: &str,
) -> Result<PathBuf> {
    let root = paths::kernels().join("root");
    let _ = fs::remove_dir_all(&root);
    let guest = Guest { root };
    for folder in ["bin", "tools", "programs", "modules", "proc", "sys", "dev", "tmp"] {
        guest.folder(Path::new("/").join(folder).as_path())?;
    }
    guest.copy(&program("busybox")?, Path::new("/bin/busybox"))?;
    for applet in APPLETS {
        let link = guest.at(&Path::new("/bin").join(applet));
        symlink("busybox", &link).with_context(|| format!("link {}", link.display()))?;
    }
    for tool in TOOLS {
        guest.program(&program(tool)?, &Path::new("/tools").join(tool))?;
    }
    for (number, module) in MODULES.into_iter().enumerate() {
        if let Some(file) = find(unpacked, module) {
            // insmod runs them in the order of their names.
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            guest.copy(&file, &PathBuf::from(format!("/modules/{number}-{name}")))?;
        }
    }
    // Where the test programs look for it: beside the sources they were built from.
    for object in [paths::object(), paths::bench_object()] {
        guest.copy(&object, &object)?;
    }
    guest.folder(&paths::root().join("tests"))?;
    let mut init = INIT.to_owned();
    for (name, file) in programs {
        guest.stripped(file, &Path::new("/programs").join(name))?;
        // The same words as cargo's, so that one reader understands both.
        init +=
            &format!("echo\necho 'Running {name} under Linux {}'\n/programs/{name} {arguments} 2>&1\n", kernel.version);
    }
    init += "poweroff -f\n";
    let path = guest.at(Path::new("/init"));
    fs::write(&path, init).with_context(|| format!("write {}", path.display()))?;
    executable(&path)?;
    guest.pack()
}

struct Guest {
    root: PathBuf,
}

impl Guest {
    /// Where a path of the guest is here.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn folder(&self, path: &Path) -> Result<()> {
        let folder = self.at(path);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        if let Some(folder) = to.parent() {
            self.folder(folder)?;
        }
        fs::copy(from, self.at(to)).with_context(|| format!("copy {}", from.display())).map(drop)
    }

    /// A program and the libraries it is linked with.
    fn program(&self, from: &Path, to: &Path) -> Result<()> {
        self.copy(from, to)?;
        self.libraries(from)
    }

    /// The same, without the names for debuggers: they are most of a test program.
    fn stripped(&self, from: &Path, to: &Path) -> Result<()> {
        cmd::capture(Command::new("strip").args(["-g", "-o"]).arg(self.at(to)).arg(from))?;
        self.libraries(from)
    }

    fn libraries(&self, program: &Path) -> Result<()> {
        let listed = cmd::capture(Command::new("ldd").arg(program))?;
        let paths: BTreeSet<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
        paths
            .into_iter()
            .map(Path::new)
            .filter(|path| !self.at(path).exists())
            .try_for_each(|path| self.copy(path, path))
    }

    fn pack(&self) -> Result<PathBuf> {
        let archive = self.root.with_extension("cpio");
        let file = fs::File::create(&archive).with_context(|| format!("create {}", archive.display()))?;
        let names = cmd::capture(Command::new("find").arg(".").current_dir(&self.root))?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--create", "--format=newc", "--quiet"]).current_dir(&self.root);
        let mut child = cpio.stdin(Stdio::piped()).stdout(file).spawn().context("start cpio")?;
        child.stdin.take().context("cpio takes names")?.write_all(names.as_bytes()).context("give cpio the names")?;
        let status = child.wait().context("wait for cpio")?;
        ensure!(status.success(), "cpio failed ({status})");
        Ok(archive)
    }
}

fn program(name: &str) -> Result<PathBuf> {
    paths::find_program(name).with_context(|| format!("there is no {name}"))
}

fn executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("chmod {}", path.display()))
}

/// The file of a kernel module; `None`: built in, or not in this kernel.
fn find(folder: &Path, module: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| is_module(&name.to_string_lossy(), module)) {
                return Some(path);
            }
        }
    }
    None
}

/// `veth.ko`, or compressed `veth.ko.xz`: insmod takes both.
fn is_module(file: &str, module: &str) -> bool {
    file.strip_prefix(module).is_some_and(|rest| rest == ".ko" || rest.starts_with(".ko."))
}

#[cfg(test)]
mod tests {
    use super::is_module;

    #[test]
    fn a_module_may_be_compressed() {
        assert!(is_module("stp.ko", "stp") && is_module("stp.ko.xz", "stp"));
        assert!(!is_module("stp_tools.ko", "stp") && !is_module("stp.kobj", "stp"));
    }
}

//! `cargo xtask setup`: what this machine needs for a purpose, what of it is missing, and how it gets here.
//!
//! Owns the table of Debian packages, the bpf-linker version and the bpffs mount. The other verbs call `ensure`, so
//! nobody must call `setup` first. Nothing here starts a service or removes a package.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd, host, paths,
    toolchain::{self, Choice, LINKER_LLVM},
};

const LINKER_VERSION: &str = "0.13.0";

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what building the eBPF object takes
    #[arg(long)]
    ebpf_only: bool,
}

/// What packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A compiler with its library source, where no installed one fits.
    Compiler,
    /// LLVM and a C++ linker, which bpf-linker is built with.
    Linker,
    /// Database servers, load generator and network tools of the lab.
    Lab,
    /// Libraries of conntrackd, which `bench failover` compares with.
    Rival,
    /// Stock kernels in an emulator, and what their guests run.
    Guest,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Compiler => "eBPF compiler",
            Self::Linker => "LLVM for bpf-linker",
            Self::Lab => "lab",
            Self::Rival => "conntrackd",
            Self::Guest => "stock kernels",
        }
    }
}

/// A Debian package, and what proves that it is there: a program's name, or a file.
struct Package {
    purpose: Purpose,
    name: &'static str,
    proof: &'static str,
}

const fn package(purpose: Purpose, name: &'static str, proof: &'static str) -> Package {
    Package { purpose, name, proof }
}

/// No package of this table starts a service when it is installed. mariadb-server would; mariadb-server-core holds the
/// server, mariadb-install-db and its SQL without it. keepalived's unit needs a configuration, and none comes with it.
const PACKAGES: &[Package] = &[
    package(Purpose::Compiler, "rustc-web", "/usr/bin/rustc"),
    package(Purpose::Compiler, "cargo-web", "/usr/bin/cargo"),
    package(Purpose::Compiler, "rust-web-src", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs"),
    package(Purpose::Compiler, "rust-web-clippy", "/usr/bin/clippy-driver"),
    package(Purpose::Linker, "llvm-22-dev", "/usr/lib/llvm-22/include/llvm-c/Core.h"),
    package(Purpose::Linker, "libpolly-22-dev", "/usr/lib/llvm-22/lib/libPolly.a"),
    package(Purpose::Linker, "zlib1g-dev", "/usr/include/zlib.h"),
    package(Purpose::Linker, "libzstd-dev", "/usr/include/zstd.h"),
    package(Purpose::Linker, "libxml2-dev", "/usr/include/libxml2/libxml/parser.h"),
    package(Purpose::Linker, "g++", "g++"),
    package(Purpose::Lab, "mariadb-server-core", "mariadbd"),
    package(Purpose::Lab, "mariadb-client-core", "mariadb"),
    package(Purpose::Lab, "sysbench", "sysbench"),
    package(Purpose::Lab, "bpftool", "bpftool"),
    package(Purpose::Lab, "nftables", "nft"),
    package(Purpose::Lab, "ethtool", "ethtool"),
    package(Purpose::Lab, "iproute2", "ip"),
    // For `systemd-analyze verify`; nothing of it is started.
    package(Purpose::Lab, "systemd", "systemd-analyze"),
    package(Purpose::Lab, "iputils-ping", "ping"),
    package(Purpose::Lab, "tcpdump", "tcpdump"),
    // MySQL itself is in no stable release: the lab unpacks it from unstable into a directory of its own.
    package(Purpose::Lab, "debootstrap", "debootstrap"),
    package(Purpose::Lab, "debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    package(Purpose::Lab, "keepalived", "keepalived"),
    package(Purpose::Rival, "libnetfilter-conntrack3", "/usr/share/doc/libnetfilter-conntrack3/copyright"),
    package(Purpose::Rival, "libnetfilter-cthelper0", "/usr/share/doc/libnetfilter-cthelper0/copyright"),
    package(Purpose::Rival, "libnetfilter-queue1", "/usr/share/doc/libnetfilter-queue1/copyright"),
    package(Purpose::Rival, "libnfnetlink0", "/usr/share/doc/libnfnetlink0/copyright"),
    package(Purpose::Guest, "qemu-system-x86", "qemu-system-x86_64"),
    package(Purpose::Guest, "busybox-static", "busybox"),
    package(Purpose::Guest, "cpio", "cpio"),
    package(Purpose::Guest, "binutils", "strip"),
    package(Purpose::Guest, "util-linux", "unshare"),
    package(Purpose::Guest, "iproute2", "ip"),
    package(Purpose::Guest, "bpftool", "bpftool"),
    package(Purpose::Guest, "nftables", "nft"),
];

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { ebpf_only } = args;
    let Toolchain { choice, linker } = ebpf()?;
    println!("eBPF compiler  {choice}");
    println!("bpf-linker     {LINKER_VERSION} at {}", linker.display());
    if !ebpf_only {
        lab()?;
        println!("lab            {}", names(Purpose::Lab).join(" "));
        bpffs()?;
        println!("bpffs          mounted at /sys/fs/bpf");
    }
    Ok(ExitCode::SUCCESS)
}

/// What builds the eBPF object.
pub(crate) struct Toolchain {
    /// Compiler and cargo.
    pub(crate) choice: Choice,
    /// The linker's path.
    pub(crate) linker: PathBuf,
}

/// Finds, or installs, a compiler for the eBPF object and bpf-linker.
pub(crate) fn ebpf() -> Result<Toolchain> {
    let choice = match toolchain::choose(&toolchain::probe()) {
        Ok(choice) => choice,
        Err(rejected) => {
            println!("no installed Rust toolchain can build the eBPF object");
            rejected.iter().for_each(|line| println!("  {line}"));
            println!("  (`rustup component add rust-src` would do, too)");
            install(Purpose::Compiler, names(Purpose::Compiler))?;
            toolchain::choose(&toolchain::probe()).map_err(|rejected| {
                anyhow::anyhow!("still no toolchain that can build the eBPF object:\n  {}", rejected.join("\n  "))
            })?
        }
    };
    let linker = match linker(&linker_versions()) {
        Linker::Found(path) => path,
        Linker::Install { root } => install_linker(root)?,
    };
    Ok(Toolchain { choice, linker })
}

/// Installs what of the lab's programs is missing.
pub(crate) fn lab() -> Result<()> {
    install(Purpose::Lab, missing(Purpose::Lab))?;
    // MariaDB's authentication plugins are in the package that would start a server.
    let folder = paths::tools().join("mariadb");
    if Path::new("/usr/lib/mysql/plugin/auth_ed25519.so").is_file() || folder.is_dir() {
        return Ok(());
    }
    unpack("mariadb-server", &folder)
}

/// Gets conntrackd, unpacked beside this repository's other tools: its package would start it and enable it for good.
pub(crate) fn rival() -> Result<()> {
    install(Purpose::Rival, missing(Purpose::Rival))?;
    let folder = paths::tools().join("debian");
    if Path::new("/usr/sbin/conntrackd").is_file() || folder.join("usr/sbin/conntrackd").is_file() {
        return Ok(());
    }
    unpack("conntrackd", &folder)
}

/// Fetches a Debian package and unpacks it into `folder`, which must not exist, without installing it.
pub(crate) fn unpack(package: &str, folder: &Path) -> Result<()> {
    if !host::has_apt() {
        bail!("{package} comes from Debian: there is no apt-get here");
    }
    println!("unpacking {package} into {}", folder.display());
    let fetched = folder.with_extension("fetched");
    let _ = fs::remove_dir_all(&fetched);
    fs::create_dir_all(&fetched).with_context(|| format!("create {}", fetched.display()))?;
    let download = || cmd::run_alive(package, apt(&["download", package]).current_dir(&fetched), &paths::setup_log());
    if download().is_err() {
        cmd::run_alive("apt-get update", &mut apt(&["update"]), &paths::setup_log())?;
        download()?;
    }
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let entries = fs::read_dir(&fetched).with_context(|| format!("list {}", fetched.display()))?;
    let file = entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_package);
    let file = file.context("apt-get downloaded no package")?;
    // Moved as a whole: an interrupted run leaves no half of it.
    let whole = fetched.join("whole");
    cmd::capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&whole))?;
    fs::rename(&whole, folder).with_context(|| format!("create {}", folder.display()))?;
    fs::remove_dir_all(&fetched).with_context(|| format!("remove {}", fetched.display()))
}

/// Installs what of the emulator's programs is missing.
pub(crate) fn guest() -> Result<()> {
    install(Purpose::Guest, missing(Purpose::Guest))
}

/// Mounts the BPF file system if it is absent, as systemd does at boot.
pub(crate) fn bpffs() -> Result<()> {
    if host::bpffs_mounted() {
        return Ok(());
    }
    println!("mounting the BPF file system at /sys/fs/bpf");
    cmd::capture(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"])).map(drop)
}

fn names(purpose: Purpose) -> Vec<&'static str> {
    PACKAGES.iter().filter(|package| package.purpose == purpose).map(|package| package.name).collect()
}

fn missing(purpose: Purpose) -> Vec<&'static str> {
    missing_where(purpose, |proof| {
        if proof.starts_with('/') { Path::new(proof).exists() } else { paths::find_program(proof).is_some() }
    })
}

fn missing_where(purpose: Purpose, is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let absent = PACKAGES.iter().filter(|package| package.purpose == purpose && !is_there(package.proof));
    absent.map(|package| package.name).collect()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}

fn install_command(packages: &[&str]) -> Command {
    // --no-remove: rather fail than trade a package of the user's for one of ours.
    let mut command = apt(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    command.args(packages);
    command
}

fn install(purpose: Purpose, packages: Vec<&'static str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !host::has_apt() {
        bail!("{} needs what Debian calls {list}; install that with this system's package manager", purpose.label());
    }
    if !host::Privileges::read()?.root {
        bail!(
            "{} needs packages that only root can install. Run:\n  \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}",
            purpose.label()
        );
    }
    println!("installing for {}: {list}", purpose.label());
    let log = paths::setup_log();
    // A foreign package source that is down makes `update` fail though Debian's own lists are fine: install decides.
    let updated = cmd::run_alive("apt-get update", &mut apt(&["update"]), &log);
    let installed = cmd::run_alive("apt-get install", &mut install_command(&packages), &log);
    match (updated, installed) {
        (_, Ok(())) => {
            println!("installed {list}");
            Ok(())
        }
        (Err(update), Err(install)) => Err(install.context(format!("{update:#}"))),
        (Ok(()), Err(install)) => Err(install),
    }
}

/// What to do about bpf-linker.
#[derive(Debug, PartialEq, Eq)]
enum Linker {
    /// This one has the right version.
    Found(PathBuf),
    /// Build it, below `root` or, without, where `cargo install` puts programs.
    Install { root: Option<PathBuf> },
}

/// Another version that is already there is the user's: ours then goes beside it, into `target/tools`.
fn linker(found: &[(PathBuf, String)]) -> Linker {
    let right = found.iter().find(|(_, version)| version == LINKER_VERSION);
    match right {
        Some((path, _)) => Linker::Found(path.clone()),
        None => Linker::Install { root: (!found.is_empty()).then(paths::tools) },
    }
}

fn linker_versions() -> Vec<(PathBuf, String)> {
    let places = paths::program_dirs().into_iter().map(|dir| dir.join("bpf-linker")).filter(|path| path.is_file());
    let asked = places.filter_map(|path| {
        let printed = cmd::capture(Command::new(&path).arg("--version")).ok()?;
        Some((path, printed.split_whitespace().last()?.to_owned()))
    });
    asked.collect()
}

fn install_linker(root: Option<PathBuf>) -> Result<PathBuf> {
    install(Purpose::Linker, missing(Purpose::Linker))?;
    println!("building bpf-linker {LINKER_VERSION} with LLVM {LINKER_LLVM} (a minute or two)");
    let prefix = format!("/usr/lib/llvm-{LINKER_LLVM}");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([PathBuf::from(&prefix).join("bin")].into_iter().chain(env::split_paths(&path)))
        .context("PATH holds a folder with a colon in its name")?;
    let mut command = cmd::cargo();
    command.env("LLVM_PREFIX", &prefix).env("PATH", path);
    command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"]);
    command.args(["--features", &format!("llvm-{LINKER_LLVM}")]);
    if let Some(root) = &root {
        fs::create_dir_all(root).with_context(|| format!("create {}", root.display()))?;
        command.arg("--root").arg(root);
    }
    cmd::run_alive("cargo install bpf-linker", &mut command, &paths::setup_log())?;
    match linker(&linker_versions()) {
        Linker::Found(path) => Ok(path),
        Linker::Install { .. } => bail!("bpf-linker {LINKER_VERSION} was installed but cannot be found"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{LINKER_VERSION, Linker, PACKAGES, Purpose, install_command, linker, missing_where, names};
    use crate::{cmd, paths, toolchain::LINKER_LLVM};

    #[test]
    fn only_what_is_absent_is_asked_for() {
        assert_eq!(missing_where(Purpose::Lab, |_| true), Vec::<&str>::new());
        assert_eq!(missing_where(Purpose::Lab, |proof| proof != "nft" && proof != "ip"), ["nftables", "iproute2"]);
        assert_eq!(missing_where(Purpose::Lab, |_| false), names(Purpose::Lab));
    }

    #[test]
    fn every_purpose_has_packages_and_none_twice() {
        for purpose in [Purpose::Compiler, Purpose::Linker, Purpose::Lab, Purpose::Rival, Purpose::Guest] {
            assert!(!names(purpose).is_empty(), "{purpose:?}");
        }
        let mut all: Vec<_> = PACKAGES.iter().map(|package| (package.purpose as u8, package.name)).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn nothing_is_installed_that_starts_a_service_or_displaces_a_package() {
        assert!(
            PACKAGES.iter().all(|package| !["mariadb-server", "mysql-server", "conntrackd"].contains(&package.name))
        );
        let command = cmd::shown(&install_command(&["sysbench"]));
        assert!(command.contains("--no-remove") && command.contains("--no-install-recommends"), "{command}");
        assert!(command.ends_with(" sysbench"), "{command}");
    }

    #[test]
    fn the_llvm_packages_are_of_the_linker_s_version() {
        let version = LINKER_LLVM.to_string();
        let llvm = PACKAGES.iter().filter(|package| package.proof.starts_with("/usr/lib/llvm-"));
        assert!(llvm.clone().count() > 0);
        for package in llvm {
            assert!(package.name.contains(&version) && package.proof.contains(&version), "{}", package.name);
        }
    }

    #[test]
    fn a_linker_of_another_version_is_left_alone() {
        let other = (PathBuf::from("/a/bpf-linker"), "0.9.15".to_owned());
        let right = (PathBuf::from("/b/bpf-linker"), LINKER_VERSION.to_owned());
        assert_eq!(linker(&[other.clone(), right]), Linker::Found(Path::new("/b/bpf-linker").into()));
        assert_eq!(linker(&[other]), Linker::Install { root: Some(paths::tools()) });
        assert_eq!(linker(&[]), Linker::Install { root: None });
    }
}

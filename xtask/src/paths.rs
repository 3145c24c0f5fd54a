//! Where things are in this repository. Owns names of files and folders only; nothing here reads or writes them.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The eBPF object that lb-agent embeds. It is always here, whatever `CARGO_TARGET_DIR` says, because
/// lb-userspace/build.rs looks for it at this place.
pub(crate) fn object() -> PathBuf {
    root().join("target/bpf/lb.o")
}

/// The object with the programs that the packet path is measured against; nothing embeds it.
pub(crate) fn bench_object() -> PathBuf {
    root().join("target/bpf/lb-bench.o")
}

/// Cargo's target folder for the eBPF build, apart from the host's so that neither build makes the other stale.
pub(crate) fn bpf_build() -> PathBuf {
    root().join("target/bpf-build")
}

/// Where tools go that must not replace the user's own.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Kernels that tests boot, unpacked, and the file system of their guests.
pub(crate) fn kernels() -> PathBuf {
    root().join("target/kernels")
}

/// The full output of what `setup` ran.
pub(crate) fn setup_log() -> PathBuf {
    root().join("target/setup.log")
}

/// Folders in which `program` may be: our own tools, cargo's, `PATH`, and the system folders that a user's `PATH`
/// often lacks.
pub(crate) fn program_dirs() -> Vec<PathBuf> {
    let mut dirs = vec![tools().join("bin")];
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    dirs.extend(cargo_home.map(|home| home.join("bin")));
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs
}

/// The first file called `program` in [`program_dirs`].
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    program_dirs().into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

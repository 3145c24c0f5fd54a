//! `cargo xtask build-ebpf`: compiles lb-ebpf for bpfel-unknown-none, checks the objects and puts them into target/bpf:
//! lb.o, the packet path, and lb-bench.o, what it is measured against.
//!
//! Owns the flags of that build. Which compiler runs is `toolchain`'s decision, what is in the object `objfile`'s.

use std::{
    env::{self, consts::ARCH},
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd,
    objfile::Contents,
    paths,
    setup::{self, Toolchain},
};

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";

/// Arguments of `cargo xtask build-ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the verb.
pub(crate) fn run(Args {}: Args) -> Result<ExitCode> {
    build()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the object and tells what is in it. Installs the toolchain first if it is missing.
pub(crate) fn build() -> Result<Toolchain> {
    let toolchain = setup::ebpf()?;
    println!("toolchain  {}", toolchain.choice);
    println!("linker     {}", toolchain.linker.display());
    cmd::run(cargo(&toolchain, "build")?.arg("--bins"))?;
    finish("lb", &paths::object())?;
    finish("lb-bench", &paths::bench_object())?;
    Ok(toolchain)
}

/// Checks what the build made of a binary, tells what is in it and puts it in its place.
fn finish(binary: &str, object: &Path) -> Result<()> {
    let built = paths::bpf_build().join(TARGET).join(PROFILE).join(binary);
    let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let contents = Contents::read(&bytes).with_context(|| format!("{} is not an eBPF object", built.display()))?;
    report(object, bytes.len(), &contents);
    let faults = contents.faults();
    if !faults.is_empty() {
        bail!("{} cannot be used:\n  {}", built.display(), faults.join("\n  "));
    }
    put(object, &bytes)
}

/// The toolchain's cargo, set up to run `verb` on lb-ebpf for the target: `build`, or `clippy` by way of
/// [`clippy`]. Arguments for cargo may be added.
fn cargo(toolchain: &Toolchain, verb: &str) -> Result<Command> {
    with_flags(Command::new(toolchain.choice.facts.cargo()), toolchain, verb)
}

/// The toolchain's clippy on lb-ebpf, if it has one. Arguments for cargo may be added.
pub(crate) fn clippy(toolchain: &Toolchain) -> Result<Option<Command>> {
    // Not `cargo clippy`: cargo looks in its home first and would find rustup's, of another version.
    let program = toolchain.choice.facts.clippy();
    program.map(|program| with_flags(Command::new(program), toolchain, "clippy")).transpose()
}

/// Compiles lb-ebpf with the compiler's own warnings denied: what is left where clippy is missing.
pub(crate) fn strict(toolchain: &Toolchain) -> Result<Command> {
    let mut command = cargo(toolchain, "rustc")?;
    command.args(["--bin", "lb", "--", "-D", "warnings"]);
    Ok(command)
}

fn with_flags(mut command: Command, toolchain: &Toolchain, verb: &str) -> Result<Command> {
    let facts = &toolchain.choice.facts;
    let folder = toolchain.linker.parent().unwrap_or(Path::new("/"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&path)))
        .context("PATH holds a folder with a colon in its name")?;
    command
        .current_dir(paths::root())
        .env("CARGO", facts.cargo())
        .env("RUSTC", facts.rustc())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags().join("\x1f"))
        .env("PATH", path)
        // Ours was set by the cargo that runs xtask and names the host's toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .args([verb, "--locked", "--package", "lb-ebpf", "--target", TARGET, "--profile", PROFILE])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(paths::bpf_build());
    Ok(command)
}

fn rustflags() -> [String; 4] {
    [
        // BTF is made from debug information, and verifier logs show its source lines.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // 32-bit jumps and atomic fetch-and-add, in every kernel since 5.12.
        "-Ctarget-cpu=v3".into(),
        // The kernel that the program meets is the build host's: aya-ebpf takes pt_regs and friends from this.
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
    ]
}

fn report(object: &Path, size: usize, contents: &Contents) {
    let shown = object.strip_prefix(paths::root()).unwrap_or(object);
    let licence = contents.licence.as_deref().unwrap_or("not declared");
    println!("object     {}, {} KiB, licence {licence}", shown.display(), size.div_ceil(1024));
    for function in &contents.functions {
        let kind = if function.section == ".text" { "function" } else { "program" };
        println!("{kind:<10} {:<16} {:<24} {:>6} instructions", function.section, function.name, function.instructions);
    }
    for warning in contents.warnings() {
        println!("warning: {warning}");
    }
}

/// Writes the object unless it is already what stands there: its time of change makes lb-agent stale.
fn put(object: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = object.parent().context("the object has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // Renamed into place, so that a build that runs meanwhile never sees half of it.
    let draft = object.with_extension("new");
    fs::write(&draft, bytes).with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, object).with_context(|| format!("rename {} to {}", draft.display(), object.display()))
}

//! `cargo xtask check`: formatting, lints and documentation of every crate, the eBPF one included. All of it runs even
//! if a step fails, so that one run shows everything.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{build_ebpf, cmd};

/// Arguments of `cargo xtask check`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the verb.
pub(crate) fn run(Args {}: Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("format", cmd::cargo().args(["fmt", "--all", "--check"]))?;

    // lb-agent does not compile without the object.
    let toolchain = build_ebpf::build()?;
    match build_ebpf::clippy(&toolchain)? {
        Some(mut clippy) => steps.run("eBPF lints", clippy.args(["--", "-D", "warnings"]))?,
        None => {
            println!("note: {} has no clippy; the compiler's own warnings are denied", toolchain.choice.facts);
            steps.run("eBPF warnings", &mut build_ebpf::strict(&toolchain)?)?;
        }
    }

    let clippy = ["clippy", "--locked", "--workspace", "--exclude", "lb-ebpf", "--all-targets"];
    steps.run("lints", cmd::cargo().args(clippy).args(["--", "-D", "warnings"]))?;
    // Private items too: most of this repository is programs, which have no public ones. Links to them always resolve
    // then, which is what the lint that is off is about.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    let doc = ["doc", "--locked", "--workspace", "--exclude", "lb-ebpf", "--no-deps", "--document-private-items"];
    steps.run("documentation", cmd::cargo().env("RUSTDOCFLAGS", flags).args(doc))?;

    Ok(steps.verdict())
}

/// The steps that ran, and whether each was good.
#[derive(Default)]
struct Steps(Vec<(&'static str, bool)>);

impl Steps {
    fn run(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        self.0.push((name, cmd::succeeds(command)?));
        Ok(())
    }

    fn verdict(&self) -> ExitCode {
        println!();
        for (name, good) in &self.0 {
            println!("{name:<14} {}", if *good { "ok" } else { "FAILED" });
        }
        if self.0.iter().all(|(_, good)| *good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

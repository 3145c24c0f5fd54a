//! `cargo xtask build`: the eBPF object and the two programs that ship. Owns how they are built together; the object
//! comes first because lb-agent embeds it.

use std::{
    io::BufReader,
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{build_ebpf, cmd, paths};

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimise fully, as for measurements and packages
    #[arg(long)]
    release: bool,
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Built { agent, lbctl } = build(args.release)?;
    println!("object    {}", paths::object().display());
    println!("lb-agent  {}", agent.display());
    println!("lbctl     {}", lbctl.display());
    Ok(ExitCode::SUCCESS)
}

/// What was built.
pub(crate) struct Built {
    /// The daemon, with the eBPF object in it.
    pub(crate) agent: PathBuf,
    /// The operator's tool.
    pub(crate) lbctl: PathBuf,
}

/// Builds the object, lb-agent and lbctl.
pub(crate) fn build(release: bool) -> Result<Built> {
    build_ebpf::build()?;
    let mut command = cmd::cargo();
    // lb-tests has no program, but with it in the selection all dependencies get the features that they have in xtask's
    // own build and in the tests', and nothing is compiled twice.
    command.args(["build", "--locked", "--package", "lb-userspace", "--package", "lb-tests", "--bins"]);
    if release {
        command.arg("--release");
    }
    println!("$ {}", cmd::shown(&command));
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", cmd::shown(&command)))?;
    let messages = BufReader::new(child.stdout.take().context("the child's output is a pipe")?);
    let mut programs = Vec::new();
    for message in serde_json::Deserializer::from_reader(messages).into_iter::<Value>() {
        programs.extend(executable(&message.context("read cargo's messages")?));
    }
    if !child.wait().context("wait for cargo build")?.success() {
        bail!("failed: {}", cmd::shown(&command));
    }
    let find = |name: &str| {
        let found = programs.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        found.cloned().with_context(|| format!("cargo built no {name}"))
    };
    Ok(Built { agent: find("lb-agent")?, lbctl: find("lbctl")? })
}

/// The program that a `compiler-artifact` message of cargo tells about.
fn executable(message: &Value) -> Option<PathBuf> {
    message.get("executable")?.as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::executable;

    #[test]
    fn only_messages_about_programs_name_one() {
        let program = json!({"reason": "compiler-artifact", "executable": "/t/debug/lbctl"});
        assert_eq!(executable(&program), Some(PathBuf::from("/t/debug/lbctl")));
        assert_eq!(executable(&json!({"reason": "compiler-artifact", "executable": null})), None);
        assert_eq!(executable(&json!({"reason": "build-finished", "success": true})), None);
    }
}

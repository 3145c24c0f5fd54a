//! `cargo xtask inspect`: the bpftool tour of a packet path. Every step is a command that one can type.
//!
//! Without a pin directory it starts a small lab with an agent, opens a few conns through the VIP, and removes the lab
//! at the end. With one it only looks.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use lb_tests::lab::{Lab, addr};

use crate::{build, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The pin directory of a running packet path, with the layout's version: /sys/fs/bpf/lb/v1
    #[arg(long)]
    pin_dir: Option<PathBuf>,
    /// Entries shown of each table
    #[arg(long, default_value_t = 4)]
    entries: usize,
}

/// One stop of the tour: what it shows, and the command.
struct Stop {
    what: &'static str,
    argv: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    setup::lab()?;
    if let Some(dir) = args.pin_dir {
        if !dir.is_dir() {
            bail!("{} does not exist: an agent pins below `pin_dir` of its config, in v<version>", dir.display());
        }
        tour(&dir, args.entries, &|argv| Ok(command(argv)))?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::bpffs()?;
    build::build(false)?;
    println!("Starting a lab with an agent and a few conns; the tour follows.\n");
    let lab = Lab::up()?;
    let d1 = lab.d1();
    lab.take_vips(d1)?;
    d1.start_agent(&lab.agent_options())?;
    // A session that stays open: the tour shows an established conn.
    let session = lab.client().connect(addr::SERVICE)?;
    lab.client().many_connections(4, 1, 1)?;
    let dir = versioned(&d1.pin_directory())?;
    // bpftool sees the links of its own network namespace.
    tour(&dir, args.entries, &|argv| {
        let (program, rest) = argv.split_first().context("an empty command")?;
        let mut command = d1.host().command(program)?;
        command.args(rest);
        Ok(command)
    })?;
    drop(session);
    lab.down()?;
    Ok(ExitCode::SUCCESS)
}

fn versioned(dir: &Path) -> Result<PathBuf> {
    let inside = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    inside.flatten().map(|entry| entry.path()).next().with_context(|| format!("{} is empty", dir.display()))
}

fn command(argv: &[String]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

fn tour(dir: &Path, entries: usize, on_director: &dyn Fn(&[String]) -> Result<Command>) -> Result<()> {
    for Stop { what, argv } in stops(dir)? {
        println!("# {what}\n$ {}", argv.join(" "));
        let output = on_director(&argv)?.output().with_context(|| format!("run {}", argv[0]))?;
        if !output.status.success() {
            bail!("{} failed: {}", argv.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        println!("{}", shortened(&String::from_utf8_lossy(&output.stdout), entries));
    }
    Ok(())
}

fn stops(dir: &Path) -> Result<Vec<Stop>> {
    let bpftool = |what, words: &[&str]| Stop {
        what,
        argv: std::iter::once("bpftool").chain(words.iter().copied()).map(str::to_owned).collect(),
    };
    let map = |name: &str| dir.join(name).display().to_string();
    let mut stops = vec![bpftool("Where the programs are attached", &["net", "show"])];
    let mut links: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| format!("read {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link_")))
        .collect();
    links.sort();
    for link in &links {
        let link = link.display().to_string();
        stops.push(bpftool(
            "A pinned link: it keeps its id when the agent is upgraded",
            &["link", "show", "pinned", &link],
        ));
    }
    for (what, name) in [
        ("Services: the VIP and port, the scheduler, the ring in use", "services"),
        ("Backends: the index is the id that conns carry", "backends"),
        ("Established conns: two entries each, forward and reverse", "conns"),
        ("Conns whose handshake runs", "half_open"),
        ("How many established conns each backend has", "loads"),
        ("Traffic of each backend, per CPU", "stats"),
        ("Counters of each CPU, by name; `lbctl drops` explains those of the drops", "counters"),
        ("What the agent tells the packet path", "control"),
    ] {
        stops.push(bpftool(what, &["map", "dump", "pinned", &map(name)]));
    }
    stops.push(bpftool("What a map takes of the kernel's memory (memlock)", &["map", "show", "pinned", &map("conns")]));
    Ok(stops)
}

/// The first entries of a dump. bpftool begins each entry of an array of objects with `    },{`.
fn shortened(text: &str, entries: usize) -> String {
    let mut seen = 0;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line == "    },{" {
            seen += 1;
            if seen == entries {
                lines.push("    } …");
                break;
            }
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_dump_ends_after_the_wanted_entries() {
        let dump = "[{\n        \"key\": 0\n    },{\n        \"key\": 1\n    },{\n        \"key\": 2\n    }\n]";
        assert_eq!(shortened(dump, 2), "[{\n        \"key\": 0\n    },{\n        \"key\": 1\n    } …\n");
        assert_eq!(shortened(dump, 3).trim_end(), dump);
    }
}

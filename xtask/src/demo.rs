//! `cargo xtask demo`: from a bare machine to real MySQL traffic through the VIP, with a verdict.
//!
//! Owns the order of the show and what happens when it fails. Each act is in `acts`, what must hold in
//! `lb_tests::checks`; `screen` prints, `report` is what `--json` writes.

mod acts;
mod pair;
mod report;
mod screen;

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use lb_tests::{
    checks::Setting,
    lab::{Lab, Offload, cleanup},
};

use crate::{build, host, setup};
use acts::Stage;
use report::Report;
use screen::Screen;

/// Lines of the agent's log that a failure shows.
const LOG_TAIL: usize = 15;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the packet path runs
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Checksum offload of the senders; if not given, one after the other
    #[arg(long, value_enum)]
    offload: Option<Switch>,
    /// Host firewall of d1 with policy drop from beginning to end, not for one act only
    #[arg(long)]
    firewall: bool,
    /// Weights of the backends to begin with; there is a MariaDB server for each
    #[arg(long, value_delimiter = ',', default_value = "1,1")]
    weights: Vec<u16>,
    /// New connections per act, at least
    #[arg(long, value_name = "N", default_value_t = 200)]
    connections: u64,
    /// Write the result to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Hook of the packet path, as in the agent's config.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// XDP where the driver is good at it, TC elsewhere: in the lab TC
    Auto,
    /// XDP in the driver, TC behind it
    Xdp,
    /// XDP run by the kernel's stack, TC behind it
    XdpGeneric,
    /// TC
    Tc,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl From<Switch> for Offload {
    fn from(switch: Switch) -> Self {
        match switch {
            Switch::On => Self::On,
            Switch::Off => Self::Off,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let mode = args.mode.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let setting = Setting {
        mode: mode.clone(),
        offload: args.offload.map_or(Offload::On, Offload::from),
        firewall: args.firewall,
        // With equal weights it is round robin, and weights can be changed while it runs.
        scheduler: "wrr".to_owned(),
        weights: args.weights.clone(),
        directors: 2,
    };
    let mut report = Report::new(&mode, &setting);
    let screen = Screen::new();
    let done = ready(&args, &screen).and_then(|()| show(&args, &setting, &screen, &mut report));
    report.finish(screen.elapsed(), done.as_ref().err());
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    match done {
        Ok(()) => screen.passed(&report.verdict()),
        Err(error) => screen.failed(format!("{error:#}").lines().next().unwrap_or_default()),
    }
    if let Some(path) = &args.json {
        screen.line(&format!("The result is in {}.", path.display()));
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the machine ready: programs, file systems, the build.
fn ready(args: &Args, screen: &Screen) -> Result<()> {
    let used = args.weights.iter().filter(|weight| **weight > 0).count();
    ensure!((2..=16).contains(&args.weights.len()) && used > 0, "--weights takes 2 to 16 weights, such as 2,1");
    screen.title("Real MySQL through a pair of directors");
    if let Some(reason) = host::Privileges::read()?.lacks() {
        bail!("the demo makes network namespaces and loads eBPF programs, and this is {reason}: run it as root");
    }
    if !host::can_make_netns() {
        bail!(
            "network namespaces cannot be made here; a container needs --privileged, or CAP_SYS_ADMIN and no seccomp"
        );
    }
    setup::lab()?;
    setup::bpffs()?;
    build::build(false)?;
    Ok(())
}

/// All acts in one lab; the lab is gone afterwards.
fn show(args: &Args, setting: &Setting, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.heading("The lab");
    screen.doing("lab", "network namespaces, bridges, and a MariaDB server per backend");
    let lab = setting.lab().context("start the lab")?;
    let played = play(args, setting, &lab, screen, report);
    if let Err(error) = &played {
        // A Ctrl-C reaches the tools of the act first and looks like their failure.
        thread::sleep(Duration::from_millis(100));
        cleanup::give_way();
        explain(&lab, setting, screen, error);
    }
    let down = lab.down();
    played.and(down.context("remove the lab"))
}

fn play(args: &Args, setting: &Setting, lab: &Lab, screen: &Screen, report: &mut Report) -> Result<()> {
    let mut stage = Stage::new(lab, setting, args.connections, screen, report);
    stage.lab();
    stage.agent().context("start the agent")?;
    let offloads = args.offload.map_or(vec![Offload::On, Offload::Off], |switch| vec![switch.into()]);
    for offload in offloads {
        stage.traffic(offload).with_context(|| format!("checksum offload {}", offload.name()))?;
    }
    stage.heading("Weights, changed while it runs");
    stage.weights().context("weights")?;
    stage.heading("The host firewall of the director");
    stage.firewall().context("host firewall")?;
    stage.heading("What the operator sees");
    stage.operator().context("lbctl")?;
    stage.heading("The pair: hand-over, crash, return, failback");
    stage.pair().context("the pair")
}

/// What a person needs to find out why.
fn explain(lab: &Lab, setting: &Setting, screen: &Screen, error: &anyhow::Error) {
    screen.heading("It failed");
    screen.text(&format!("{error:#}"));
    for director in lab.directors() {
        let name = director.host().name();
        let log = director.agent_log().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        screen.command(&format!("the end of the agent's log on {name}"), &end);
        for verb in ["status", "drops"] {
            let shown = director.ctl_text(&[verb]).unwrap_or_else(|error| format!("{error:#}"));
            screen.command(&format!("lbctl {verb} on {name}"), &shown);
        }
    }
    screen.line("");
    screen.text(&format!(
        "The same lab, left running to look at:\n\
         \x20 cargo xtask lab up --mode {} --offload {}\n\
         \x20 cargo xtask lab exec client mariadb -h 10.80.1.243 -u app -papp-password -e 'SELECT @@server_id'\n\
         \x20 cargo xtask lab exec d1 lbctl conns\n\
         \x20 cargo xtask lab exec d1 tcpdump -nni ext0 tcp port 3306",
        setting.mode,
        setting.offload.name()
    ));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Args;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn weights_are_a_list_and_half_and_half_by_default() {
        assert_eq!(Cli::parse_from(["demo"]).args.weights, [1, 1]);
        assert_eq!(Cli::parse_from(["demo", "--weights", "3,1,2", "--mode", "tc"]).args.weights, [3, 1, 2]);
        assert!(Cli::try_parse_from(["demo", "--weights", "a"]).is_err());
    }
}

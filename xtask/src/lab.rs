//! `cargo xtask lab`: a lab to play with. `up` leaves it running, `exec` runs a command on one of its hosts, `down`
//! removes it, and whatever labs of killed programs left behind. The lab itself is `lb_tests::lab`.

use std::io::{Write, stdout};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use lb_tests::checks::Setting;
use lb_tests::lab::{Host, Lab, LabOptions, Offload, addr, agent_socket, binary, cleanup, now};

/// The lab that is meant when none is named.
const DEFAULT: &str = "lab";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a client, directors and real MariaDB servers in network namespaces, and leave them running
    Up(Up),
    /// Run a command on a host of the lab: client, d1, d2, rs1, rs2, sw (the switch)
    Exec(Exec),
    /// Remove the lab, and what labs of killed programs left behind
    Down(Down),
}

#[derive(clap::Args)]
struct Up {
    /// Name of the lab
    #[arg(long, default_value = DEFAULT)]
    name: String,
    /// Clients: client, client2, …
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Directors: d1, d2; two elect one of them
    #[arg(long, default_value_t = 2)]
    directors: usize,
    /// MySQL servers: rs1, rs2, …
    #[arg(long, default_value_t = 2)]
    servers: usize,
    /// Transmit checksum offload of clients and servers; XDP needs it off
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    offload: Switch,
    /// Hook of the agent: auto, xdp, xdp-generic, tc
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Leave the directors without an agent; d1 routes then
    #[arg(long)]
    no_agent: bool,
}

#[derive(clap::Args)]
struct Exec {
    /// Name of the lab
    #[arg(long, default_value = DEFAULT)]
    name: String,
    /// The host
    host: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
struct Down {
    /// Remove this lab only
    #[arg(long)]
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::Up(up) => start(&up)?,
        Verb::Exec(exec) => replace_by(&exec)?,
        Verb::Down(down) => remove(&down)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn start(up: &Up) -> Result<()> {
    let started = now();
    let options = LabOptions {
        id: Some(up.name.clone()),
        clients: up.clients,
        directors: up.directors,
        servers: up.servers,
        offload: match up.offload {
            Switch::On => Offload::On,
            Switch::Off => Offload::Off,
        },
        persistent: true,
        ..LabOptions::default()
    };
    let lab = options.up()?;
    let agent = match lab.directors().first() {
        Some(d1) => {
            let agent = if up.no_agent { Err(anyhow::anyhow!("as you wished")) } else { binary("lb-agent") };
            let weights = vec![1; up.servers];
            let setting = Setting { mode: up.mode.clone(), directors: up.directors, weights, ..Setting::default() };
            if agent.is_err() || up.directors == 1 {
                lab.take_vips(d1)?;
            }
            match &agent {
                Ok(_) => setting.start(&lab)?,
                Err(_) => d1.enable_forwarding()?,
            }
            Some(agent)
        }
        None => None,
    };
    let text = describe(&lab, &up.name, started.elapsed().as_secs_f64(), agent.as_ref());
    lab.persist()?;
    stdout().write_all(text.as_bytes()).context("print")
}

fn describe(lab: &Lab, name: &str, seconds: f64, agent: Option<&Result<std::path::PathBuf>>) -> String {
    let option = if name == DEFAULT { String::new() } else { format!(" --name {name}") };
    let exec = format!("cargo xtask lab exec{option}");
    let mut text = format!("The lab `{name}` is up ({seconds:.1} s).\n\n");
    let mut row = |host: &Host, what: String| text.push_str(&format!("  {:<9}{what}\n", host.name()));
    for client in lab.clients() {
        row(client.host(), format!("{:<16}client", client.address()));
    }
    for (index, director) in lab.directors().iter().enumerate() {
        let addresses: Vec<_> = [lb_tests::lab::Segment::Client, lb_tests::lab::Segment::Server]
            .into_iter()
            .filter_map(|segment| Some(director.address(segment)?.to_string()))
            .collect();
        let vips = format!("; the VIPs {} and {} begin here", addr::VIP, addr::INTERNAL_VIP);
        row(director.host(), format!("{}  director{}", addresses.join(" "), if index == 0 { &vips } else { "" }));
    }
    for server in lab.servers() {
        row(server.host(), format!("{:<16}MariaDB, server id {}", server.address(), server.id()));
    }
    row(lab.switch(), format!("{:<16}the bridges", ""));
    let login = format!("mariadb -h {{}} -u {} -p{} -e 'SELECT @@server_id, USER()'", addr::USER, addr::PASSWORD);
    let through = |host: &str| format!("  {exec} client {}\n", login.replace("{}", host));
    match agent {
        Some(Ok(_)) => {
            text.push_str("\nAgents run. Through the VIP, and past it:\n\n");
            text.push_str(&through(&addr::VIP.to_string()));
            lab.servers().first().inspect(|server| text.push_str(&through(&server.address().to_string())));
            text.push_str(&format!("  {exec} d1 lbctl status\n"));
            if lab.directors().len() > 1 {
                text.push_str(&format!("  {exec} d1 lbctl failover\n"));
            }
        }
        Some(Err(why)) => {
            text.push_str(&format!(
                "\nNo agent runs: {why:#}.\nd1 routes, so the servers can be reached directly:\n\n"
            ));
            lab.servers().first().inspect(|server| text.push_str(&through(&server.address().to_string())));
        }
        None => {}
    }
    text.push_str(&format!("  {exec} sw bridge link\n\nFiles and logs: {}\n", lab.directory().display()));
    text.push_str(&format!("Remove it: cargo xtask lab down{option}\n"));
    text
}

/// Replaces this process, so that terminal, signals and exit status are the command's own.
fn replace_by(exec: &Exec) -> Result<()> {
    let host = Host::attach(&exec.name, &exec.host)?;
    let (program, arguments) = exec.command.split_first().context("no command")?;
    let mut command = match program.as_str() {
        // The tools of this workspace are not in PATH, and every lab has a control socket of its own.
        "lbctl" => {
            let mut lbctl = host.command(binary("lbctl")?)?;
            lbctl.arg("--socket").arg(agent_socket(&host));
            lbctl
        }
        "lb-agent" => host.command(binary("lb-agent")?)?,
        program => host.command(program)?,
    };
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("run {program} on {}", host.name()))
}

fn remove(down: &Down) -> Result<()> {
    let removed = cleanup::remove_unowned(down.name.as_deref())?;
    match (removed.is_empty(), &down.name) {
        (false, _) => println!("Removed: {}", removed.join(", ")),
        (true, Some(name)) => println!("There is no lab `{name}` to remove."),
        (true, None) => println!("There is no lab to remove."),
    }
    Ok(())
}

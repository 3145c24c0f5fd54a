//! The agent: wires config, packet path and control socket, and runs until it is told to stop.
//!
//! The only module that knows all the others. It owns the order of start and stop and the periodic work; what the work
//! is, the parts say.

mod checking;
mod desired;
mod handler;
mod health;
mod overrides;
mod pair;
mod refused;
mod resets;
mod state;
mod supervisor;
mod sync;
mod upkeep;
mod verdicts;
mod views;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use lb_common::control::ArpGate;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{
    config::{self, Config, Director},
    control::server::{ControlSocket, serve},
    datapath::{self, Datapath, sysctl},
    failover,
};

pub use sync::{ConnTable, check_key};

use pair::Pair;
use state::State;
use supervisor::{Pulse, Supervisor};

/// How long frames may still come to a director that gave up.
const LINGER: Duration = Duration::from_secs(3);
/// How often the agent looks after itself.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT. The packet path stays attached unless `detach`.
///
/// `object` is the eBPF object, aligned to 8 bytes. `node` tells which director this is; else the host's name does.
///
/// # Errors
///
/// The config is wrong, the packet path cannot be loaded, or the control socket is taken: then nothing is left behind.
pub fn run(object: &[u8], path: &Path, node: Option<&str>, detach: bool) -> Result<()> {
    let config = load(path)?;
    let director = match &config.vrrp {
        Some(_) => {
            let director = config.director(&pair::node_name(&config, node));
            Some(director.map_err(|message| anyhow!("{}: {message}", path.display()))?.clone())
        }
        None => None,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&config.agent.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start tokio")?;
    runtime.block_on(steer(object, path, config, director, detach))
}

/// Takes the packet path off, as configured in the file at `path`.
///
/// # Errors
///
/// The config is wrong, an agent is running, or the kernel refuses.
pub fn unload(path: &Path) -> Result<()> {
    let config = load(path)?;
    let done = datapath::unload(&config.agent.pin_dir)?;
    if done.is_empty() {
        println!("nothing to do: {} does not exist", config.agent.pin_dir.display());
    }
    for line in done {
        println!("{line}");
    }
    for gone in failover::clean_up().context("take off what an agent left on the interfaces")? {
        println!("took off {gone}");
    }
    overrides::forget(&config.agent.control_socket);
    Ok(())
}

fn load(path: &Path) -> Result<Config> {
    let checked = config::check_file(path);
    if !checked.diagnostics.is_empty() {
        eprintln!("{}", checked.diagnostics);
    }
    checked.config.with_context(|| format!("{} has errors, nothing was changed", path.display()))
}

async fn steer(object: &[u8], path: &Path, config: Config, director: Option<Director>, detach: bool) -> Result<()> {
    // The socket first: a second agent with the same config must not touch the packet path.
    let socket = ControlSocket::bind(&config.agent.control_socket)?;
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let supervisor = Supervisor::from_environment();
    // The packet path asks the kernel's routing table, which answers only a router.
    let names: Vec<&str> = config.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    for note in sysctl::prepare(&names)? {
        warn!("{note}");
    }
    let datapath = Datapath::open(object, &desired::settings(&config)).context("start the packet path")?;
    report(&datapath);
    let state = Arc::new(State::new(path, config, datapath)?);
    state.apply()?;
    match &director {
        Some(director) => {
            if let Some(pair) = Pair::start(state.config(), director, state.datapath()).await? {
                state.set_pair(pair);
            }
        }
        // An earlier agent may have had others around it.
        None => state.datapath().guard(&[], ArpGate::Off, Duration::ZERO)?,
    }
    info!(services = state.config().services.len(), "ready");

    let server = tokio::spawn(serve(socket, state.clone()));
    let work = upkeep::start(&state);
    supervisor.ready(&what_it_is(&state));
    let ended = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        error = watch_over(&state, &supervisor) => Err(error),
    };
    // The peer shall not wait for anything else: not even for a log on a disk that has stopped answering.
    let was_active = state.pair().is_some_and(Pair::is_active);
    if let Some(pair) = state.pair() {
        pair.stop().await;
    }
    supervisor.stopping();
    if let Ok(signal) = ended {
        info!("{signal}");
    }
    if detach && was_active {
        info!("translating late frames for {LINGER:?}");
        tokio::time::sleep(LINGER).await;
    }
    server.abort();
    work.stop().await;
    // Dropping the server's future removes the socket file.
    let _ = server.await;
    if detach {
        match Arc::try_unwrap(state) {
            Ok(state) => {
                for line in state.detach()? {
                    info!("{line}");
                }
            }
            Err(_) => warn!("a listing is still running: run `lb-agent unload` to take the packet path off"),
        }
    } else {
        info!("stopped; the packet path stays attached");
    }
    ended.map(drop)
}

/// Tells systemd that the agent lives, and what it is. Ends only when the timer thread is dead: somebody must start the
/// agent anew then, and nobody answers for the VIPs meanwhile.
async fn watch_over(state: &State, supervisor: &Supervisor) -> anyhow::Error {
    let mut pulse = Pulse::default();
    let mut ticks = tokio::time::interval(supervisor.every().unwrap_or(LOOK).min(LOOK));
    let mut told = what_it_is(state);
    loop {
        ticks.tick().await;
        if state.pair().is_some_and(Pair::is_dead) {
            return anyhow!("the timer thread or that of the sync has died");
        }
        if pulse.beats(state.pair().map(Pair::turns)) {
            supervisor.alive();
        }
        let now = what_it_is(state);
        if now != told {
            supervisor.status(&now);
            told = now;
        }
    }
}

/// The line for `systemctl status`.
fn what_it_is(state: &State) -> String {
    state.pair().map_or_else(|| "alone".to_owned(), |pair| pair.role_name().to_owned())
}

fn report(datapath: &Datapath) {
    let report = datapath.report();
    for interface in &report.interfaces {
        let links: Vec<u32> = interface.links.iter().map(|link| link.link_id).collect();
        let adopted = interface.links.iter().all(|link| link.adopted);
        info!(
            interface = %interface.name,
            mode = %interface.hook.name(),
            why = %interface.why,
            ?links,
            adopted,
            "attached"
        );
    }
    if !report.adopted_maps.is_empty() {
        info!(maps = report.adopted_maps.len(), "adopted the tables of an earlier agent");
    }
    for note in &report.notes {
        warn!("{note}");
    }
}

//! From the object file to running programs: check, adopt or make the maps, load, attach.
//!
//! Owns the order of these steps and that a failed start leaves the host as it found it. The kernel's state outlives
//! the agent: maps and links are pinned, a start adopts what is there and only replaces the programs.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, programs::Program};
use lb_common::abi;

use super::{
    attach::{self, Programs},
    attachment::InterfaceStatus,
    error::{Error, Result},
    mode::{self, Mode},
    netdev::{self, NetDev},
    pins::{self, Adoption, PinDir},
    preflight,
    tables::{MapSpec, TableSizes, Tables},
    undo::Undo,
};

/// Where to pin, how large, and what to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The pin directory; a directory for the ABI's version is added below it.
    pub pin_dir: PathBuf,
    /// Capacities; pinned maps keep theirs.
    pub tables: TableSizes,
    /// The interfaces.
    pub interfaces: Vec<InterfaceSettings>,
}

/// One interface of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Its name.
    pub name: String,
    /// Which hook to use.
    pub mode: Mode,
}

/// What a start did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The interfaces, in the order of the config.
    pub interfaces: Vec<InterfaceStatus>,
    /// The maps that an earlier agent left, by name.
    pub adopted_maps: Vec<&'static str>,
    /// What the operator should know: sizes that differ from the config, links that were taken off.
    pub notes: Vec<String>,
}

/// Everything a start yields.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) tables: Tables,
    pub(super) pins: PinDir,
    pub(super) report: Report,
    /// Takes everything back unless kept.
    pub(super) undo: Undo,
}

/// Loads the object and attaches its programs.
pub(super) fn load(object: &[u8], settings: &Settings) -> Result<Loaded> {
    let dir = pins::versioned(&settings.pin_dir);
    preflight::check(&dir)?;
    let devs = resolve(&settings.interfaces)?;
    let mut undo = Undo::default();
    let pins = PinDir::create(dir, &mut undo.created)?;
    let mut report = Report::default();
    let specs = adopt(&pins, &settings.tables, &mut undo, &mut report)?;
    let mut ebpf = load_object(object, &pins, &specs)?;
    let tables = Tables::open(pins.path())?;

    let choices: Vec<_> =
        settings.interfaces.iter().zip(&devs).map(|(wanted, dev)| mode::choose(wanted.mode, dev)).collect();
    load_program(&mut ebpf, abi::PROG_CLOCK)?;
    load_program(&mut ebpf, abi::PROG_BEAT)?;
    load_program(&mut ebpf, abi::PROG_RETIRE)?;
    load_program(&mut ebpf, abi::PROG_REPLICA)?;
    load_program(&mut ebpf, abi::PROG_TC)?;
    let with_xdp = choices.iter().any(|choice| choice.xdp.is_some());
    if with_xdp {
        load_program(&mut ebpf, abi::PROG_XDP)?;
    }
    let programs = Programs {
        xdp: if with_xdp { Some(program_fd(&ebpf, abi::PROG_XDP)?) } else { None },
        tc: program_fd(&ebpf, abi::PROG_TC)?,
    };
    for (dev, choice) in devs.iter().zip(&choices) {
        report.interfaces.push(attach::interface(&pins, dev, choice, &programs, &mut undo)?);
    }
    report.notes.extend(attach::remove_others(&pins, &report.interfaces)?);
    Ok(Loaded { ebpf, tables, pins, report, undo })
}

fn resolve(wanted: &[InterfaceSettings]) -> Result<Vec<NetDev>> {
    let found = netdev::list()?;
    let find = |interface: &InterfaceSettings| {
        found.iter().find(|dev| dev.name == interface.name).cloned().ok_or_else(|| Error::NoInterface {
            name: interface.name.clone(),
            known: found.iter().map(|dev| dev.name.clone()).collect(),
        })
    };
    wanted.iter().map(find).collect()
}

/// Compares every pin with this build; the sizes of the answer are those the loader must work with.
fn adopt(pins: &PinDir, sizes: &TableSizes, undo: &mut Undo, report: &mut Report) -> Result<Vec<MapSpec>> {
    let mut specs = Vec::with_capacity(abi::map::ALL.len());
    for spec in sizes.specs() {
        let path = pins.map(spec.name);
        match pins::inspect(&path, &spec)? {
            Adoption::Missing => {
                undo.created.push(path);
                specs.push(spec);
            }
            Adoption::Adopt { max_entries } => {
                if max_entries != spec.max_entries {
                    report.notes.push(format!(
                        "map {} keeps its {max_entries} entries, the config asks for {}: a new size takes \
                         `lb-agent unload`, which ends all conns",
                        spec.name, spec.max_entries
                    ));
                }
                report.adopted_maps.push(spec.name);
                specs.push(MapSpec { max_entries, ..spec });
            }
        }
    }
    Ok(specs)
}

fn load_object(object: &[u8], pins: &PinDir, specs: &[MapSpec]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for spec in specs {
        loader.map_max_entries(spec.name, spec.max_entries).map_pin_path(spec.name, pins.map(spec.name));
    }
    let ebpf = loader.load(object).map_err(|error| Error::object("load the eBPF object", &error))?;
    // What was there has been checked before; this catches an object of another version than the agent.
    for spec in specs {
        let fits = ebpf.map(spec.name).is_some()
            && matches!(pins::inspect(&pins.map(spec.name), spec), Ok(Adoption::Adopt { .. }));
        if !fits {
            let why = format!("its map {} is missing or of another shape; build agent and object together", spec.name);
            return Err(Error::Object { what: "load the eBPF object".to_owned(), why });
        }
    }
    Ok(ebpf)
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let failed = |error: &dyn std::error::Error| Error::object(format!("load the program {name}"), error);
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => program.load().map_err(|error| failed(&error)),
        Some(Program::SchedClassifier(program)) => program.load().map_err(|error| failed(&error)),
        _ => Err(Error::Object {
            what: "load the eBPF object".to_owned(),
            why: format!("it lacks the program {name}, or it is of another type"),
        }),
    }
}

fn program_fd<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    let missing = || Error::Object { what: "load the eBPF object".to_owned(), why: format!("no program {name}") };
    let program = ebpf.program(name).ok_or_else(missing)?;
    program.fd().map(|fd| fd.as_fd()).map_err(|error| Error::object(format!("use the program {name}"), &error))
}

/// Takes everything off that any version of the agent pinned below `pin_dir`; tells what.
///
/// # Errors
///
/// An agent is using the directory ([`Error::Locked`]), or the kernel refuses.
pub fn unload(pin_dir: &Path) -> Result<Vec<String>> {
    preflight::capabilities()?;
    preflight::bpffs(pin_dir)?;
    let mut done = Vec::new();
    let entries = match std::fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(done),
        Err(error) => return Err(Error::io(format!("read {}", pin_dir.display()))(error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let version = name.to_string_lossy().strip_prefix('v').map(str::parse::<u32>);
        if matches!(version, Some(Ok(_))) {
            remove_all(PinDir::lock(entry.path())?, &mut done)?;
        }
    }
    // Only if nothing else is in it.
    match std::fs::remove_dir(pin_dir) {
        Ok(()) => done.push(format!("removed {}", pin_dir.display())),
        Err(error) => tracing::debug!(%error, dir = %pin_dir.display(), "the pin directory stays"),
    }
    Ok(done)
}

/// Empties and removes a versioned pin directory: links first, so that no program runs on maps without a name.
pub(super) fn remove_all(pins: PinDir, done: &mut Vec<String>) -> Result<()> {
    for pin in pins.links()? {
        attach::unpin(&pin)?;
        done.push(format!("detached from {} ({})", pin.interface, pin.hook));
    }
    let known: BTreeMap<PathBuf, &str> = abi::map::ALL.iter().map(|name| (pins.map(name), *name)).collect();
    let mut maps = 0;
    for path in known.keys() {
        if path.exists() {
            pins::remove(path).map_err(Error::io(format!("remove {}", path.display())))?;
            maps += 1;
        }
    }
    let path = pins.path().to_owned();
    pins::remove(&path).map_err(Error::io(format!("remove {}", path.display())))?;
    done.push(format!("removed {maps} maps and {}", path.display()));
    Ok(())
}

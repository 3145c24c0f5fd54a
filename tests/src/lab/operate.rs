//! What an operator does on a director: `lbctl` with its answers as values or as text, `lb-agent unload`, and a look
//! with tools of others (bpftool, the kernel's own lists) at what the agent left in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, bail};
use aya::programs::{SchedClassifier, TcAttachType};
use lb_userspace::control::protocol::BackendAnswer;
use lb_userspace::datapath;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::agent::binary;
use super::director::Director;

/// A link of the packet path, as bpftool tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The kernel's id of the link.
    pub link: u64,
    /// The kernel's id of the program that runs there.
    pub program: u64,
}

impl Director {
    /// Runs `lbctl … -o json`, which must succeed, and reads its answer.
    ///
    /// # Errors
    /// When lbctl fails, with what it said, or answers something else than a `T`.
    pub fn ctl<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.ctl_text(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("lbctl {} answered:\n{text}", arguments.join(" ")))
    }

    /// Runs `lbctl`, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// When lbctl fails, with what it said.
    pub fn ctl_text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.lbctl(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: lbctl {}: {}\n{}", self.host().name(), arguments.join(" "), output.status, said.trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Gives a backend another weight at run time.
    ///
    /// # Errors
    /// As [`Director::ctl`].
    pub fn set_weight(&self, backend: SocketAddrV4, weight: u16) -> Result<BackendAnswer> {
        self.ctl(&["backend", "weight", &backend.to_string(), &weight.to_string()])
    }

    /// Runs `lb-agent` with `arguments` until it ends by itself or 10 s have passed (status 124 then). `wrapper` is a
    /// command that runs it: `["setpriv", …]`.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn agent_once(&self, wrapper: &[&str], arguments: &[&str]) -> Result<Output> {
        let program = binary("lb-agent")?.display().to_string();
        if let Some(record) = self.host().record() {
            record.add_pins(&self.pin_directory())?;
        }
        self.host().run(&[&["timeout", "-k", "2", "10"], wrapper, &[program.as_str()], arguments].concat())
    }

    /// Takes the packet path off this director with `lb-agent unload`, which must succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn unload(&self, config: &Path) -> Result<String> {
        let output = self.agent_once(&[], &["unload", "--config", &config.display().to_string()])?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            bail!("{}: lb-agent unload: {}\n{said}", self.host().name(), output.status);
        }
        Ok(said)
    }

    /// The directory in which the agent of this build pins: maps by their names, and links.
    pub fn pins(&self) -> PathBuf {
        datapath::versioned(&self.pin_directory())
    }

    /// Everything that is pinned below the agent's pin directory, the directories too. Empty when that is gone.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn pinned(&self) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.pin_directory()];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries {
                let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
                if path.is_dir() {
                    open.push(path.clone());
                }
                found.insert(path);
            }
        }
        Ok(found)
    }

    /// The pinned links by the name of their pin, as `bpftool link show pinned …` sees them.
    ///
    /// # Errors
    /// When bpftool fails on one.
    pub fn links(&self) -> Result<BTreeMap<String, LinkFacts>> {
        let mut links = BTreeMap::new();
        for path in self.pinned()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.parent() != Some(&self.pins()) || !name.starts_with("link_") {
                continue;
            }
            let shown = self.bpftool(&["link", "show", "pinned", &path.display().to_string()])?;
            let id = |key: &str| shown[key].as_u64().with_context(|| format!("no {key} in {shown}"));
            links.insert(name, LinkFacts { link: id("id")?, program: id("prog_id")? });
        }
        Ok(links)
    }

    /// The entries of a pinned map, as `bpftool map dump pinned …` prints them with the map's type information.
    ///
    /// # Errors
    /// When bpftool fails, or knows no types for the map.
    pub fn map_dump(&self, map: &str) -> Result<Vec<Value>> {
        let path = self.pins().join(map).display().to_string();
        let dump = self.bpftool(&["map", "dump", "pinned", &path])?;
        let entries = dump.as_array().with_context(|| format!("a dump is a list, not {dump}"))?;
        entries
            .iter()
            .map(|entry| entry.get("formatted").cloned().with_context(|| format!("{map} has no types: {entry}")))
            .collect()
    }

    /// What the kernel says runs at the XDP and TC ingress hooks of `ext0` and `int0`: `ext0 tc lb_tc`, `int0 xdp 53`.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn hooked(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for interface in ["ext0", "int0"] {
            let (_, programs) = self.host().enter(|| {
                SchedClassifier::query_tcx(interface, TcAttachType::Ingress)
                    .with_context(|| format!("ask for the TC programs of {interface}"))
            })?;
            found.extend(
                programs.iter().map(|program| format!("{interface} tc {}", program.name_as_str().unwrap_or("?"))),
            );
            let shown = self.host().check(&["ip", "-j", "link", "show", "dev", interface])?;
            let shown: Value = serde_json::from_str(&shown).with_context(|| format!("ip printed {shown}"))?;
            let xdp = &shown[0]["xdp"];
            if !xdp.is_null() {
                found.push(format!("{interface} xdp {}", xdp["prog"]["id"]));
            }
        }
        Ok(found)
    }

    fn bpftool(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.host().check(&[&["bpftool", "-j"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| format!("bpftool {} printed:\n{text}", arguments.join(" ")))
    }
}

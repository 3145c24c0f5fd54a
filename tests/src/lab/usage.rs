//! What a process and the packet path's maps take of the machine, by the kernel's own account (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::director::Director;

/// Clock ticks a second in /proc; fixed for user space on Linux.
const TICKS: f64 = 100.0;

impl Director {
    /// CPU time of the agent so far, all its threads together.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent_cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.agent_pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path}: {text}"))?;
        // utime and stime are fields 14 and 15; the first one here is field 3.
        let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>().with_context(|| format!("{path}: {text}"))?;
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
    }

    /// CPU time of the agent's threads so far, those of one name together.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent_cpu_by_thread(&self) -> Result<BTreeMap<String, Duration>> {
        let directory = format!("/proc/{}/task", self.agent_pid()?);
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
            let path = task?.path();
            // One that has ended meanwhile is nobody's any more.
            let (Ok(name), Ok(stat)) =
                (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
            else {
                continue;
            };
            let nanos = stat.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
            let nanos = nanos.with_context(|| format!("{}/schedstat: {stat}", path.display()))?;
            *threads.entry(name.trim().to_owned()).or_insert(Duration::ZERO) += Duration::from_nanos(nanos);
        }
        Ok(threads)
    }

    /// Memory of the agent in KiB: what it has now, and the most it ever had.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent_memory(&self) -> Result<(u64, u64)> {
        let path = format!("/proc/{}/status", self.agent_pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            number.and_then(|number| number.parse().ok()).with_context(|| format!("{path} has no {name}"))
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Bytes of kernel memory that a pinned map takes, as bpftool prints it.
    ///
    /// # Errors
    /// When there is no such map.
    pub fn map_memory(&self, map: &str) -> Result<u64> {
        let path = lb_userspace::datapath::versioned(&self.pin_directory()).join(map).display().to_string();
        let text = self.host().check(&["bpftool", "-j", "map", "show", "pinned", &path])?;
        let shown: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("bpftool printed {text}"))?;
        shown["bytes_memlock"].as_u64().with_context(|| format!("no bytes_memlock in {text}"))
    }
}

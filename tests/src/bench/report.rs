//! The result as text for people, as JSON for programs, and as a picture.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{
    Hook, Options,
    figures::{Fact, Figure, Group, Judged, Ratio, Row, ratios},
    plot,
};

/// What it was measured on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// The number of the CPU that all ran on.
    pub on: usize,
    /// Runs under a hypervisor.
    pub guest: bool,
    /// The kernel's release.
    pub kernel: String,
    /// What the kernel does against Spectre v2: it makes helper calls dearer.
    pub mitigation: String,
    /// The load average of the last minute, at the end.
    pub load: String,
}

impl Machine {
    pub(crate) fn read(on: usize) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
        };
        Ok(Self {
            cpu: format!("{} (family {} model {})", field("model name"), field("cpu family"), field("model")),
            on,
            guest: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            // Not there on kernels without the option.
            mitigation: read("/sys/devices/system/cpu/vulnerabilities/spectre_v2")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

/// All figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every row with its samples.
    pub rows: Vec<Row>,
    /// What was measured off the packet path.
    pub facts: Vec<Fact>,
    /// Program → instructions that the verifier looked at.
    pub verified: Vec<(&'static str, u32)>,
    /// What it was measured on.
    pub machine: Machine,
    /// How much was measured.
    pub options: Options,
}

impl Report {
    /// The rows of the packet path against the forwarders.
    #[must_use]
    pub fn ratios(&self) -> Vec<Ratio> {
        ratios(&self.rows)
    }

    /// Whether every goal is met.
    #[must_use]
    pub fn met(&self) -> bool {
        self.ratios().iter().all(Ratio::met) && self.facts.iter().all(Fact::met)
    }

    /// A table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Machine { cpu, on, guest, kernel, mitigation, load } = &self.machine;
        let mut text = format!(
            "{cpu}{}, CPU {on}; Linux {kernel}; Spectre v2: {mitigation}; load {load}\n\
             {} samples of each row, in turn; {} runs in a sample\n\n\
             {:<13}{:<20}{:>8}{:>9}   {:<15}goal\n",
            if *guest { ", virtual" } else { "" },
            self.options.samples,
            self.options.calls * super::loaded::REPEAT,
            "",
            "ns per packet",
            "min",
            "median",
            "x forwarder",
        );
        let ratios = self.ratios();
        let mut groups = vec![Group::Baseline];
        groups.extend(Hook::ALL.into_iter().flat_map(|hook| [Group::Path(hook), Group::Against(hook)]));
        for group in groups {
            for row in self.rows.iter().filter(|row| row.group == group) {
                let Figure { min, median } = row.figure();
                let ratio = ratios.iter().find(|ratio| ratio.group == group && ratio.row == row.name);
                let (shown, goal) = ratio.map_or_else(
                    || (String::new(), Judged(None, true)),
                    |r| (format!("{:.2} / {:.2}", r.min, r.median), Judged(r.goal, r.met())),
                );
                let line = format!("{:<13}{:<20}{min:>8.1}{median:>9.1}   {shown:<15}{goal}", group.name(), row.name);
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text.push('\n');
        for fact in &self.facts {
            let value = format!("{:.3} {}", fact.value, fact.unit);
            let line = format!("{:<46}{value:>14}   {}", fact.what, Judged(fact.goal, fact.met()));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for (name, count) in &self.verified {
            let _ = writeln!(text, "{:<46}{count:>14}", format!("instructions the verifier looked at, {name}"));
        }
        text
    }

    /// Every figure: medians under `xdp`, `tc` and `baseline`, the lowest samples under `min` in the same shape.
    #[must_use]
    pub fn json(&self) -> Value {
        let groups = |figure: &dyn Fn(&Row) -> f64| {
            let mut groups: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
            for row in &self.rows {
                groups.entry(row.group.name()).or_default().insert(row.name.to_owned(), json!(rounded(figure(row))));
            }
            groups
        };
        let mut report = Map::new();
        for (name, group) in groups(&|row| row.figure().median) {
            report.insert(name.to_owned(), Value::Object(group));
        }
        report.insert("min".to_owned(), json!(groups(&|row| row.figure().min)));
        let ratios = self.ratios().into_iter().map(|ratio| {
            json!({
                "group": ratio.group.name(), "row": ratio.row,
                "min": rounded(ratio.min), "median": rounded(ratio.median),
                "goal": ratio.goal, "met": ratio.goal.map(|_| ratio.met()),
            })
        });
        report.insert("ratios".to_owned(), ratios.collect());
        let table = self.facts.iter().map(|fact| (fact.name.to_owned(), json!(rounded(fact.value))));
        report.insert("table".to_owned(), Value::Object(table.collect()));
        let goals = self.facts.iter().filter_map(|fact| Some((fact.name.to_owned(), json!(fact.goal?))));
        report.insert("table_goals".to_owned(), Value::Object(goals.collect()));
        let verified = self.verified.iter().map(|(name, count)| ((*name).to_owned(), json!(count)));
        report.insert("verified_instructions".to_owned(), Value::Object(verified.collect()));
        let Machine { cpu, on, guest, kernel, mitigation, load } = &self.machine;
        let machine = json!({
            "cpu": cpu, "on_cpu": on, "guest": guest, "kernel": kernel, "spectre_v2": mitigation, "load": load,
        });
        report.insert("machine".to_owned(), machine);
        report.insert("samples".to_owned(), json!(self.options.samples));
        report.insert("runs_per_sample".to_owned(), json!(self.options.calls * super::loaded::REPEAT));
        Value::Object(report)
    }

    /// The rows as bars, in SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        plot::svg(self)
    }
}

/// Three decimals: more would only look exact.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

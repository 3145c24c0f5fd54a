//! From samples to figures: the lowest and the median of each row, the ratios, and the goals they are held against.

use std::fmt;

use super::Hook;

/// The two figures of a row, in nanoseconds per packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The lowest sample: what it costs when nobody disturbs.
    pub min: f64,
    /// The sample in the middle.
    pub median: f64,
}

impl Figure {
    /// The figures of some samples; zeros if there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { min: at(0), median }
    }
}

/// A group of rows, as the report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The packet path at a hook.
    Path(Hook),
    /// Another build of it.
    Against(Hook),
    /// What it is measured against.
    Baseline,
}

impl Group {
    /// The name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path(Hook::Xdp) => "xdp",
            Self::Path(Hook::Tc) => "tc",
            Self::Against(Hook::Xdp) => "xdp_against",
            Self::Against(Hook::Tc) => "tc_against",
            Self::Baseline => "baseline",
        }
    }
}

/// One measured row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its group.
    pub group: Group,
    /// Its name in the report.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Its samples, in nanoseconds per packet.
    pub samples: Vec<f64>,
}

impl Row {
    /// Its figures.
    #[must_use]
    pub fn figure(&self) -> Figure {
        Figure::of(&self.samples)
    }
}

/// A row of the packet path against the forwarder of the same hook.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// The row's group.
    pub group: Group,
    /// The row.
    pub row: &'static str,
    /// Lowest sample against lowest sample.
    pub min: f64,
    /// Median against median.
    pub median: f64,
    /// The most that both may be, if there is a goal.
    pub goal: Option<f64>,
}

impl Ratio {
    /// Whether the goal is met; without a goal it is.
    #[must_use]
    pub fn met(&self) -> bool {
        self.goal.is_none_or(|goal| self.min <= goal && self.median <= goal)
    }
}

/// The name of the forwarder's row at a hook.
#[must_use]
pub(super) const fn forwarder(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "forwarder_ns",
        Hook::Tc => "tc_forwarder_ns",
    }
}

/// The most that a row may cost, as a multiple of the forwarder of its hook.
const fn goal(hook: Hook, row: &str) -> Option<f64> {
    Some(match (hook, row.as_bytes()) {
        (Hook::Xdp, b"forward_ns" | b"reverse_ns") => 0.65,
        (Hook::Tc, b"forward_ns" | b"reverse_ns") => 0.75,
        (_, b"forward_1m_ns" | b"reverse_1m_ns") => 2.4,
        (_, b"pass_ns") => 0.55,
        _ => return None,
    })
}

/// The ratios of all rows of the packet path.
#[must_use]
pub(super) fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let figure = |name: &str| rows.iter().find(|row| row.group == Group::Baseline && row.name == name).map(Row::figure);
    rows.iter()
        .filter_map(|row| {
            let (hook, goal) = match row.group {
                Group::Path(hook) => (hook, goal(hook, row.name)),
                Group::Against(hook) => (hook, None),
                Group::Baseline => return None,
            };
            let (own, base) = (row.figure(), figure(forwarder(hook))?);
            Some(Ratio {
                group: row.group,
                row: row.name,
                min: own.min / base.min,
                median: own.median / base.median,
                goal,
            })
        })
        .collect()
}

/// A figure off the packet path.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its name in the report.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// The unit of value and goal.
    pub unit: &'static str,
    /// The most that it may be, if there is a goal.
    pub goal: Option<f64>,
}

impl Fact {
    /// Whether the goal is met; without a goal it is.
    #[must_use]
    pub fn met(&self) -> bool {
        self.goal.is_none_or(|goal| self.value <= goal)
    }
}

/// How many random places of memory a packet of one of a million flows has to wait for: what it costs more than one of
/// the hot flow, in loads of the baseline. `None`: these rows were not measured.
pub(super) fn random_loads(rows: &[Row]) -> Option<Fact> {
    let median = |group, name: &str| {
        let row = rows.iter().find(|row| row.group == group && row.name == name);
        row.map(|row| row.figure().median)
    };
    let path = |name| median(Group::Path(Hook::Xdp), name);
    let value = (path("forward_1m_ns")? - path("forward_ns")?) / median(Group::Baseline, "memory_ns")?;
    let what = "random places of memory, 1,000,000 flows";
    Some(Fact { name: "random_places", what, value, unit: "loads", goal: None })
}

/// `PASS` or `FAIL`, with the goal; nothing without one.
pub(super) struct Judged(pub(super) Option<f64>, pub(super) bool);

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(None, _) => Ok(()),
            Self(Some(goal), met) => write!(f, "<= {goal}  {}", if *met { "PASS" } else { "FAIL" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: Group, name: &'static str, samples: &[f64]) -> Row {
        Row { group, name, what: "", samples: samples.to_vec() }
    }

    #[test]
    fn the_median_is_in_the_middle_of_odd_and_even_counts() {
        assert_eq!(Figure::of(&[3.0, 1.0, 2.0]), Figure { min: 1.0, median: 2.0 });
        assert_eq!(Figure::of(&[4.0, 1.0, 2.0, 3.0]), Figure { min: 1.0, median: 2.5 });
    }

    #[test]
    fn a_goal_is_met_only_by_minimum_and_median() {
        let base = row(Group::Baseline, "forwarder_ns", &[100.0, 100.0, 100.0]);
        for (samples, met) in [([60.0, 64.0, 90.0], true), ([60.0, 66.0, 90.0], false), ([66.0, 66.0, 66.0], false)] {
            let rows = [row(Group::Path(Hook::Xdp), "forward_ns", &samples), base.clone()];
            assert_eq!(ratios(&rows)[0].met(), met, "{samples:?}");
        }
    }

    #[test]
    fn each_hook_is_measured_against_its_own_forwarder() {
        let rows = [
            row(Group::Path(Hook::Tc), "forward_ns", &[90.0]),
            row(Group::Baseline, "forwarder_ns", &[100.0]),
            row(Group::Baseline, "tc_forwarder_ns", &[180.0]),
        ];
        assert!((ratios(&rows)[0].min - 0.5).abs() < 1e-9);
    }
}

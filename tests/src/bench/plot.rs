//! The rows as horizontal bars: dark up to the lowest sample, light up to the median, a line at the goal.

use std::fmt::Write as _;

use super::{
    Hook,
    figures::{Group, Row, forwarder},
    report::Report,
};

const WIDTH: f64 = 960.0;
/// Where bars begin and end.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 730.0;
const LINE: f64 = 24.0;
const BAR: f64 = 14.0;

/// Draws the report.
pub(super) fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 64.0;
    for hook in Hook::ALL {
        y = panel(&mut body, report, hook, y) + 36.0;
    }
    let machine = &report.machine;
    let notes = [
        format!("dark: lowest of {} samples; light: median; red: goal", report.options.samples),
        format!("{}; Linux {}", machine.cpu, machine.kernel),
    ];
    for note in &notes {
        let _ = writeln!(body, r##"<text x="24" y="{y:.0}" fill="#666">{}</text>"##, escaped(note));
        y += 18.0;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0}" viewBox="0 0 {WIDTH} {y:.0}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#fff"/>
<text x="24" y="34" font-size="19" fill="#111">What a packet costs: nanoseconds in the program</text>
{body}</svg>
"##
    )
}

/// The rows of one hook, baseline first; answers where the panel ends.
fn panel(body: &mut String, report: &Report, hook: Hook, top: f64) -> f64 {
    let base = forwarder(hook);
    let noop = match hook {
        Hook::Xdp => "noop_ns",
        Hook::Tc => "tc_noop_ns",
    };
    let of_hook = |row: &&Row| match row.group {
        Group::Path(of) | Group::Against(of) => of == hook,
        Group::Baseline => [base, noop, "memory_ns"].contains(&row.name),
    };
    let rows: Vec<&Row> = report.rows.iter().filter(of_hook).collect();
    let ratios = report.ratios();
    let unit = rows.iter().find(|row| row.name == base).map(|row| row.figure().median);
    let goal = |row: &Row| {
        let ratio = ratios.iter().find(|ratio| ratio.group == row.group && ratio.row == row.name)?;
        Some(ratio.goal? * unit?)
    };
    let longest = rows.iter().map(|row| row.figure().median.max(goal(row).unwrap_or(0.0))).fold(1.0, f64::max);
    let step = step(longest);
    let x = |ns: f64| LEFT + ns / longest * (RIGHT - LEFT);

    let _ =
        writeln!(body, r##"<text x="24" y="{top:.0}" font-size="15" font-weight="bold" fill="#111">{hook}</text>"##);
    let bottom = top + 12.0 + LINE * rows.len() as f64;
    let mut at = 0.0;
    while at <= longest {
        let (x, low) = (x(at), bottom + 14.0);
        let _ = writeln!(
            body,
            r##"<line x1="{x:.1}" y1="{:.0}" x2="{x:.1}" y2="{bottom:.0}" stroke="#ddd"/><text x="{x:.1}" y="{low:.0}" font-size="11" text-anchor="middle" fill="#666">{at:.0}</text>"##,
            top + 8.0
        );
        at += step;
    }
    for (index, row) in rows.iter().enumerate() {
        let y = top + 14.0 + LINE * index as f64;
        let (figure, text) = (row.figure(), y + BAR - 3.0);
        let (dark, light) = match row.group {
            Group::Path(_) => ("#1f6f9f", "#a9d3ea"),
            Group::Against(_) => ("#8a6d1f", "#e4d5a8"),
            Group::Baseline => ("#777", "#ccc"),
        };
        let name = row.name.trim_start_matches("tc_").trim_end_matches("_ns").replace('_', " ");
        let name = match row.group {
            Group::Path(_) => name,
            Group::Against(_) => format!("other build: {name}"),
            Group::Baseline if row.name == "memory_ns" => "one load from random memory".to_owned(),
            Group::Baseline => format!("baseline: {name}"),
        };
        let ratio = unit
            .filter(|_| row.name != base)
            .map_or_else(String::new, |unit| format!(" = {:.2} x", figure.median / unit));
        let _ = writeln!(
            body,
            r##"<text x="{:.0}" y="{text:.0}" text-anchor="end" fill="#111">{name}</text><rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" fill="{light}"/><rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" fill="{dark}"/><text x="{:.0}" y="{text:.0}" fill="#111">{:.0} / {:.0} ns{ratio}</text>"##,
            LEFT - 10.0,
            x(figure.median) - LEFT,
            x(figure.min) - LEFT,
            RIGHT + 14.0,
            figure.min,
            figure.median,
        );
        if let Some(goal) = goal(row).map(x) {
            let _ = writeln!(
                body,
                r##"<line x1="{goal:.1}" y1="{:.1}" x2="{goal:.1}" y2="{:.1}" stroke="#c22" stroke-width="2"/>"##,
                y - 3.0,
                y + BAR + 3.0
            );
        }
    }
    bottom + 14.0
}

/// A round distance of grid lines.
fn step(longest: f64) -> f64 {
    let steps = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];
    steps.into_iter().find(|step| longest / step <= 8.0).unwrap_or(10_000.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

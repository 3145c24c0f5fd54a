//! The text of `lb-agent check`: every problem, or what the file sets up and the memory it will take.

use std::fmt::Write as _;
use std::path::Path;

use super::diagnostic::counted;
use super::duration::format_duration;
use super::memory::table_memory;
use super::model::{Config, Interface};
use super::vrrp::Vip;
use super::{Checked, check_file};
use crate::health::pool::Tier;

/// Checks the file at `path` and describes the outcome for a person: the text ends with a newline and the flag is
/// false when there was an error. Warnings are shown and do not fail.
#[must_use]
pub fn check_report(path: &Path) -> (String, bool) {
    let Checked { config, diagnostics } = check_file(path);
    let mut text = String::new();
    if !diagnostics.is_empty() {
        text = format!("{diagnostics}\n");
    }
    match &config {
        Some(config) => {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}: OK\n{}", diagnostics.source_name(), summary(config));
            (text, true)
        }
        None => (text, false),
    }
}

fn summary(config: &Config) -> String {
    let Config { interfaces, tables, services, .. } = config;
    let backends = services.iter().map(|service| service.backends.len()).sum();
    let names: Vec<String> = interfaces.iter().map(|Interface { name, mode }| format!("{name} ({mode})")).collect();
    let memory = table_memory(tables);
    let total = memory.iter().map(|(_, bytes)| bytes).sum();
    let mut lines = vec![
        format!("  {}: {}", counted(interfaces.len(), "interface"), names.join(", ")),
        format!("  {}, {}", counted(services.len(), "service"), counted(backends, "backend")),
    ];
    for service in services {
        lines.push(format!("    {} {} {}", service.name, service.listen, service.scheduler));
        if let Some(check) = &service.check {
            let ends = format_duration(check.cadence.detection());
            let inter = format_duration(check.cadence.inter);
            lines.push(format!(
                "      checked at level {} every {inter}; out {ends} after the first failing check begins",
                check.level
            ));
        }
        for backend in &service.backends {
            let tier = if backend.tier == Tier::Primary { String::new() } else { format!(" {}", backend.tier) };
            lines.push(format!("      -> {} weight {}{tier}", backend.address, backend.weight));
        }
    }
    if let Some(vrrp) = &config.vrrp {
        lines.push(format!(
            "  VRRP version {}, an advert every {}, {} that move together",
            vrrp.version.number(),
            format_duration(vrrp.advert.duration()),
            counted(vrrp.vips.len(), "VIP")
        ));
        for Vip { address, prefix, interface, vrid } in &vrrp.vips {
            lines.push(format!("    {address}/{prefix} on {interface}, VRID {vrid}"));
        }
        let directors = config.directors.iter();
        let directors: Vec<String> = directors.map(|d| format!("{} (priority {})", d.name, d.priority)).collect();
        lines.push(format!("  {}: {}", counted(directors.len(), "director"), directors.join(", ")));
    }
    if let Some(sync) = &config.sync {
        let key = sync.key_file.as_ref().map_or("UNPROTECTED".to_owned(), |path| format!("key {}", path.display()));
        lines.push(format!(
            "  connection sync to {}, {key}, a heartbeat every {}",
            sync.path(),
            format_duration(sync.heartbeat)
        ));
    }
    lines.push(format!("  kernel memory of the large tables: {}", mebibytes(total)));
    let of_what = [
        counted(tables.conns as usize, "conn"),
        counted(tables.half_open as usize, "half-open conn"),
        counted(tables.services as usize, "service"),
        String::from("ring buffer"),
    ];
    for ((name, bytes), of_what) in memory.into_iter().zip(of_what) {
        lines.push(format!("    {name:<9} {:>10}  {of_what}", mebibytes(bytes)));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Bytes with one decimal place of MiB, rounded up: a plan must not be too small.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_rounded_up() {
        assert_eq!(mebibytes(0), "0.0 MiB");
        assert_eq!(mebibytes(1), "0.1 MiB");
        assert_eq!(mebibytes(1 << 20), "1.0 MiB");
        assert_eq!(mebibytes(29_794_304), "28.5 MiB");
    }
}

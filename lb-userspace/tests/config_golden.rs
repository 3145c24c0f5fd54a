//! Broken and doubtful configuration files with the whole text that `lb-agent check` prints for them.
//!
//! `golden/NN-name.toml` is the file, `golden/NN-name.txt` the text. After a wanted change of the texts:
//! `BLESS=1 cargo test -p lb-userspace --test config_golden`, then read the diff in git as a user would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use lb_userspace::config::{Code, check_file, check_report, check_text};
use lb_userspace::vrrp::{Version, interval::Interval, machine::Preempt, packet::Auth};

/// The golden files by name. Cargo runs tests in the package's directory, so paths in the texts are the same everywhere.
fn golden_files() -> Vec<PathBuf> {
    let entries = fs::read_dir("tests/golden").expect("the directory of the golden files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// Files named `NN-warn-…` are accepted with warnings, all others are refused.
fn is_accepted(path: &Path) -> bool {
    path.to_string_lossy().contains("-warn-")
}

/// Both texts line by line, with what is only in one marked.
fn diff(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same_start = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let rest = expected.len().min(found.len()) - same_start;
    let same_end = expected.iter().rev().zip(found.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut out = String::new();
    for line in &expected[same_start..expected.len() - same_end] {
        out += &format!("  - {line}\n");
    }
    for line in &found[same_start..found.len() - same_end] {
        out += &format!("  + {line}\n");
    }
    format!("  from line {} on:\n{out}", same_start + 1)
}

#[test]
fn every_golden_file_prints_its_text() {
    let bless = env::var_os("BLESS").is_some();
    let files = golden_files();
    assert!(files.len() >= 24, "only {} golden files", files.len());
    let mut failures = String::new();
    for path in &files {
        let (text, ok) = check_report(path);
        if ok != is_accepted(path) {
            failures += &format!("{}: accepted = {ok}\n", path.display());
        }
        let txt = path.with_extension("txt");
        if bless {
            fs::write(&txt, &text).expect("writing a golden text");
            continue;
        }
        let expected = fs::read_to_string(&txt).unwrap_or_default();
        if expected != text {
            failures += &format!("{}: the text differs\n{}", path.display(), diff(&expected, &text));
        }
    }
    assert!(
        failures.is_empty(),
        "\n{failures}\nIf the new texts are right: BLESS=1 cargo test -p lb-userspace --test config_golden\n"
    );
}

#[test]
fn every_text_belongs_to_a_file() {
    for entry in fs::read_dir("tests/golden").expect("the directory of the golden files") {
        let path = entry.expect("a directory entry").path();
        assert!(path.with_extension("toml").exists(), "{} has no .toml", path.display());
    }
}

#[test]
fn every_code_is_shown_by_a_golden_file() {
    let shown: BTreeSet<Code> = golden_files()
        .iter()
        .flat_map(|path| check_file(path).diagnostics.iter().map(|item| item.code).collect::<Vec<_>>())
        .collect();
    // Files that are absent or huge are made on the fly: by the tests of the loader, and below.
    let elsewhere = [Code::Unreadable, Code::TooLarge, Code::RingFull];
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !shown.contains(code) && !elsewhere.contains(code)).collect();
    assert!(missing.is_empty(), "no golden file for {missing:?}");
}

#[test]
fn every_diagnostic_of_a_text_has_a_place_and_a_remedy() {
    for path in golden_files() {
        for item in &check_file(&path).diagnostics {
            assert!(!item.message.is_empty() && !item.help.is_empty(), "{}: {item:?}", path.display());
            assert!(item.location.is_some() || item.code == Code::Empty, "{}: {item:?}", path.display());
        }
    }
}

#[test]
fn the_classic_example_passes_without_warnings() {
    let checked = check_file(Path::new("config/classic.toml"));
    assert!(checked.diagnostics.is_empty(), "{}", checked.diagnostics);
    let config = checked.config.expect("a configuration");
    let backends: Vec<String> = config.services[0].backends.iter().map(|b| b.address.to_string()).collect();
    assert_eq!(config.services[0].listen.to_string(), "10.80.1.243:3306");
    assert_eq!(backends, ["192.168.80.167:3306", "192.168.80.136:3306"]);
    let (text, ok) = check_report(Path::new("config/classic.toml"));
    assert!(ok && text.contains("config/classic.toml: OK\n") && text.contains("2 backends"), "{text}");
}

#[test]
fn the_example_of_a_pair_is_the_classic_setup() {
    let checked = check_file(Path::new("config/pair.toml"));
    assert!(checked.diagnostics.is_empty(), "{}", checked.diagnostics);
    let config = checked.config.expect("a configuration");
    let vrrp = config.vrrp.as_ref().expect("[vrrp]");
    assert_eq!((vrrp.version, vrrp.advert, vrrp.preempt), (Version::V2, Interval::SECOND, Preempt::Never));
    assert_eq!(Some(vrrp.auth), Auth::pass("1111"));
    let vips: Vec<_> = vrrp.vips.iter().map(|vip| (vip.address.to_string(), vip.prefix, vip.vrid)).collect();
    assert_eq!(vips, [("10.80.1.243".to_owned(), 24, 52), ("192.168.80.111".to_owned(), 24, 51)]);
    assert_eq!(config.director("d1").map(|director| director.priority), Ok(101));
    assert_eq!(config.director("d2").map(|director| director.priority), Ok(100));
    let refusal = config.director("db1").unwrap_err();
    assert!(
        refusal.contains("[director.db1]") && refusal.contains("d1, d2") && refusal.contains("--node"),
        "{refusal}"
    );
    let (text, ok) = check_report(Path::new("config/pair.toml"));
    assert!(ok && text.contains("192.168.80.111/24 on eth1, VRID 51\n"), "{text}");
    assert!(text.contains("2 directors: d1 (priority 101), d2 (priority 100)\n"), "{text}");
    let json = serde_json::to_string(&config).expect("JSON");
    assert!(!json.contains("1111"), "the password is shown: {json}");
}

#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let text = fs::read_to_string("config/classic.toml").expect("the example");
    // `# [agent]` and `# key = value` become live; sentences stay comments.
    let live: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => rest,
            _ => line,
        })
        .collect();
    let live = live.join("\n");
    for section in ["\n[agent]", "\n[table]", "\n[timeouts]", "\nestablished", "\nhalf_open"] {
        assert!(live.contains(section), "{section} is not in the example");
    }
    let plain = check_text("plain", &text);
    let spelled_out = check_text("spelled out", &live);
    assert!(spelled_out.diagnostics.is_empty(), "{}", spelled_out.diagnostics);
    assert_eq!(plain.config, spelled_out.config);
}

#[test]
fn a_service_has_as_many_backends_as_half_its_ring() {
    let text = |backends: usize| {
        let mut text = String::from(
            "schema_version = 1\n[[interface]]\nname = \"eth0\"\n[table]\nbackends = 4096\n\
             [[service]]\nname = \"s\"\nlisten = \"10.80.1.243:3306\"\n",
        );
        for i in 0..backends {
            text += &format!("[[service.backend]]\naddress = \"192.168.{}.{}:3306\"\n", i / 256, i % 256);
        }
        text
    };
    let full = check_text("full", &text(2048));
    assert!(full.config.is_some(), "{}", full.diagnostics);
    let over = check_text("over", &text(2050)).diagnostics;
    let found: Vec<_> = over.iter().map(|item| (item.code, item.location.as_ref().map(|at| at.line))).collect();
    assert_eq!(found, [(Code::RingFull, Some(8 + 2 * 2048 + 1))], "{over}");
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

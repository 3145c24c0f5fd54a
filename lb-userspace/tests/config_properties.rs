//! Properties of the configuration reader on text that nobody would write: it never panics, never loses an error, and
//! what it prints stays bounded and harmless.

use std::time::Duration;

use lb_userspace::config::{Checked, Config, check_text};
use proptest::prelude::*;

const CLASSIC: &str = include_str!("../config/classic.toml");
const BROKEN: [&str; 4] = [
    include_str!("golden/08-wrong-types.toml"),
    include_str!("golden/12-single-brackets.toml"),
    include_str!("golden/29-key-twice.toml"),
    include_str!("golden/41-arrays-and-tables-in-lines.toml"),
];

/// What must hold of every text.
fn holds(text: &str) -> Result<(), TestCaseError> {
    let Checked { config, diagnostics } = check_text("lb.toml", text);
    prop_assert_eq!(config.is_some(), diagnostics.error_count() == 0);
    prop_assert!(diagnostics.iter().count() <= 100);
    let lines = text.split('\n').count();
    let mut last = (0, 0);
    for item in &diagnostics {
        if let Some(location) = &item.location {
            prop_assert!((1..=lines).contains(&location.line), "{:?}", item);
            prop_assert!(location.column >= 1 && location.caret_len >= 1, "{:?}", item);
            prop_assert!((location.line, location.column) >= last, "not sorted: {:?} after {:?}", item, last);
            last = (location.line, location.column);
        }
    }
    let shown = diagnostics.to_string();
    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{:?}", shown);
    prop_assert!(shown.len() <= 4096 * (1 + diagnostics.iter().count()), "{} bytes", shown.len());
    if let Some(config) = config {
        prop_assert!(serde_json::to_string(&config).is_ok());
        prop_assert!(!config.services.is_empty() && !config.interfaces.is_empty());
    }
    Ok(())
}

/// One edit: at a place, remove some bytes and put `insert` there.
fn mutate(text: &str, edits: &[(usize, usize, String)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, remove, insert) in edits {
        let at = at % (chars.len() + 1);
        let end = (at + remove).min(chars.len());
        chars.splice(at..end, insert.chars());
    }
    chars.into_iter().collect()
}

fn edits() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let insert = prop_oneof![
        "[\\[\\]{}=\"'.,#\\\\\n -]{0,3}",
        "\\PC{0,3}",
        Just("\"\"\"".to_owned()),
        Just("\n[[service]]\n".to_owned()),
        Just("\n[service.backend]\n".to_owned()),
        Just("\n[service]\n".to_owned()),
        Just("\nservice.backend.x = 1\n".to_owned()),
        Just("\r".to_owned()),
        "[0-9]{1,40}",
    ];
    prop::collection::vec((0usize..4000, 0usize..40, insert), 1..6)
}

/// Lines of a configuration in any order, any number of times.
fn shuffled() -> impl Strategy<Value = String> {
    let lines: Vec<&'static str> = BROKEN.iter().flat_map(|text| text.lines()).chain(CLASSIC.lines()).collect();
    prop::collection::vec(prop::sample::select(lines), 0..40).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text(text in "(?s).{0,200}") {
        holds(&text)?;
    }

    #[test]
    fn text_of_toml_letters(text in "[a-c=\\[\\]{}\"'.,#\\\\0-9\n\r\t :-]{0,80}") {
        holds(&text)?;
    }

    #[test]
    fn a_good_file_with_edits(edits in edits()) {
        holds(&mutate(CLASSIC, &edits))?;
    }

    #[test]
    fn a_broken_file_with_edits(which in 0..BROKEN.len(), edits in edits()) {
        holds(&mutate(BROKEN[which], &edits))?;
    }

    #[test]
    fn lines_in_any_order(text in shuffled()) {
        holds(&text)?;
    }

    #[test]
    fn every_good_configuration_is_read_as_written(
        conns in 1u32..=16_777_216,
        half_open in 1024u32..=16_777_216,
        scheduler in prop::sample::select(vec!["rr", "wrr", "lc", "wlc", "sh", "mh"]),
        port in 1u16..,
        hosts in prop::collection::btree_set(1u8..=254, 1..20),
        weight in 1u16..,
    ) {
        let mut text = format!(
            "schema_version = 1\n[[interface]]\nname = \"eth0\"\n[table]\nconns = {conns}\nhalf_open = {half_open}\n\
             [[service]]\nname = \"s\"\nlisten = \"10.80.1.243:{port}\"\nscheduler = \"{scheduler}\"\n"
        );
        for host in &hosts {
            text += &format!("[[service.backend]]\naddress = \"192.168.80.{host}:{port}\"\nweight = {weight}\n");
        }
        let Checked { config, diagnostics } = check_text("lb.toml", &text);
        prop_assert!(diagnostics.is_empty(), "{}", diagnostics);
        let Config { tables, services, .. } = config.expect("a configuration");
        prop_assert_eq!((tables.conns, tables.half_open), (conns, half_open));
        prop_assert_eq!(services[0].scheduler.name(), scheduler);
        prop_assert_eq!(services[0].listen.port(), port);
        let read: Vec<u8> = services[0].backends.iter().map(|backend| backend.address.ip().octets()[3]).collect();
        prop_assert_eq!(read, hosts.into_iter().collect::<Vec<_>>());
        prop_assert!(services[0].backends.iter().all(|backend| backend.weight == weight));
    }
}

#[test]
fn a_mebibyte_of_nonsense_is_refused_quickly() {
    let one_line = "x".repeat(1 << 20);
    let short_lines = "[[service]]\n".repeat((1 << 20) / 12);
    let backends = format!("[[service]]\n{}", "[[service.backend]]\naddress=\"1.2.3.4:5\"\n".repeat((1 << 20) / 40));
    let keys = (0..60_000).map(|i| format!("key{i} = {i}\n")).collect::<String>();
    let same_key = "name = 1\n".repeat((1 << 20) / 9);
    let wide = format!("x = [{}]", "{}, ".repeat((1 << 20) / 4));
    let deep = "[".repeat(1 << 20);
    for text in [one_line, short_lines, backends, keys, same_key, wide, deep] {
        let head: String = text.chars().take(30).collect();
        let begin = cpu();
        let Checked { config, diagnostics } = check_text("lb.toml", &text);
        assert!(config.is_none(), "{head}");
        assert!(diagnostics.to_string().len() < 200_000, "{head}");
        let took = cpu() - begin;
        assert!(took.as_secs() < 5, "{head}: {took:?}");
    }
}

/// What this thread has computed so far; others may want the machine, too.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

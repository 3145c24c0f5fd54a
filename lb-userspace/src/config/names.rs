//! Names and paths: interface names as the kernel takes them, service names, absolute paths, log filters.

use std::path::{Component, Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::code::Code;
use super::problem::Problem;
use super::suggest::nearest;
use crate::printable::quote;

/// The kernel's IFNAMSIZ without the closing zero byte.
const MAX_INTERFACE_NAME: usize = 15;
/// Long enough for any name, short enough for a table column and a metric label.
const MAX_SERVICE_NAME: usize = 63;
/// The kernel's `sun_path` without the closing zero byte.
const MAX_SOCKET_PATH: usize = 107;
/// The levels a log filter can be.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads an interface name by the rules of the kernel's `dev_valid_name`.
pub(super) fn parse_interface_name(text: &str) -> Result<String, Problem> {
    let bad = |message: String, help: &str| Problem::new(Code::BadInterfaceName, message, help);
    const SEE: &str = "`ip link` lists the names";
    if text.is_empty() {
        return Err(bad("the interface name is empty".into(), SEE));
    }
    if text.len() > MAX_INTERFACE_NAME {
        let message = format!("the interface name {} is {} bytes long", quote(text), text.len());
        return Err(bad(message, "the kernel allows 15 bytes; `ip link` lists the names"));
    }
    if text == "." || text == ".." {
        return Err(bad(format!("{} is no interface name", quote(text)), SEE));
    }
    let wrong = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| wrong(c)) {
        let message = format!("an interface name cannot hold {}", name_of(c));
        return Err(bad(message, SEE).at(at..at + c.len_utf8()));
    }
    Ok(text.to_owned())
}

/// Reads a service name: what stands in tables, metric labels and on command lines without quoting.
pub(super) fn parse_service_name(text: &str) -> Result<String, Problem> {
    let bad = |message: String| {
        Problem::new(Code::BadServiceName, message, "use 1 to 63 letters, digits, `-`, `_` or `.`, like `mysql-write`")
    };
    if text.is_empty() {
        return Err(bad("the service name is empty".into()));
    }
    if text.len() > MAX_SERVICE_NAME {
        return Err(bad(format!("the service name is {} bytes long", text.len())));
    }
    let wrong = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match text.char_indices().find(|&(_, c)| wrong(c)) {
        Some((at, c)) => Err(bad(format!("a service name cannot hold {}", name_of(c))).at(at..at + c.len_utf8())),
        None => Ok(text.to_owned()),
    }
}

/// Reads the name of a director: its host name, or what `--node` says.
pub(super) fn parse_director_name(text: &str) -> Result<String, Problem> {
    parse_service_name(text).map_err(|problem| {
        let help = "use the host name or another word of 1 to 63 letters, digits, `-`, `_` or `.`, for `--node`";
        Problem {
            code: Code::BadName,
            message: problem.message.replace("service name", "director's name"),
            help: help.into(),
            ..problem
        }
    })
}

/// Reads the name of a process, as the kernel keeps it in `/proc/PID/comm`.
pub(super) fn parse_process_name(text: &str) -> Result<String, Problem> {
    let bad = |message: String| {
        Problem::new(Code::BadName, message, "give the name that `ps -o comm` shows, without its directory")
    };
    if text.is_empty() {
        return Err(bad("the name of the process is empty".into()));
    }
    if text.contains(['/', '\0', '\n']) {
        return Err(bad(format!("{} is not the name of a process", quote(text))));
    }
    Ok(text.to_owned())
}

/// Reads the path of a program that the agent runs.
pub(super) fn parse_program(text: &str) -> Result<PathBuf, Problem> {
    parse_path(text, "/etc/lb/notify")
}

/// Reads the path of the file with the key of connection sync.
pub(super) fn parse_key_file(text: &str) -> Result<PathBuf, Problem> {
    parse_path(text, "/etc/lb/sync.key")
}

/// Reads the directory for pins. Whether it lies in a bpffs is a question for run time.
pub(super) fn parse_pin_dir(text: &str) -> Result<PathBuf, Problem> {
    parse_path(text, "/sys/fs/bpf/lb")
}

/// Reads the path of the control socket.
pub(super) fn parse_socket_path(text: &str) -> Result<PathBuf, Problem> {
    let path = parse_path(text, "/run/lb/agent.sock")?;
    if text.ends_with('/') {
        let help = "add the name of the socket, like `/run/lb/agent.sock`";
        return Err(Problem::new(Code::BadPath, format!("{} is a directory", quote(text)), help));
    }
    if text.len() > MAX_SOCKET_PATH {
        let message = format!("the socket path is {} bytes long", text.len());
        return Err(Problem::new(Code::SocketPathLength, message, "the kernel allows 107 bytes; use a shorter path"));
    }
    Ok(path)
}

/// Reads the path of a file that is read at run time.
pub(super) fn parse_file(text: &str) -> Result<PathBuf, Problem> {
    let path = parse_path(text, "/etc/lb/check.pw")?;
    if text.ends_with('/') {
        return Err(Problem::new(Code::BadPath, format!("{} is a directory", quote(text)), "add the name of the file"));
    }
    Ok(path)
}

fn parse_path(text: &str, example: &str) -> Result<PathBuf, Problem> {
    let bad = |message: String, help: String| Err(Problem::new(Code::BadPath, message, help));
    let path = Path::new(text);
    if text.is_empty() {
        return bad("the path is empty".into(), format!("write an absolute path, like `{example}`"));
    }
    if !path.is_absolute() {
        let help = format!("write the whole path from `/`, like `{example}`: a service has no home of its own");
        return bad(format!("the path {} is relative", quote(text)), help);
    }
    if text.contains(char::is_control) {
        return bad("a control character in a path".into(), format!("write a plain path, like `{example}`"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return bad(format!("`..` in the path {}", quote(text)), "write the path without detours".into());
    }
    if path.parent().is_none() {
        return bad("the path is the root directory".into(), format!("name a place below it, like `{example}`"));
    }
    Ok(path.to_owned())
}

/// Reads a `tracing` filter.
pub(super) fn parse_log_filter(text: &str) -> Result<String, Problem> {
    let help = "use off, error, warn, info, debug or trace, or directives like `info,lb_userspace::datapath=debug`";
    // A lone word that is no level would be taken for a target and show everything of a module that does not exist.
    if !text.contains(['=', ',', '[']) && !LOG_LEVELS.contains(&text.to_ascii_lowercase().as_str()) {
        let help = match nearest(text, LOG_LEVELS.into_iter()) {
            Some(level) => format!("did you mean `{level}`? The levels are {}", LOG_LEVELS.join(", ")),
            None => help.to_owned(),
        };
        return Err(Problem::new(Code::BadLogFilter, format!("{} is not a log level", quote(text)), help));
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(Problem::new(Code::BadLogFilter, format!("{} is not a log filter: {error}", quote(text)), help))
        }
    }
}

fn name_of(c: char) -> String {
    match c {
        ' ' => String::from("a blank"),
        '\t' => String::from("a tab"),
        c if c.is_control() => String::from("a control character"),
        c => quote(c.encode_utf8(&mut [0; 4])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for name in ["eth0", "bond0.100", "enp0s31f6", "wan-ü", "exactly15bytes_"] {
            assert_eq!(parse_interface_name(name).as_deref(), Ok(name));
        }
        for (name, part) in [
            ("", None),
            (".", None),
            ("..", None),
            ("sixteen_bytes__0", None),
            ("eth 0", Some(3..4)),
            ("eth/0", Some(3..4)),
            ("eth0:1", Some(4..5)),
            ("eth\u{0}", Some(3..4)),
            ("eth\u{a0}0", Some(3..5)),
        ] {
            assert_eq!(parse_interface_name(name).map_err(|problem| problem.part), Err(part), "{name:?}");
        }
    }

    #[test]
    fn service_names_need_no_quoting() {
        for name in ["mysql", "mysql-write", "a.b_c", &"x".repeat(63)] {
            assert_eq!(parse_service_name(name).as_deref(), Ok(name));
        }
        for name in ["", "my sql", "mysql:3306", "büro", &"x".repeat(64)] {
            assert!(parse_service_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn paths_are_absolute_plain_and_short_enough() {
        assert_eq!(parse_pin_dir("/sys/fs/bpf/lb"), Ok(PathBuf::from("/sys/fs/bpf/lb")));
        for path in ["", "lb", "./lb", "/", "/sys/../etc", "/run/\u{0}"] {
            assert_eq!(parse_pin_dir(path).map_err(|problem| problem.code), Err(Code::BadPath), "{path:?}");
        }
        let longest = format!("/{}", "x".repeat(106));
        assert_eq!(parse_socket_path(&longest), Ok(PathBuf::from(&longest)));
        let code = |path: &str| parse_socket_path(path).map_err(|problem| problem.code);
        assert_eq!(code(&format!("{longest}x")), Err(Code::SocketPathLength));
        assert_eq!(code("/run/lb/"), Err(Code::BadPath));
    }

    #[test]
    fn log_filters_are_levels_or_directives() {
        for filter in ["info", "OFF", "info,lb_userspace::datapath=debug", "lb_userspace[conn]=trace"] {
            assert_eq!(parse_log_filter(filter).as_deref(), Ok(filter));
        }
        assert!(parse_log_filter("infoo").unwrap_err().help.starts_with("did you mean `info`?"));
        for filter in ["", "lb_userspace", "lb_userspace=loud", "info,="] {
            assert_eq!(parse_log_filter(filter).map_err(|problem| problem.code), Err(Code::BadLogFilter), "{filter:?}");
        }
    }
}

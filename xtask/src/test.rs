//! `cargo xtask test`: runs the tests by level and prints one table and one line of totals.
//!
//! Owns what belongs to which level and what a level needs of the machine. A level that cannot run is reported as
//! SKIPPED with its reason and fails the run, unless `--allow-skip` is given: a skip is never silent.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{
    build, cmd,
    host::{self, Privileges},
    kernels,
    libtest::{Reader, Tally},
    paths, setup,
};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Levels to run; all but kernels if none is given
    #[arg(long = "level", value_enum)]
    levels: Vec<Level>,
    /// Exit with success although a level could not run
    #[arg(long)]
    allow_skip: bool,
    /// Passed on to the test programs, such as part of a test's name
    #[arg(last = true)]
    rest: Vec<String>,
}

/// From the quick tests that run anywhere to the slow ones that take a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    /// Libraries with their own tests, doc examples, and the files of tests/tests without a prefix; needs no root
    Unit,
    /// tests/tests/prog_*.rs: the eBPF programs under BPF_PROG_TEST_RUN; needs root
    Prog,
    /// tests/tests/lab_*.rs: network namespaces and real MariaDB servers; needs root
    Lab,
    /// tests/tests/prog_*.rs once more, under Debian's stock kernels in QEMU
    Kernels,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Prog => "prog",
            Self::Lab => "lab",
            Self::Kernels => "kernels",
        }
    }

    /// The level of an integration test, by its name.
    fn of(test: &str) -> Self {
        match test.split_once('_') {
            Some(("prog", _)) => Self::Prog,
            Some(("lab", _)) => Self::Lab,
            _ => Self::Unit,
        }
    }

    /// Gets ready what the level needs; says why it cannot run here if it cannot.
    fn prepare(self) -> Result<Option<String>> {
        if self == Self::Unit {
            return Ok(None);
        }
        if self == Self::Kernels {
            return Ok(setup::guest().err().map(|error| format!("{error:#}")));
        }
        let privileges = Privileges::read()?;
        if let Some(reason) = privileges.lacks() {
            return Ok(Some(reason));
        }
        if let Err(error) = setup::bpffs() {
            return Ok(Some(format!("no BPF file system at /sys/fs/bpf: {error:#}")));
        }
        if self == Self::Lab {
            if !host::can_make_netns() {
                return Ok(Some("network namespaces cannot be made here".into()));
            }
            if let Err(error) = setup::lab() {
                return Ok(Some(format!("{error:#}")));
            }
        }
        Ok(None)
    }
}

/// What became of a level.
struct Row {
    level: Level,
    outcome: Outcome,
    took: Duration,
}

enum Outcome {
    Ran(Tally),
    Skipped(String),
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { levels, allow_skip, rest } = args;
    let levels: BTreeSet<Level> = if levels.is_empty() {
        println!("not run: level kernels, the programs in an emulator, takes minutes; ask for it by `--level kernels`");
        Level::value_variants().iter().copied().filter(|level| *level != Level::Kernels).collect()
    } else {
        levels.into_iter().collect()
    };
    // Tests of every level may start lb-agent and lbctl.
    build::build(false)?;
    let tests = integration_tests(&paths::root().join("tests/tests"))?;

    let mut rows = Vec::new();
    for level in levels {
        println!("\n== level {}", level.name());
        let start = cmd::clock();
        let outcome = run_level(level, &tests, &rest)?;
        if let Outcome::Skipped(reason) = &outcome {
            println!("SKIPPED: {reason}");
        }
        rows.push(Row { level, outcome, took: start.elapsed() });
    }
    print!("{}", summary(&rows));
    Ok(if good(&rows, allow_skip) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_level(level: Level, tests: &[String], rest: &[String]) -> Result<Outcome> {
    let files = if level == Level::Kernels { Level::Prog } else { level };
    let mine: Vec<&String> = tests.iter().filter(|test| Level::of(test) == files).collect();
    if level != Level::Unit && mine.is_empty() {
        return Ok(Outcome::Skipped(format!("there is no tests/tests/{}_*.rs", level.name())));
    }
    if let Some(reason) = level.prepare()? {
        return Ok(Outcome::Skipped(reason));
    }
    if level == Level::Kernels {
        return under_kernels(&mine, rest);
    }
    let mut tally = Tally::default();
    for mut command in commands(level, &mine) {
        command.arg("--");
        if level != Level::Unit {
            // They share one kernel: pins, namespaces, the CPU they measure.
            command.arg("--test-threads=1");
        }
        command.args(rest);
        tally += count(&mut command)?;
    }
    if tally.passed + tally.failed == 0 {
        return Ok(Outcome::Skipped("no test ran".into()));
    }
    Ok(Outcome::Ran(tally))
}

/// The same programs and the same object, on kernels that are not this machine's.
fn under_kernels(tests: &[&String], rest: &[String]) -> Result<Outcome> {
    let (kernels, missing) = kernels::fetch()?;
    if kernels.is_empty() {
        return Ok(Outcome::Skipped(missing.join("; ")));
    }
    let programs = executables(tests)?;
    let mut tally = Tally::default();
    for reason in missing {
        println!("NOT RUN: {reason}");
        tally.ignored += 1;
    }
    for kernel in kernels {
        println!("\nLinux {}", kernel.version);
        tally += count(&mut kernels::command(&kernel, &programs, rest)?)?;
    }
    Ok(Outcome::Ran(tally))
}

/// Builds the test programs and tells where they are.
fn executables(tests: &[&String]) -> Result<Vec<(String, PathBuf)>> {
    let mut command = cmd::cargo();
    command.args(["test", "--locked", "--package", "lb-tests", "--no-run", "--message-format=json"]);
    tests.iter().for_each(|test| {
        command.args(["--test", test]);
    });
    let messages = cmd::capture(&mut command)?;
    let built = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    let wanted: Vec<_> = built.filter(|(name, _)| tests.contains(&name)).collect();
    ensure!(wanted.len() == tests.len(), "cargo built {} test programs of {}", wanted.len(), tests.len());
    Ok(wanted)
}

fn commands(level: Level, tests: &[&String]) -> Vec<Command> {
    let cargo_test = |arguments: &[&str]| {
        let mut command = cmd::cargo();
        command.args(["test", "--locked", "--no-fail-fast"]).args(arguments);
        command
    };
    let mut named = cargo_test(&["--package", "lb-tests"]);
    tests.iter().for_each(|test| {
        named.args(["--test", test]);
    });
    if level != Level::Unit {
        return vec![named];
    }
    named.arg("--lib");
    // All targets of these, the files of their own tests folders among them.
    let own = cargo_test(&["--package", "lb-common", "--package", "lb-userspace", "--package", "xtask", "--tests"]);
    // The doc examples are a command of their own: cargo does not mix them with a choice of targets.
    let libraries = ["--package", "lb-common", "--package", "lb-userspace", "--package", "lb-tests"];
    vec![named, own, cargo_test(&[&["--doc"], &libraries[..]].concat())]
}

/// Runs one `cargo test`, shows all it prints as it comes, and counts.
fn count(command: &mut Command) -> Result<Tally> {
    println!("$ {}", cmd::shown(command));
    // One pipe for both streams keeps cargo's `Running` lines in order with the results.
    let (mut reader, writer) = io::pipe().context("make a pipe")?;
    command.stdout(writer.try_clone().context("clone a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", cmd::shown(command)))?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut results = Reader::default();
    let mut buffer = [0; 4096];
    let mut screen = io::stdout();
    loop {
        let length = reader.read(&mut buffer).context("read the output of cargo test")?;
        if length == 0 {
            break;
        }
        screen.write_all(&buffer[..length]).and_then(|()| screen.flush()).context("write to standard output")?;
        results.feed(&buffer[..length]);
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok(results.finish(status.success()))
}

/// Names of the integration tests in `folder`, as cargo finds them: NAME.rs, and NAME/main.rs. Sorted.
fn integration_tests(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn summary(rows: &[Row]) -> String {
    let mut text =
        format!("\n{:<6} {:<8} {:>7} {:>7} {:>8} {:>9}\n", "level", "result", "passed", "failed", "ignored", "time");
    let mut total = Tally::default();
    for Row { level, outcome, took } in rows {
        let (name, seconds) = (level.name(), took.as_secs_f64());
        text += &match outcome {
            Outcome::Skipped(reason) => {
                format!("{name:<6} SKIPPED  {:>7} {:>7} {:>8} {seconds:>7.1} s  {reason}\n", "-", "-", "-")
            }
            Outcome::Ran(tally) => {
                total += tally.clone();
                let Tally { passed, failed, ignored, failures: _ } = tally;
                let result = if *failed == 0 { "ok" } else { "FAILED" };
                format!("{name:<6} {result:<8} {passed:>7} {failed:>7} {ignored:>8} {seconds:>7.1} s\n")
            }
        };
    }
    if !total.failures.is_empty() {
        text += "\nfailed:\n";
        total.failures.iter().for_each(|failure| {
            text += &format!("  {failure}\n");
        });
    }
    text + &format!("\n{} passed, {} failed\n", total.passed, total.failed)
}

fn good(rows: &[Row], allow_skip: bool) -> bool {
    rows.iter().all(|row| match &row.outcome {
        Outcome::Ran(tally) => tally.failed == 0,
        Outcome::Skipped(_) => allow_skip,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Level, Outcome, Row, commands, good, summary};
    use crate::{cmd, libtest::Tally};

    fn row(level: Level, outcome: Outcome) -> Row {
        Row { level, outcome, took: Duration::from_millis(1500) }
    }

    fn ran(passed: u64, failed: u64) -> Outcome {
        let failures = (0..failed).map(|n| format!("prog: case {n}")).collect();
        Outcome::Ran(Tally { passed, failed, ignored: 0, failures })
    }

    #[test]
    fn the_name_of_a_test_file_tells_its_level() {
        assert_eq!(Level::of("prog_nat"), Level::Prog);
        assert_eq!(Level::of("lab_restart"), Level::Lab);
        for name in ["config", "program", "lab", "label_x", "sync_lab_x"] {
            assert_eq!(Level::of(name), Level::Unit, "{name}");
        }
    }

    #[test]
    fn each_level_runs_its_own_tests() {
        let (config, nat) = ("config".to_owned(), "prog_nat".to_owned());
        let unit: Vec<String> = commands(Level::Unit, &[&config]).iter().map(cmd::shown).collect();
        assert!(unit[0].contains("--test config") && unit[0].contains("--lib"), "{unit:?}");
        assert!(unit[1].contains("--package lb-userspace") && unit[1].contains("--tests"), "{unit:?}");
        assert!(unit[2].contains("--doc"), "{unit:?}");
        let prog: Vec<String> = commands(Level::Prog, &[&nat]).iter().map(cmd::shown).collect();
        assert_eq!(prog.len(), 1);
        assert!(prog[0].contains("--test prog_nat") && !prog[0].contains("--lib"), "{prog:?}");
    }

    #[test]
    fn the_last_line_holds_the_totals_of_all_levels() {
        let rows = [row(Level::Unit, ran(41, 0)), row(Level::Prog, ran(7, 2))];
        let text = summary(&rows);
        assert!(text.ends_with("\n48 passed, 2 failed\n"), "{text}");
        assert!(text.contains("prog   FAILED") && text.contains("  prog: case 1\n"), "{text}");
        assert!(!good(&rows, true));
    }

    #[test]
    fn a_skipped_level_is_shown_with_its_reason_and_fails_the_run_unless_allowed() {
        let rows = [row(Level::Unit, ran(41, 0)), row(Level::Lab, Outcome::Skipped("not root".into()))];
        assert!(summary(&rows).contains("SKIPPED"), "{}", summary(&rows));
        assert!(summary(&rows).contains("not root\n"));
        assert!(!good(&rows, false));
        assert!(good(&rows, true));
    }
}

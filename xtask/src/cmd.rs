//! Child processes: run one and fail with its command line, capture one, or keep a person company during a long one.
//! Does not know what the commands are for.

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long a quiet command may run before the next sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How many of its last lines a failed command shows.
const TAIL: usize = 25;

/// The command that built us when cargo ran us, the one in `PATH` otherwise.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    command
}

/// The clock of progress lines and summaries.
pub(crate) fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a developer's tool reports wall time; no protocol runs here")]
    Instant::now()
}

/// The command as one would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

/// Prints the command, runs it with our standard streams, and says whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    Ok(status.success())
}

/// Prints and runs the command; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    if !succeeds(command)? {
        bail!("failed: {}", shown(command));
    }
    Ok(())
}

/// What the command prints on standard output; its standard error is shown only when it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("failed: {}\n{}", shown(command), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long and chatty command: all it prints goes to the file `log`, and every few seconds a line tells how long
/// it has run and what it said last. When it fails, the end of its output becomes the error.
pub(crate) fn run_alive(label: &str, command: &mut Command, log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let mut file =
        OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
    writeln!(file, "$ {}", shown(command)).with_context(|| format!("write {}", log.display()))?;

    let start = clock();
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("clone a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    // Our copies of the write end must go, or the reader below never sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::channel();
    let copier = thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(io::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });

    let mut tail: VecDeque<String> = VecDeque::with_capacity(TAIL);
    let mut next_sign = start + SIGN_OF_LIFE;
    loop {
        match lines.recv_timeout(next_sign.saturating_duration_since(clock())) {
            Ok(line) => {
                writeln!(file, "{line}").with_context(|| format!("write {}", log.display()))?;
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {
                let last = tail.iter().rev().find(|line| !line.trim().is_empty()).map_or("", |line| line.trim());
                sign_of_life(label, start.elapsed(), last);
                next_sign = clock() + SIGN_OF_LIFE;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("wait for {}", shown(command)))?;
    if copier.join().is_err() {
        bail!("the thread that reads the output of {} died", shown(command));
    }
    if !status.success() {
        let tail = Vec::from(tail).join("\n");
        bail!("failed ({status}): {}\n{tail}\n(all of it: {})", shown(command), log.display());
    }
    Ok(())
}

fn sign_of_life(label: &str, elapsed: Duration, last: &str) {
    let mut line = format!("  … {label}, {} s: {last}", elapsed.as_secs());
    if io::stdout().is_terminal() {
        line = line.chars().take(110).collect();
    }
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{capture, run_alive, shown};

    #[test]
    fn a_command_is_shown_as_it_can_be_typed() {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "", "two words", "--cfg=a=\"b\""]);
        assert_eq!(shown(&command), "apt-get install -y '' 'two words' '--cfg=a=\"b\"'");
    }

    #[test]
    fn a_failed_capture_carries_what_the_command_complained_about() {
        let error = capture(Command::new("sh").args(["-c", "echo fine; echo no such thing >&2; exit 3"]));
        let error = format!("{:#}", error.expect_err("exit code 3"));
        assert!(error.contains("no such thing") && error.contains("sh -c"), "{error}");
    }

    #[test]
    fn a_long_command_leaves_its_output_in_the_log_and_its_end_in_the_error() {
        let folder = std::env::temp_dir().join(format!("xtask-cmd-{}", std::process::id()));
        let log = folder.join("log");
        let good = run_alive("good", Command::new("sh").args(["-c", "echo one; echo two >&2"]), &log);
        let bad = run_alive("bad", Command::new("sh").args(["-c", "echo three; exit 7"]), &log);
        let text = std::fs::read_to_string(&log);
        std::fs::remove_dir_all(&folder).expect("the log folder was made above");
        good.expect("exit code 0");
        assert!(format!("{:#}", bad.expect_err("exit code 7")).contains("three"));
        let text = text.expect("the log was written");
        assert!(["one\n", "two\n", "three\n"].iter().all(|line| text.contains(line)), "{text}");
    }
}

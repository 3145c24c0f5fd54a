//! Reads what `cargo test` prints and counts. Pure: bytes in, numbers out.
//!
//! Stable libtest has no machine-readable output, so this reads the `test result:` line that each test program prints,
//! and cargo's `Running` line before it: a program that started and printed no result has died.

/// Results of one or more test programs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, and one for each test program that died.
    pub(crate) failed: u64,
    /// Tests that were not run, by `#[ignore]`.
    pub(crate) ignored: u64,
    /// Names of the failed tests, with their program.
    pub(crate) failures: Vec<String>,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, ignored, failures } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.failures.extend(failures);
    }
}

/// Takes the output piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    /// The test program whose result is awaited.
    program: Option<String>,
    /// Failures of that program.
    named: Vec<String>,
    tally: Tally,
}

impl Reader {
    /// Takes the next piece; it may end anywhere in a line.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                let line = plain(&String::from_utf8_lossy(&std::mem::take(&mut self.line)));
                self.line(line.trim());
            } else {
                self.line.push(byte);
            }
        }
    }

    /// The sums, after the last piece. `success` is cargo's own verdict: it fails without a failed test when something
    /// does not compile.
    pub(crate) fn finish(mut self, success: bool) -> Tally {
        self.feed(b"\n");
        self.program_died();
        if !success && self.tally.failed == 0 {
            self.tally.failed = 1;
            self.tally.failures.push("cargo test failed before any test did (see above)".into());
        }
        self.tally
    }

    fn line(&mut self, line: &str) {
        if let Some(program) = started(line) {
            self.program_died();
            self.program = Some(program.to_owned());
        } else if let Some(test) = failed_test(line) {
            self.named.push(test.to_owned());
        } else if let Some(counts) = result(line) {
            let program = self.program.take().unwrap_or_else(|| "?".into());
            self.tally += counts;
            let named = self.named.drain(..).map(|test| format!("{program}: {test}"));
            self.tally.failures.extend(named);
        }
    }

    fn program_died(&mut self) {
        if let Some(program) = self.program.take() {
            self.named.clear();
            self.tally.failed += 1;
            self.tally.failures.push(format!("{program}: the test program died"));
        }
    }
}

/// `Running tests/prog_nat.rs (target/debug/deps/…)`, `Running unittests src/lib.rs (…)` or `Doc-tests lb_common`.
fn started(line: &str) -> Option<&str> {
    let name = line.strip_prefix("Running ").or_else(|| line.strip_prefix("Doc-tests "))?;
    // Doc-tests carry no path; a command line in backquotes is something else that cargo runs.
    (!name.starts_with('`')).then_some(name)
}

/// `test nat::forward ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        let Some((number, what)) = count.split_once(' ') else { continue };
        let slot = match what {
            "passed" => &mut tally.passed,
            "failed" => &mut tally.failed,
            "ignored" => &mut tally.ignored,
            _ => continue,
        };
        *slot = number.parse().ok()?;
    }
    Some(tally)
}

/// The line without the colours of a terminal: escape sequences `ESC [ … letter`.
fn plain(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Reader, Tally, plain, result};

    fn read(output: &str, success: bool) -> Tally {
        let mut reader = Reader::default();
        reader.feed(output.as_bytes());
        reader.finish(success)
    }

    const GOOD: &str = "   Compiling lb-common v0.1.0
     Running unittests src/lib.rs (target/debug/deps/lb_common-0c1d)

running 3 tests
test csum::deltas_add_up ... ok
test tcp::slow ... ignored, takes minutes
test tcp::table ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests lb_common

running 1 test
test lb-common/src/lib.rs - csum (line 12) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";

    #[test]
    fn the_results_of_all_programs_are_added() {
        let tally = read(GOOD, true);
        assert_eq!(tally, Tally { passed: 3, failed: 0, ignored: 1, failures: vec![] });
    }

    #[test]
    fn a_failure_is_named_with_its_program() {
        let output = "     Running tests/prog_nat.rs (target/debug/deps/prog_nat-1)
test forward ... FAILED
test reverse ... ok
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
error: test failed, to rerun pass `-p lb-tests --test prog_nat`
";
        let tally = read(output, false);
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(tally.failures, ["tests/prog_nat.rs (target/debug/deps/prog_nat-1): forward"]);
    }

    #[test]
    fn a_program_that_dies_is_a_failure_wherever_it_stands() {
        let first = "     Running tests/a.rs (a)\ntest x ... \n     Running tests/b.rs (b)\n\
                     test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n";
        let tally = read(first, false);
        assert_eq!((tally.passed, tally.failed), (4, 1));
        assert_eq!(tally.failures, ["tests/a.rs (a): the test program died"]);
        assert_eq!(read("     Running tests/a.rs (a)\nrunning 2 tests\n", false).failed, 1);
    }

    #[test]
    fn what_does_not_compile_counts_as_one_failure() {
        assert_eq!(read("error[E0425]: cannot find value `x`\n", false).failed, 1);
        assert_eq!(read("", true), Tally::default());
    }

    #[test]
    fn pieces_and_colours_do_not_matter() {
        let coloured = GOOD
            .replace("     Running", "\x1b[1m\x1b[92m     Running\x1b[0m")
            .replace(" ok. ", " \x1b[32mok\x1b(B\x1b[m. ".replace("\x1b(B", "").as_str());
        let mut reader = Reader::default();
        coloured.as_bytes().chunks(7).for_each(|piece| reader.feed(piece));
        assert_eq!(reader.finish(true), read(GOOD, true));
        assert_eq!(plain("\x1b[1m\x1b[92m   Running\x1b[0m tests"), "   Running tests");
    }

    #[test]
    fn a_line_that_only_looks_like_a_result_is_not_one() {
        assert_eq!(result("test result: soon"), None);
        assert_eq!(result("test result: ok. many passed; 0 failed"), None);
    }
}

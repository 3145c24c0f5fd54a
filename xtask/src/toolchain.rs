//! Which Rust toolchain builds the eBPF object. `probe` gathers facts, `choose` is the pure decision over them.
//!
//! The target bpfel-unknown-none is tier 3: `core` is built with it (`-Z build-std`), which takes the library's source
//! (component rust-src) and a compiler that accepts `-Z`: a nightly, or any with `RUSTC_BOOTSTRAP=1`. Its LLVM must not
//! be newer than the one in bpf-linker, which reads the bitcode it writes.

use std::{
    cmp::Reverse,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{cmd, paths};

/// The major version of the LLVM that `setup` builds bpf-linker with.
pub(crate) const LINKER_LLVM: u32 = 22;
/// The workspace's `rust-version`: what the crates that both sides share are written in.
const OLDEST: (u32, u32) = (1, 95);

/// One installed toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What a person calls it: a rustup toolchain's name, or the package's.
    pub(crate) name: String,
    /// The folder of its programs.
    pub(crate) bin: PathBuf,
    /// `release:` of `rustc -vV`, such as `1.97.0-nightly`.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// The library's source is there, and a cargo of the same version.
    pub(crate) source: bool,
    /// rustup manages it.
    pub(crate) rustup: bool,
}

impl Facts {
    /// The compiler.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.bin.join("rustc")
    }

    /// Its cargo: another version's could reject the lock file or the `-Z` options.
    pub(crate) fn cargo(&self) -> PathBuf {
        self.bin.join("cargo")
    }

    /// Its clippy, if that is installed.
    pub(crate) fn clippy(&self) -> Option<PathBuf> {
        let both = ["cargo-clippy", "clippy-driver"].map(|program| self.bin.join(program));
        both.iter().all(|program| program.is_file()).then(|| self.bin.join("cargo-clippy"))
    }

    fn nightly(&self) -> bool {
        self.release.contains("nightly")
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split('.').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Why it cannot build the object.
    fn obstacle(&self) -> Option<String> {
        if self.version().is_none_or(|version| version < OLDEST) {
            return Some(format!("older than {}.{}", OLDEST.0, OLDEST.1));
        }
        if self.llvm > LINKER_LLVM {
            return Some(format!("its LLVM {} is newer than bpf-linker's {LINKER_LLVM}", self.llvm));
        }
        (!self.source).then(|| "no rust-src, or no cargo beside it".into())
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rustc {}, LLVM {})", self.name, self.release, self.llvm)
    }
}

/// The toolchain to use, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The toolchain.
    pub(crate) facts: Facts,
    /// What made it fit.
    pub(crate) why: &'static str,
    /// The ones that come before it, each with what it lacks.
    pub(crate) passed_over: Vec<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.facts, self.why)?;
        if self.passed_over.is_empty() { Ok(()) } else { write!(f, " (not {})", self.passed_over.join(", ")) }
    }
}

/// Chooses among the installed toolchains: a nightly first, then any other of rustup's, then the system's. If none
/// fits, returns each with what it lacks.
pub(crate) fn choose(installed: &[Facts]) -> Result<Choice, Vec<String>> {
    let mut order: Vec<&Facts> = installed.iter().collect();
    order.sort_by_key(|facts| (Reverse(facts.nightly()), Reverse(facts.rustup)));
    let mut passed_over = Vec::new();
    for facts in order {
        if let Some(obstacle) = facts.obstacle() {
            passed_over.push(format!("{}: {obstacle}", facts.name));
            continue;
        }
        let why = if facts.nightly() {
            "a nightly with the library's source"
        } else {
            "has the library's source, unlocked with RUSTC_BOOTSTRAP=1"
        };
        return Ok(Choice { facts: facts.clone(), why, passed_over });
    }
    Err(passed_over)
}

/// Asks rustup, and the system's compiler, what is installed. Toolchains that do not answer are left out.
pub(crate) fn probe() -> Vec<Facts> {
    let mut found = Vec::new();
    if let Some(rustup) = paths::find_program("rustup") {
        let list = cmd::capture(Command::new(&rustup).args(["toolchain", "list"])).unwrap_or_default();
        for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
            let which = cmd::capture(Command::new(&rustup).args(["which", "--toolchain", name, "rustc"]));
            let bin = which.ok().and_then(|path| Path::new(path.trim()).parent().map(Path::to_owned));
            found.extend(bin.and_then(|bin| ask(name, &bin, true)));
        }
    }
    found.extend(ask("the system's Rust", Path::new("/usr/bin"), false));
    found
}

fn ask(name: &str, bin: &Path, rustup: bool) -> Option<Facts> {
    let rustc = bin.join("rustc");
    let version = cmd::capture(Command::new(&rustc).arg("-vV")).ok()?;
    let (release, llvm) = parse_version(&version)?;
    let sysroot = cmd::capture(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let source = library.is_file() && bin.join("cargo").is_file();
    Some(Facts { name: name.to_owned(), bin: bin.to_owned(), release, llvm, source, rustup })
}

/// Release and LLVM major version out of `rustc -vV`.
fn parse_version(verbose: &str) -> Option<(String, u32)> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((field("release: ")?.to_owned(), llvm))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Facts, choose, parse_version};

    fn facts(name: &str, release: &str, llvm: u32, source: bool) -> Facts {
        let rustup = name != "the system's Rust";
        Facts { name: name.into(), bin: PathBuf::from("/x"), release: release.into(), llvm, source, rustup }
    }

    fn chosen(installed: &[Facts]) -> String {
        choose(installed).expect("one of them fits").facts.name
    }

    #[test]
    fn a_nightly_with_source_wins_over_everything() {
        let all = [
            facts("the system's Rust", "1.96.0", 22, true),
            facts("stable", "1.95.0", 22, true),
            facts("nightly", "1.97.0-nightly", 22, true),
        ];
        assert_eq!(chosen(&all), "nightly");
        assert_eq!(chosen(&all[..2]), "stable");
    }

    #[test]
    fn without_source_the_system_s_compiler_is_taken_and_the_reason_says_what_the_others_lack() {
        let choice = choose(&[
            facts("stable", "1.95.0", 22, false),
            facts("nightly", "1.97.0-nightly", 22, false),
            facts("the system's Rust", "1.96.0", 22, true),
        ])
        .expect("the last one fits");
        assert!(!choice.facts.rustup);
        assert_eq!(
            choice.passed_over,
            ["nightly: no rust-src, or no cargo beside it", "stable: no rust-src, or no cargo beside it"]
        );
        assert!(choice.to_string().contains("RUSTC_BOOTSTRAP=1 (not nightly: no rust-src, or"), "{choice}");
    }

    #[test]
    fn bitcode_that_the_linker_cannot_read_is_refused() {
        let rejected = choose(&[facts("nightly", "1.99.0-nightly", 23, true)]).expect_err("its LLVM is too new");
        assert!(rejected[0].contains("LLVM 23 is newer"), "{rejected:?}");
        assert_eq!(
            chosen(&[facts("nightly", "1.99.0-nightly", 23, true), facts("stable", "1.95.0", 22, true)]),
            "stable"
        );
    }

    #[test]
    fn a_compiler_older_than_the_workspace_s_is_refused_and_an_empty_machine_has_no_choice() {
        let rejected = choose(&[facts("the system's Rust", "1.85.0", 19, true)]).expect_err("too old");
        assert!(rejected[0].contains("older than 1.95"), "{rejected:?}");
        assert_eq!(choose(&[]), Err(vec![]));
    }

    #[test]
    fn the_oldest_compiler_is_the_workspace_s() {
        let manifest = std::fs::read_to_string(crate::paths::root().join("Cargo.toml")).expect("the workspace's");
        let wanted = format!("rust-version = \"{}.{}\"", super::OLDEST.0, super::OLDEST.1);
        assert!(manifest.contains(&wanted), "{wanted} is not in Cargo.toml");
    }

    #[test]
    fn the_compiler_s_own_words_are_understood() {
        let verbose = "rustc 1.97.0-nightly (0123 2026-05-01)\nhost: x86_64-unknown-linux-gnu\n\
                       release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(verbose), Some(("1.97.0-nightly".into(), 22)));
        assert_eq!(parse_version("rustc 1.97.0"), None);
    }
}

//! What is in an eBPF object: programs and their sizes, calls between functions, BTF, licence, and what is wrong.
//!
//! Reads ELF as llvm writes it for BPF: Documentation/bpf/llvm_reloc.rst (relocations) and RFC 9669 (instructions).
//! Does not load anything: the verifier's counts come from the kernel.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind, SymbolSection};

/// Bytes of one instruction slot; a 64-bit load takes two.
const SLOT: usize = 8;
/// BPF_JMP | BPF_CALL.
const CALL: u8 = 0x85;
/// `src_reg` of a call to a function of the same program, BPF_PSEUDO_CALL.
const TO_FUNCTION: u8 = 1;
/// Functions that copy or fill byte by byte: 50 to 90 ns for what a few stores do.
const BYTE_LOOPS: [&str; 4] = ["memcpy", "memmove", "memset", "memcmp"];

/// A function of the object, a program if its section is not `.text`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Section, which tells the program's type.
    pub(crate) section: String,
    /// Symbol.
    pub(crate) name: String,
    /// Instruction slots, without those of the functions that it calls.
    pub(crate) instructions: usize,
    /// How often it calls which other function.
    calls: BTreeMap<String, usize>,
}

/// What the build reports about an object.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Programs, then functions.
    pub(crate) functions: Vec<Function>,
    /// The licence that the object declares to the kernel.
    pub(crate) licence: Option<String>,
    /// Types of maps and functions are there.
    btf: bool,
    /// Symbols that nothing defines.
    undefined: Vec<String>,
}

impl Contents {
    /// Reads an object. Fails on bytes that are not ELF.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let file = File::parse(bytes).context("parse ELF")?;
        let mut functions = Vec::new();
        for section in file.sections().filter(|section| section.kind() == object::SectionKind::Text) {
            let section_name = section.name().context("a section's name")?;
            let code = section.data().context("a section's bytes")?;
            let calls = calls(code, section.index().0 as u64, &relocated(&file, &section));
            for symbol in file.symbols() {
                if symbol.kind() != SymbolKind::Text || symbol.section_index() != Some(section.index()) {
                    continue;
                }
                let range = symbol.address()..symbol.address() + symbol.size();
                let mut named = BTreeMap::new();
                for call in calls.iter().filter(|call| range.contains(&call.from)) {
                    *named.entry(callee(&file, call)).or_default() += 1;
                }
                functions.push(Function {
                    section: section_name.to_owned(),
                    name: readable(symbol.name().context("a symbol's name")?),
                    instructions: symbol.size() as usize / SLOT,
                    calls: named,
                });
            }
        }
        functions.sort_by(|a, b| (a.section == ".text", &a.section).cmp(&(b.section == ".text", &b.section)));
        let undefined = file.symbols().filter(|symbol| symbol.section() == SymbolSection::Undefined);
        let undefined = undefined.filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty());
        Ok(Self {
            licence: file.section_by_name("license").and_then(|section| licence(section.data().ok()?)),
            btf: file.section_by_name(".BTF").is_some_and(|section| section.size() > 0),
            undefined: undefined.map(str::to_owned).collect(),
            functions,
        })
    }

    /// Why the object must not be used; empty if it may.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.undefined.iter().map(|name| format!("symbol {name} is used and not defined")).collect();
        if !self.btf {
            faults.push("no BTF: maps would have no types (debug information missing, or --btf not passed)".into());
        }
        faults
    }

    /// What is wrong with the object though it can be used.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.functions.iter().all(|function| function.section == ".text") {
            warnings.push("the object holds no program".into());
        } else if self.licence.is_none() {
            warnings.push("no licence declared: the kernel refuses the helpers that are only for GPL programs".into());
        }
        for function in self.functions.iter().filter(|function| !BYTE_LOOPS.contains(&function.name.as_str())) {
            for (callee, count) in function.calls.iter().filter(|(callee, _)| BYTE_LOOPS.contains(&callee.as_str())) {
                let name = &function.name;
                warnings.push(format!("{name} calls {callee} {count}×: a byte loop where fields should be set"));
            }
        }
        warnings
    }
}

/// A call to another function: where it stands, and the section (by index) and offset that it goes to.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    from: u64,
    section: u64,
    to: u64,
}

/// Relocated calls of a section: offset of the instruction to (section, offset) of the symbol.
fn relocated<'a>(file: &File<'a>, section: &object::Section<'a, '_>) -> BTreeMap<u64, (u64, u64)> {
    let symbol = |target| match target {
        RelocationTarget::Symbol(index) => file.symbol_by_index(index).ok(),
        _ => None,
    };
    let places = section.relocations().filter_map(|(offset, relocation)| {
        let symbol = symbol(relocation.target())?;
        Some((offset, (symbol.section_index()?.0 as u64, symbol.address())))
    });
    places.collect()
}

/// Finds the calls in a section's code. `relocated` says which of them the linker left to the loader.
fn calls(code: &[u8], own_section: u64, relocated: &BTreeMap<u64, (u64, u64)>) -> Vec<Call> {
    let mut found = Vec::new();
    for (index, slot) in code.chunks_exact(SLOT).enumerate() {
        let &[CALL, registers, _, _, i0, i1, i2, i3] = slot else { continue };
        if registers >> 4 != TO_FUNCTION {
            continue;
        }
        let from = (index * SLOT) as u64;
        let slots = i64::from(i32::from_le_bytes([i0, i1, i2, i3])) + 1;
        // Relative to the symbol if relocated (llvm writes -1 for its start), to this instruction if not.
        let (section, base) = relocated.get(&from).copied().unwrap_or((own_section, from));
        found.push(Call { from, section, to: base.wrapping_add_signed(slots * SLOT as i64) });
    }
    found
}

fn callee(file: &File<'_>, call: &Call) -> String {
    let is_it = |symbol: &object::Symbol<'_, '_>| {
        let section = symbol.section_index().map(|index| index.0 as u64);
        symbol.kind() == SymbolKind::Text && section == Some(call.section) && symbol.address() == call.to
    };
    let name = file.symbols().find(is_it).and_then(|symbol| symbol.name().ok().map(readable));
    name.unwrap_or_else(|| format!("{}+{:#x}", call.section, call.to))
}

/// The path in a mangled name of Rust's v0 scheme (RFC 2603), `lb::schedule::compare` for
/// `_RNvNtCs6oMfNRNMCBT_2lb8schedule7compare`. Names with generic arguments, and all others, stay as they are.
fn readable(symbol: &str) -> String {
    path(symbol).unwrap_or_else(|| symbol.to_owned())
}

fn path(symbol: &str) -> Option<String> {
    // Nested paths come outermost first, each as N and a letter; the crate, with its hash, follows the last.
    let (nesting, mut rest) = symbol.strip_prefix("_R")?.split_once("Cs")?;
    if nesting.len() % 2 != 0 || nesting.bytes().step_by(2).any(|tag| tag != b'N') {
        return None;
    }
    rest = rest.split_once('_')?.1;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest[..digits].parse().ok()?;
        // An underscore parts the length from a name that starts with one.
        let name = rest[digits..].strip_prefix('_').unwrap_or(&rest[digits..]);
        parts.push(name.get(..length)?);
        rest = &name[length..];
    }
    (parts.len() == nesting.len() / 2 + 1).then(|| parts.join("::"))
}

fn licence(section: &[u8]) -> Option<String> {
    let text = section.split(|&byte| byte == 0).next()?;
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Call, Contents, Function, calls, licence, readable};

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn call(registers: u8, immediate: i32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [0x85, registers, 0, 0, a, b, c, d]
    }

    #[test]
    fn a_call_in_the_same_section_is_relative_to_its_own_place() {
        let code = [EXIT, call(0x10, -2), EXIT, call(0x10, 5)].concat();
        let found = calls(&code, 3, &BTreeMap::new());
        assert_eq!(found, [Call { from: 8, section: 3, to: 0 }, Call { from: 24, section: 3, to: 72 }]);
    }

    #[test]
    fn a_relocated_call_goes_to_the_symbol_or_to_an_offset_from_it() {
        let code = [call(0x10, -1), call(0x10, 35)].concat();
        let found = calls(&code, 3, &BTreeMap::from([(0, (2, 288)), (8, (2, 0))]));
        assert_eq!(found, [Call { from: 0, section: 2, to: 288 }, Call { from: 8, section: 2, to: 288 }]);
    }

    #[test]
    fn calls_of_kernel_helpers_are_not_calls_of_functions() {
        assert_eq!(calls(&[call(0, 1), EXIT].concat(), 3, &BTreeMap::new()), []);
    }

    fn contents(calls: &[(&str, usize)]) -> Contents {
        let calls = calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let program = Function { section: "xdp".into(), name: "lb_xdp".into(), instructions: 9, calls };
        Contents { functions: vec![program], licence: Some("GPL".into()), btf: true, undefined: vec![] }
    }

    #[test]
    fn byte_loops_are_named_with_the_function_that_pays_for_them() {
        let warnings = contents(&[("memset", 2), ("parse", 1)]).warnings();
        assert_eq!(warnings, ["lb_xdp calls memset 2×: a byte loop where fields should be set"]);
        assert!(contents(&[("parse", 1)]).warnings().is_empty());
    }

    #[test]
    fn an_object_without_types_or_with_loose_ends_is_refused() {
        assert!(contents(&[]).faults().is_empty());
        let bad = Contents { btf: false, undefined: vec!["memcpy".into()], ..contents(&[]) };
        assert_eq!(bad.faults().len(), 2);
        assert!(bad.faults()[0].contains("memcpy"));
    }

    #[test]
    fn plain_rust_paths_are_readable_and_other_names_stay() {
        assert_eq!(readable("_RNvNtCs6oMfNRNMCBT_2lb8schedule7compare"), "lb::schedule::compare");
        assert_eq!(readable("_RNvCs6oMfNRNMCBT_2lb7tc_once"), "lb::tc_once");
        for other in ["memcpy", "lb_xdp", "_RINvCs6oMfNRNMCBT_2lb3runlE", "_RNvCs_", "_RNvCs1_9lb"] {
            assert_eq!(readable(other), other);
        }
    }

    #[test]
    fn the_licence_ends_at_its_zero_byte() {
        assert_eq!(licence(b"Dual MIT/GPL\0").as_deref(), Some("Dual MIT/GPL"));
        assert_eq!(licence(b"\0"), None);
    }

    #[test]
    fn what_is_not_elf_is_an_error() {
        assert!(Contents::read(b"#!/bin/sh\n").is_err());
    }
}

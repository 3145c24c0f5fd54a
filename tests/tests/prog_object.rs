//! What the eBPF object must not contain, and how much work it is for the verifier. A packet of an established conn
//! goes through the program's own function (`straight` in lb-ebpf), so what that one calls is what such a packet pays.

use std::collections::BTreeMap;

use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo, SchedClassifier, TcAttachType},
};
use lb_common::abi;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

/// Bytes of an instruction (RFC 9669 §3).
const SLOT: usize = 8;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;

/// Helpers that a packet of an established conn must not pay for (`include/uapi/linux/bpf.h`).
const DEAR: [(i32, &str); 5] = [
    (5, "ktime_get_ns"),
    (69, "fib_lookup"),
    (125, "ktime_get_boot_ns"),
    (160, "ktime_get_coarse_ns"),
    (6, "trace_printk"),
];
/// What the compiler makes of a copied or cleared aggregate: loops over bytes.
const BYTE_LOOPS: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];
/// Instructions that the verifier may look at: the kernel refuses a program at a million, and loading takes time.
const BUDGET: [(&str, u32); 3] = [(abi::PROG_XDP, 40_000), (abi::PROG_TC, 110_000), (abi::PROG_REPLICA, 20_000)];
/// Older verifiers look at more for the same programs: so many times the budget.
const OLD: u32 = 3;

fn object() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/lb.o");
    std::fs::read(path).expect("target/bpf/lb.o: build it with `cargo xtask build-ebpf`")
}

/// What a function calls.
#[derive(Debug, Default)]
struct Calls {
    helpers: Vec<i32>,
    functions: Vec<String>,
}

/// Every function of the object with its calls.
fn calls(object: &[u8]) -> BTreeMap<String, Calls> {
    let file = object::File::parse(object).unwrap();
    let text = |symbol: &object::Symbol<'_, '_>| symbol.kind() == SymbolKind::Text && symbol.size() > 0;
    let mut found = BTreeMap::new();
    for symbol in file.symbols().filter(text) {
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let relocations: BTreeMap<_, _> = section.relocations().collect();
        let code = section.data().unwrap();
        let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
        let mut calls = Calls::default();
        for (slot, bytes) in code[range.clone()].chunks_exact(SLOT).enumerate() {
            let at = range.start + slot * SLOT;
            let imm = i32::from_le_bytes(bytes[4..].try_into().unwrap());
            match (bytes[0], bytes[1] >> 4) {
                (CALL, 0) => calls.helpers.push(imm),
                (CALL, 1) => {
                    // A call to another section carries a relocation against the callee or its section; the immediate
                    // counts instructions from there, -1 being the start.
                    let slots = i64::from(imm) + 1;
                    let (section, base) = match relocations.get(&(at as u64)).map(object::Relocation::target) {
                        Some(RelocationTarget::Symbol(index)) => {
                            let to = file.symbol_by_index(index).unwrap();
                            (to.section_index(), to.address() as i64)
                        }
                        _ => (symbol.section_index(), at as i64),
                    };
                    let to = (base + slots * SLOT as i64) as u64;
                    let callee =
                        file.symbols().filter(text).find(|s| (s.section_index(), s.address()) == (section, to));
                    calls
                        .functions
                        .push(callee.expect("a call into the middle of a function").name().unwrap().to_owned());
                }
                _ => {}
            }
        }
        found.insert(symbol.name().unwrap().to_owned(), calls);
    }
    found
}

#[test]
fn an_established_conns_packet_asks_neither_clock_nor_routes() {
    let calls = calls(&object());
    for program in [abi::PROG_XDP, abi::PROG_TC] {
        let own = &calls[program];
        assert!(own.helpers.contains(&1), "{program} looks nothing up: is the straight way in it?");
        for (id, name) in DEAR {
            assert!(!own.helpers.contains(&id), "{program} calls bpf_{name} itself");
        }
    }
    let resolver = calls.values().filter(|calls| calls.helpers.contains(&69)).count();
    assert!(resolver > 0, "nothing in the object looks up a route: this test sees nothing");
}

#[test]
fn nothing_is_copied_or_cleared_in_a_loop_over_bytes() {
    for (name, calls) in calls(&object()) {
        let loops: Vec<_> = calls.functions.iter().filter(|callee| BYTE_LOOPS.contains(&callee.as_str())).collect();
        assert!(loops.is_empty() || BYTE_LOOPS.contains(&name.as_str()), "{name} calls {loops:?}");
    }
}

/// Came with Linux 6.6: a mark of the kernels whose verifier recognises more states as seen before.
fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

#[test]
fn the_verifier_looks_at_no_more_than_its_budget() {
    let mut ebpf = EbpfLoader::new().load(&object()).unwrap();
    for (name, budget) in BUDGET {
        let info: ProgramInfo = match ebpf.program_mut(name).unwrap() {
            Program::Xdp(program) => program.load().and_then(|()| program.info()),
            Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
            other => panic!("{name} is {other:?}"),
        }
        .unwrap();
        let verified = info.verified_instruction_count().expect("kernels since 5.16 tell");
        let budget = if has_tcx() { budget } else { OLD * budget };
        println!("{name}: the verifier looked at {verified} instructions; the budget is {budget}");
        assert!(verified <= budget, "{name}: {verified} instructions are more than {budget}");
    }
}

//! What the eBPF object must not contain, how much stack it takes and how much work it is for the verifier. A packet of an established conn
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
/// `BPF_LD | BPF_IMM | BPF_DW`: loads a number of 64 bits, or what a relocation puts there.
const LOAD64: u8 = 0x18;
/// `BPF_ALU64 | BPF_MOV | BPF_X` and `BPF_ALU64 | BPF_ADD | BPF_K`: how the address of something on the stack is made.
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// The frame pointer.
const FRAME: u8 = 10;
/// Bytes of stack that a program has, together with what it calls (`MAX_BPF_STACK`), and in what steps the verifier of
/// Linux 6.1 hands them out (`check_max_stack_depth` in `kernel/bpf/verifier.c`); newer ones are less strict.
const STACK: usize = 512;
const STACK_STEP: usize = 32;

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

/// What a function calls, and how much stack it takes.
#[derive(Debug, Default)]
struct Function {
    helpers: Vec<i32>,
    /// Those that it calls or hands to a helper to be called.
    functions: Vec<String>,
    /// Bytes.
    stack: usize,
}

/// One instruction (RFC 9669 §3).
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

impl Instruction {
    fn of(bytes: &[u8]) -> Self {
        Self {
            code: bytes[0],
            dst: bytes[1] & 0xf,
            src: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            imm: i32::from_le_bytes(bytes[4..].try_into().unwrap()),
        }
    }

    /// The place on the stack that it reads or writes, or whose address it makes, as a distance from the top.
    fn stack(self, before: Option<Self>) -> usize {
        let (load, store) = (self.code & 7 == 1, matches!(self.code & 7, 2 | 3));
        let at = if (load && self.src == FRAME) || (store && self.dst == FRAME) {
            i32::from(self.offset)
        } else if self.code == ADD && before.is_some_and(|b| (b.code, b.src, b.dst) == (MOVE, FRAME, self.dst)) {
            self.imm
        } else {
            0
        };
        usize::try_from(-at).unwrap_or(0)
    }
}

/// Every function of the object.
fn functions(object: &[u8]) -> BTreeMap<String, Function> {
    let file = object::File::parse(object).unwrap();
    let text = |symbol: &object::Symbol<'_, '_>| symbol.kind() == SymbolKind::Text && symbol.size() > 0;
    let named = |section, address| {
        let found = file.symbols().filter(text).find(|s| (s.section_index(), s.address()) == (section, address));
        found.map(|symbol| symbol.name().unwrap().to_owned())
    };
    let mut found = BTreeMap::new();
    for symbol in file.symbols().filter(text) {
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let relocations: BTreeMap<_, _> = section.relocations().collect();
        let target = |at: usize| match relocations.get(&(at as u64)).map(object::Relocation::target) {
            Some(RelocationTarget::Symbol(index)) => {
                let to = file.symbol_by_index(index).unwrap();
                Some((to.section_index(), to.address()))
            }
            _ => None,
        };
        let code = section.data().unwrap();
        let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
        let mut function = Function::default();
        let mut before = None;
        for (slot, bytes) in code[range.clone()].chunks_exact(SLOT).enumerate() {
            let at = range.start + slot * SLOT;
            let instruction = Instruction::of(bytes);
            function.stack = function.stack.max(instruction.stack(before));
            before = Some(instruction);
            match (instruction.code, instruction.src) {
                (CALL, 0) => function.helpers.push(instruction.imm),
                (CALL, 1) => {
                    // A call to another section carries a relocation against the callee or its section; the immediate
                    // counts instructions from there, -1 being the start.
                    let (section, base) = target(at).unwrap_or((symbol.section_index(), at as u64));
                    let slots = i64::from(instruction.imm) + 1;
                    let callee = named(section, base.wrapping_add_signed(slots * SLOT as i64));
                    function.functions.push(callee.expect("a call into the middle of a function"));
                }
                // The address of a function, for a helper that calls it.
                (LOAD64, _) => function.functions.extend(
                    target(at)
                        .and_then(|(section, base)| named(section, base + u64::from(instruction.imm.unsigned_abs()))),
                ),
                _ => {}
            }
        }
        found.insert(symbol.name().unwrap().to_owned(), function);
    }
    found
}

/// The calls that take most stack, from a function down, with what each takes; and the sum.
fn deepest(functions: &BTreeMap<String, Function>, name: &str) -> (usize, String) {
    let function = &functions[name];
    let own = function.stack.max(1).next_multiple_of(STACK_STEP);
    let below = function.functions.iter().map(|callee| deepest(functions, callee)).max();
    below.map_or_else(|| (own, format!("{name} {own}")), |(sum, way)| (own + sum, format!("{name} {own}, {way}")))
}

#[test]
fn no_way_through_a_program_takes_more_stack_than_linux_6_1_gives() {
    let functions = functions(&object());
    for function in functions.keys() {
        let (sum, way) = deepest(&functions, function);
        println!("{way}: {sum} of {STACK} bytes");
        assert!(sum <= STACK, "{way}: {sum} bytes are more than {STACK}");
    }
    let called_back = functions.values().flat_map(|f| &f.functions).filter(|f| f.contains("compare")).count();
    assert!(called_back > 0, "the scheduler's loop calls nothing back: is its function seen?");
}

#[test]
fn an_established_conns_packet_asks_neither_clock_nor_routes() {
    let functions = functions(&object());
    for program in [abi::PROG_XDP, abi::PROG_TC] {
        let own = &functions[program];
        assert!(own.helpers.contains(&1), "{program} looks nothing up: is the straight way in it?");
        for (id, name) in DEAR {
            assert!(!own.helpers.contains(&id), "{program} calls bpf_{name} itself");
        }
    }
    let resolver = functions.values().filter(|function| function.helpers.contains(&69)).count();
    assert!(resolver > 0, "nothing in the object looks up a route: this test sees nothing");
}

#[test]
fn nothing_is_copied_or_cleared_in_a_loop_over_bytes() {
    for (name, function) in functions(&object()) {
        let loops: Vec<_> = function.functions.iter().filter(|callee| BYTE_LOOPS.contains(&callee.as_str())).collect();
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

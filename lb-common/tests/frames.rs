//! The header parser and the rewrite of ICMP errors against hostile bytes: a committed corpus, then mutations of it.
//!
//! Every frame lies against a page that cannot be read, once with its end and once with its start: a read or write
//! outside it kills the test. What the parser says is compared with a second parser that was written from the RFCs with
//! slices. `LB_FUZZ_ROUNDS=100000000 cargo test -p lb-common --test frames --release` runs for longer.

#[path = "frames/guard.rs"]
mod guard;
#[path = "frames/model.rs"]
mod model;

use std::collections::BTreeMap;

use guard::Guarded;
use lb_common::{
    icmp::{IcmpError, Translation},
    parse::{Parsed, Tcp, parse, parse_plain},
};
use model::{Seen, expected};

/// Mutated frames in an ordinary run: about a second.
const ROUNDS: u64 = 200_000;

/// The committed frames with their names.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let line = |line: &'static str| {
        let (name, hex) = line.split_once(':').expect("a name and a frame");
        let digits: Vec<u8> = hex.trim().chars().map(|c| c.to_digit(16).expect("hex") as u8).collect();
        (name, digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    };
    include_str!("corpus/frames.txt").lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Bytes that mean something in one header or another.
const LOADED: [u8; 16] = [0, 1, 3, 6, 11, 12, 0x0f, 0x40, 0x44, 0x45, 0x46, 0x4f, 0x50, 0x81, 0x88, 0xff];

fn mutate(random: &mut Random, frames: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut frame = frames[random.below(frames.len())].1.clone();
    for _ in 0..random.below(4) {
        let at = random.below(frame.len());
        match random.below(6) {
            0 => frame.truncate(at),
            1 => frame.extend((0..random.below(40)).map(|_| 0xa5)),
            2 => {
                // The tail of another frame: headers behind headers.
                let other = &frames[random.below(frames.len())].1;
                let from = random.below(other.len());
                frame.truncate(at);
                frame.extend(other.get(from..).unwrap_or_default());
            }
            3 if at < frame.len() => frame[at] ^= 1 << random.below(8),
            4 if at < frame.len() => frame[at] = LOADED[random.below(LOADED.len())],
            _ if at < frame.len() => frame[at] = random.next() as u8,
            _ => {}
        }
    }
    frame
}

/// What the parser says about a frame in its place.
fn parsed(frame: &mut [u8]) -> Parsed {
    let start = frame.as_mut_ptr() as usize;
    // SAFETY: the bounds are those of the slice.
    unsafe { parse(start, start + frame.len()) }
}

fn seen(frame: &mut [u8]) -> Seen {
    let base = frame.as_ptr() as usize;
    match parsed(frame) {
        Parsed::Tcp(tcp) => seen_tcp(&tcp, base),
        Parsed::IcmpError(error) => Seen::IcmpError {
            ip: error.ip as usize - base,
            icmp: error.icmp as usize - base,
            inner: error.inner as usize - base,
            tcp: error.tcp as usize - base,
            has_check: error.has_check,
            tags: error.tags,
            key: error.key(),
            ttl: error.ttl(),
        },
        Parsed::ArpRequest { target } => Seen::ArpRequest { target: target.to_ne_bytes() },
        Parsed::Foreign => Seen::Foreign,
        Parsed::Short => Seen::Short,
        Parsed::Malformed => Seen::Malformed,
    }
}

fn seen_tcp(tcp: &Tcp, base: usize) -> Seen {
    assert_eq!(tcp.eth as usize, base);
    Seen::Tcp {
        ip: tcp.ip as usize - base,
        tcp: tcp.tcp as usize - base,
        tags: tcp.tags,
        fragment: tcp.fragment,
        lengths: [tcp.ip_len, tcp.tcp_len, tcp.payload],
        key: tcp.key(),
        numbers: [tcp.seq(), tcp.ack(), tcp.seq_end()],
        flags: tcp.flags,
        ttl: tcp.ttl(),
    }
}

/// Checks one frame, wherever it lies; answers what it is.
fn check(guarded: &mut Guarded, frame: &[u8], random: &mut Random) -> Seen {
    let expected = expected(frame);
    for place in [Guarded::at_the_end, Guarded::at_the_start] {
        let placed = place(guarded, frame);
        assert_eq!(seen(placed), expected, "{}", hex(frame));
        let start = placed.as_mut_ptr() as usize;
        // SAFETY: the bounds are those of the slice.
        let plain = unsafe { parse_plain(start, start + placed.len()) }.map(|tcp| seen_tcp(&tcp, start));
        let is_plain = matches!(expected, Seen::Tcp { ip: 14, tcp: 34, fragment: false, .. });
        assert_eq!(plain, is_plain.then(|| expected.clone()), "{}", hex(frame));
        assert_eq!(placed, frame, "a parser wrote");
        if let Parsed::IcmpError(error) = parsed(placed)
            && error.ttl() > 1
        {
            check_rewrite(placed, frame, &error, random);
        }
    }
    expected
}

/// The rewrite writes what it is told, fixes every checksum, and touches nothing else.
fn check_rewrite(placed: &mut [u8], before: &[u8], error: &IcmpError, random: &mut Random) {
    let mut word = || random.next() as u32;
    let new = Translation { outer: [word(), word()], addrs: [word(), word()], ports: [word() as u16, word() as u16] };
    let base = placed.as_ptr() as usize;
    let at = |pointer: *mut u8| pointer as usize - base;
    let (ip, icmp, inner, tcp) = (at(error.ip), at(error.icmp), at(error.inner), at(error.tcp));
    error.rewrite(&new, base + placed.len());

    let text = || format!("{}\n{}", hex(before), hex(placed));
    let word = |at: usize| u32::from_ne_bytes(placed[at..at + 4].try_into().unwrap());
    assert_eq!([word(ip + 12), word(ip + 16)], new.outer, "{}", text());
    assert_eq!([word(inner + 12), word(inner + 16)], new.addrs, "{}", text());
    assert_eq!(placed[tcp..tcp + 4], [new.ports[0].to_ne_bytes(), new.ports[1].to_ne_bytes()].concat(), "{}", text());
    assert_eq!(placed[ip + 8], before[ip + 8] - 1, "{}", text());

    // A sum over header and checksum stays what it was, right or wrong.
    for (what, range) in
        [("the outer header", ip..icmp), ("the ICMP message", icmp..placed.len()), ("the quoted header", inner..tcp)]
    {
        assert_eq!(sum(&before[range.clone()]), sum(&placed[range]), "{what}\n{}", text());
    }
    if error.has_check {
        // As far as it is quoted: ports, checksum, and the addresses of the pseudo-header.
        let parts = |frame: &[u8]| {
            sum(&[&frame[inner + 12..inner + 20], &frame[tcp..tcp + 4], &frame[tcp + 16..tcp + 18]].concat())
        };
        assert_eq!(parts(before), parts(placed), "the quoted segment\n{}", text());
    }
    let mut ours = vec![ip + 8..ip + 9, ip + 10..ip + 20, icmp + 2..icmp + 4, inner + 10..inner + 20, tcp..tcp + 4];
    if error.has_check {
        ours.push(tcp + 16..tcp + 18);
    }
    for at in 0..placed.len() {
        assert!(placed[at] == before[at] || ours.iter().any(|range| range.contains(&at)), "byte {at}\n{}", text());
    }
}

/// The one's complement sum; both representations of zero are one.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.sum::<u32>() % 0xffff
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_corpus_is_read_as_the_model_reads_it() {
    let (mut guarded, mut random) = (Guarded::new(), Random(0));
    let mut kinds = BTreeMap::new();
    for (name, frame) in corpus() {
        let seen = check(&mut guarded, &frame, &mut random);
        kinds.entry(seen.kind()).or_insert_with(Vec::new).push(name);
        // Cut anywhere, too.
        for len in 0..frame.len() {
            check(&mut guarded, &frame[..len], &mut random);
        }
    }
    assert_eq!(kinds.len(), 6, "kinds in the corpus: {kinds:#?}");
}

#[test]
fn mutated_frames_are_read_as_the_model_reads_them() {
    let rounds = std::env::var("LB_FUZZ_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let (frames, mut guarded, mut random) = (corpus(), Guarded::new(), Random(1));
    let mut kinds = BTreeMap::new();
    for _ in 0..rounds {
        let frame = mutate(&mut random, &frames);
        *kinds.entry(check(&mut guarded, &frame, &mut random).kind()).or_insert(0_u64) += 1;
    }
    println!("{rounds} frames: {kinds:?}");
    // A generator that makes rubbish only would prove nothing.
    assert!(kinds.len() == 6 && kinds.values().all(|count| *count > rounds / 200), "{kinds:?}");
}

//! The same packets through our director and through the kernel's NAT: every byte of what arrives must be equal.
//!
//! Crafted packets with fixed numbers, because byte equality needs them. The hosts' own stacks are deaf, so nothing is
//! sent but what is written here.

use lb_tests::lab::{Frame, Offload};
use lb_tests::oracle::{CLIENT, End, Fate, Oracle, ROUTER, SERVER, SERVER_ROUTER, Script, VIP};
use lb_tests::packet::{flag, icmp_error, tcp};

use Fate::{Crosses, IsAnswered, Nowhere};

/// The handshake, data in both directions in every shape, and the orderly end from either side.
fn conversations() -> Vec<Script> {
    let data = Script::new("data", 40001)
        .handshake()
        .answers("greeting", |p| p.psh().payload("5.5.5-10.11.6-MariaDB"))
        .says("login", |p| p.psh().payload("login"))
        .answers("an ACK alone", |p| p)
        .says("an odd byte", |p| p.psh().payload("x"))
        .answers("a full segment", |p| p.payload(1460))
        .answers("the next", |p| p.psh().payload(1460))
        .says("ACK with SACK blocks", |p| p.tcp_options(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9]))
        .says("a segment with 40 bytes of options", |p| p.tcp_options(&[1; 40]).payload(777))
        .answers("every other flag", |p| p.flags(flag::ACK | flag::URG | flag::ECE | flag::CWR).payload("urgent"))
        .says("window 0", |p| p.window(0))
        .says("window update", |p| p.window(65535));
    let client_closes = Script::new("the client closes", 40002)
        .handshake()
        .says("QUIT", |p| p.psh().payload("\u{1}\0\0\0\u{1}"))
        .says("FIN", |p| p.fin())
        .answers("ACK of the FIN", |p| p)
        .answers("last data", |p| p.payload("bye"))
        .answers("FIN", |p| p.fin())
        .says("the last ACK", |p| p);
    let server_closes = Script::new("the server closes", 40003)
        .handshake()
        .answers("FIN with data", |p| p.fin().psh().payload("gone away"))
        .says("ACK and FIN", |p| p.fin())
        .answers("the last ACK", |p| p);
    let both_close = Script::new("both close at once", 40004).handshake();
    let fin = both_close.client().fin().ack(0xfff0_0000 + 40004 + 1);
    let both_close = both_close
        .answers("FIN", |p| p.fin())
        .sends(End::Client, "FIN that crosses it", fin)
        .answers("ACK", |p| p)
        .says("ACK", |p| p);
    let wrap = Script::new("sequence numbers wrap", 40005)
        .numbers(u32::MAX - 3, u32::MAX - 1000)
        .handshake()
        .says("over the edge", |p| p.payload(1000))
        .answers("over the edge", |p| p.payload(1460))
        .says("behind it", |p| p.payload(1000));
    vec![data, client_closes, server_closes, both_close, wrap, again(), resets("by the client", End::Client, 40007)]
}

/// Packets that are sent twice: TCP does that whenever an answer is late.
fn again() -> Script {
    let script = Script::new("again", 40006);
    let syn = script.client().syn();
    let synack = script.server().syn().ack(0x1000_0000 + 40006 + 1);
    script
        .sends(End::Client, "SYN", syn.clone())
        .sends(End::Client, "SYN again", syn.clone().id(0x4322))
        .sends(End::Server, "SYN+ACK", synack.clone())
        .sends(End::Server, "SYN+ACK again", synack.id(0x8766))
        .says("ACK", |p| p)
        .says("data", |p| p.payload("once"))
        .sends(End::Client, "the ACK of before", syn.flags(flag::ACK).seq(0x1000_0000 + 40007).ack(0xfff0_0000 + 40007))
}

/// A RST ends the conversation; another one of it follows.
fn resets(by: &str, end: End, port: u16) -> Script {
    let script = Script::new(&format!("reset {by}"), port).handshake().says("a query", |p| p.psh().payload("SELECT 1"));
    match end {
        End::Client => script.says("RST", |p| p.rst()).says("RST again", |p| p.rst()),
        End::Server => script.answers("RST", |p| p.rst()).answers("RST again", |p| p.rst()),
    }
}

/// A server that refuses the SYN.
fn refused() -> Script {
    let script = Script::new("refused", 40009);
    let syn = script.client().syn();
    let script = script.sends(End::Client, "SYN", syn);
    let rst = script.server().seq(0).rst().ack(0x1000_0000 + 40009 + 1);
    script.sends(End::Server, "RST+ACK", rst)
}

/// Everything that the IP header can hold.
fn ip_headers() -> Vec<Script> {
    let mut script = Script::new("IP headers", 40010).handshake();
    for (what, options) in [
        ("no operation", &[1, 1, 1, 1][..]),
        ("end of list", &[1, 0, 0, 0][..]),
        ("security", &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]),
        ("an unknown option", &[0x5e, 4, 9, 9][..]),
        ("40 bytes", &[1; 40][..]),
    ] {
        script = script
            .says(&format!("client: {what}"), |p| p.ip_options(options).payload("options"))
            .answers(&format!("server: {what}"), |p| p.ip_options(options).payload("options"));
    }
    for (tos, id, ttl) in [(0x00, 0, 64), (0x10, 1, 2), (0xb9, 0xffff, 255), (0x03, 0x8000, 128)] {
        script = script
            .says("client: TOS, id, TTL", |p| p.tos(tos).id(id).ttl(ttl).payload("ip"))
            .answers("server: TOS, id, TTL", |p| p.tos(tos).id(id).ttl(ttl).payload("ip"));
    }
    let options = Script::new("options from the first packet on", 40011);
    let syn = options.client().syn().ip_options(&[1; 8]).tcp_options(&[2, 4, 5, 0xb4]);
    let options = options
        .sends(End::Client, "SYN", syn)
        .answers("SYN+ACK", |p| p.syn().ip_options(&[1; 4]))
        .says("ACK", |p| p.ip_options(&[1; 12]));
    vec![script, options]
}

/// Kind, code, next-hop MTU of the errors that a TCP connection meets.
const ERRORS: [(u8, u8, u16, &str); 6] = [
    (3, 4, 1400, "fragmentation needed"),
    (3, 1, 0, "host unreachable"),
    (3, 3, 0, "port unreachable"),
    (3, 13, 0, "administratively prohibited"),
    (11, 0, 0, "time exceeded"),
    (12, 0, 0, "parameter problem"),
];

/// ICMP errors about packets of both directions, from routers and from the ends, with quotes of every length.
fn icmp_errors() -> Vec<Script> {
    let mut forward = Script::new("errors about the server's packets", 40020).handshake();
    let mut reverse = Script::new("errors about the client's packets", 40021).handshake();
    for (kind, code, mtu, what) in ERRORS {
        // 28: as much as RFC 792 asks for; 40: the whole TCP header; 548: as much as RFC 1812 allows.
        for quoted in [28, 40, 60, 548] {
            let big = forward.as_client_sees(forward.server().ack(7).payload(1460)).ip_bytes();
            let big = &big[..quoted];
            for from in [ROUTER, CLIENT] {
                let error = icmp_error(kind, code, mtu, big).from(from).to(*VIP.ip()).id(7);
                forward = forward.other(End::Client, &format!("{what}, {quoted} bytes, from {from}"), error, Crosses);
            }
            let query = reverse.as_server_sees(reverse.client().ack(7).payload(1460)).ip_bytes();
            let query = &query[..quoted];
            for from in [SERVER_ROUTER, *SERVER.ip()] {
                let error = icmp_error(kind, code, mtu, query).from(from).to(CLIENT).id(7);
                reverse = reverse.other(End::Server, &format!("{what}, {quoted} bytes, from {from}"), error, Crosses);
            }
        }
    }
    // A quote with IP options, an error with IP options, and the conversation goes on.
    let quoted = forward.as_client_sees(forward.server().ack(7).ip_options(&[1; 12]).payload(100)).ip_bytes();
    let error = icmp_error(3, 4, 576, &quoted).from(ROUTER).to(*VIP.ip());
    let forward = forward
        .other(End::Client, "options in the quote", error.clone(), Crosses)
        .other(End::Client, "options around it", error.ip_options(&[1; 8]), Crosses)
        .answers("a smaller segment", |p| p.payload(1360));
    let quoted = reverse.as_server_sees(reverse.client().ack(7).ip_options(&[1; 12]).payload(100)).ip_bytes();
    let error = icmp_error(3, 4, 576, &quoted).from(SERVER_ROUTER).to(CLIENT);
    let reverse = reverse
        .other(End::Server, "options in the quote", error.clone(), Crosses)
        .other(End::Server, "options around it", error.ip_options(&[1; 8]), Crosses)
        .says("a smaller segment", |p| p.payload(1360));
    vec![forward, reverse, error_in_handshake(), error_after_close()]
}

/// The SYN itself finds no way: the server's side says so before there is a conversation.
fn error_in_handshake() -> Script {
    let script = Script::new("an error about a SYN", 40022);
    let syn = script.client().syn().tcp_options(&[2, 4, 5, 0xb4]);
    let quoted = script.as_server_sees(syn.clone()).ip_bytes();
    let from_server = |kind, code| icmp_error(kind, code, 0, &quoted).from(*SERVER.ip()).to(CLIENT);
    script.sends(End::Client, "SYN", syn).other(End::Server, "port unreachable", from_server(3, 3), Crosses).other(
        End::Server,
        "time exceeded",
        from_server(11, 0).from(SERVER_ROUTER),
        Crosses,
    )
}

/// Errors are translated while anybody may still send.
fn error_after_close() -> Script {
    let script = Script::new("an error about the last packets", 40023)
        .handshake()
        .says("FIN", |p| p.fin())
        .answers("FIN", |p| p.fin().payload(1400))
        .says("the last ACK", |p| p);
    let quoted = script.as_client_sees(script.server().ack(7).payload(1400)).ip_bytes();
    let error = icmp_error(3, 4, 1300, &quoted).from(ROUTER).to(*VIP.ip());
    script.other(End::Client, "fragmentation needed", error, Crosses)
}

/// Packets that must not reach the other end, and packets that the director's kernel answers.
fn dead_ends() -> Vec<Script> {
    let script = Script::new("dead ends", 40030).handshake();
    let expired = script.server().ack(7).ttl(1).payload("too far");
    let script =
        script.other(End::Server, "TTL 1 from the server", expired, IsAnswered).but(|step| step.own_ident = true);
    let quoted = tcp().from(VIP).to((CLIENT, 59999)).ack(1).payload(100).ip_bytes();
    let stranger = icmp_error(3, 4, 1400, &quoted).from(ROUTER).to(*VIP.ip());
    let script = script.other(End::Client, "an error about nobody's packet", stranger, Nowhere);
    // The conversation is not disturbed.
    vec![script.says("data", |p| p.payload("on")).answers("data", |p| p.payload("and on"))]
}

/// Checksums and super-frames left to the device, as virtual devices carry them: only TC can translate them.
fn unfinished() -> Vec<Script> {
    let script = Script::new("unfinished checksums", 40040);
    let syn = script.client().syn().partial_checksum();
    let mut script = script
        .sends(End::Client, "SYN", syn)
        .unfinished()
        .answers("SYN+ACK", |p| p.syn().partial_checksum())
        .unfinished()
        .says("ACK", |p| p.partial_checksum())
        .unfinished();
    for size in [1, 2, 7, 512, 1440] {
        script = script
            .says(&format!("{size} bytes"), |p| p.payload(size).partial_checksum())
            .unfinished()
            .answers(&format!("{size} bytes"), |p| p.payload(size).partial_checksum())
            .unfinished()
            .says(&format!("{size} bytes, with options"), |p| p.payload(size).ip_options(&[1; 8]).partial_checksum())
            .unfinished();
    }
    for (size, segment) in [(2896, 1448), (14480, 1448), (60000, 536)] {
        let large = |step: &mut lb_tests::oracle::Step| step.frame = step.frame.clone().segmented(segment);
        script = script
            .answers(&format!("{size} bytes in segments of {segment}"), |p| p.payload(size).partial_checksum())
            .but(large)
            .says(&format!("{size} bytes in segments of {segment}"), |p| p.payload(size).partial_checksum())
            .but(large);
    }
    vec![script.says("FIN", |p| p.fin().partial_checksum()).unfinished().answers("RST", |p| p.rst())]
}

fn scripts() -> Vec<Script> {
    let mut scripts = conversations();
    scripts.extend([resets("by the server", End::Server, 40008), refused()]);
    scripts.extend(ip_headers());
    scripts.extend(icmp_errors());
    scripts.extend(dead_ends());
    scripts
}

fn compare(oracle: &Oracle, scripts: &[Script]) {
    let mut equal = 0;
    let mut differences = Vec::new();
    for script in scripts {
        match oracle.compare(script) {
            Ok(count) => equal += count,
            Err(error) => differences.push(format!("{error:#}")),
        }
    }
    println!("{} scripts, {equal} packets equal", scripts.len());
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn the_director_translates_like_the_kernel_tc() {
    compare(&Oracle::up("tc", Offload::Off).unwrap(), &scripts());
}

#[test]
fn the_director_translates_like_the_kernel_xdp() {
    compare(&Oracle::up("xdp", Offload::Off).unwrap(), &scripts());
}

#[test]
fn the_director_translates_like_the_kernel_xdp_generic() {
    compare(&Oracle::up("xdp-generic", Offload::Off).unwrap(), &scripts());
}

#[test]
fn unfinished_checksums_and_super_frames_stay_what_they_are_tc() {
    compare(&Oracle::up("tc", Offload::On).unwrap(), &unfinished());
}

/// A data segment for every value that two bytes of payload can give the checksum, the two zeros among them.
#[test]
fn every_value_of_the_checksum_comes_out_as_from_the_kernel() {
    for mode in ["tc", "xdp"] {
        let oracle = Oracle::up(mode, Offload::Off).unwrap();
        let script = Script::new("every checksum", 40050).handshake();
        oracle.compare(&script).unwrap();
        let frames = (0..=u16::MAX).map(|word| {
            let packet = script.client().ack(0xfff0_0000 + 40051).payload(&word.to_be_bytes()[..]);
            Frame::from(packet.build())
        });
        let equal = oracle.compare_stream(frames, 64).unwrap();
        println!("{mode}: {equal} packets equal");
        assert_eq!(equal, 65_536);
    }
}

//! Checksums, exhaustively: every value the field can have, both directions, recomputed from scratch afterwards.

use lb_common::counter::Counter::Deferred;
use lb_tests::{
    packet::{Packet, Tcp, describe, difference, verify},
    prog::{Bench, Flow, Hook, Outcome, Port, Site, Verdict, network::*, put},
};

fn bench(hook: Hook, flow: &Flow) -> Bench {
    let mut bench = Bench::load(hook).unwrap();
    Site::mysql().apply(&mut bench.tables).unwrap();
    let now = bench.jiffies().unwrap();
    put(&mut bench, flow, now).unwrap();
    bench
}

/// Runs a packet; what XDP defers goes on to TC, as on a real interface.
fn run(bench: &mut Bench, port: Port, packet: &Packet<Tcp>, deferred: &mut u64) -> Outcome {
    let frame = packet.build();
    let outcome = bench.run(port, &frame).unwrap();
    if outcome.verdict != Verdict::Pass {
        return outcome;
    }
    assert_eq!(bench.hook(), Hook::Xdp, "TC translates everything");
    assert_eq!(difference(&frame, &outcome.packet), None, "what XDP defers is untouched");
    *deferred += 1;
    bench.run_at(Hook::Tc, port, &frame).unwrap()
}

#[test]
fn every_value_of_the_checksum_is_translated_right() {
    let flow = Flow::mysql("10.80.1.1:40000", SERVER1).established();
    for hook in Hook::ALL {
        for (port, packet) in [(Port::Ext, flow.client_ack().payload("odd")), (Port::Int, flow.backend_ack())] {
            let mut bench = bench(hook, &flow);
            let (mut deferred, mut seen) = (0, vec![false; 1 << 16]);
            // The window is one word of the sum: it takes the field through all of its values.
            for window in 0..=u16::MAX {
                let packet = packet.clone().window(window);
                let frame = packet.build();
                seen[usize::from(u16::from_be_bytes([frame[50], frame[51]]))] = true;
                let outcome = run(&mut bench, port, &packet, &mut deferred);
                let line = || format!("{hook}, {port:?}, window {window}: {}", describe(&outcome.packet));
                assert_eq!(verify(&outcome.packet), Ok(()), "{}", line());
                let mut out = flow.translated(&packet).build();
                // 0x0000 and 0xffff are the same sum; the bytes must agree but for that.
                if out[50..52] == [0, 0] || out[50..52] == [0xff, 0xff] {
                    assert!(matches!(outcome.packet[50..52], [0, 0] | [0xff, 0xff]), "{}", line());
                    out[50..52].copy_from_slice(&outcome.packet[50..52]);
                }
                assert_eq!(difference(&out, &outcome.packet), None, "{}", line());
            }
            let values = seen.iter().filter(|&&seen| seen).count();
            assert!(values >= 0xffff, "only {values} values of the field");
            // XDP takes a finished checksum for an unfinished one where both have the same value: here, once.
            let counted = bench.tables.counters().unwrap().get(&Deferred).copied().unwrap_or(0);
            let expected = if hook == Hook::Xdp { 1 } else { 0 };
            assert_eq!((deferred, counted), (expected, expected), "{hook}, {port:?}");
        }
    }
}

#[test]
fn many_addresses_ports_and_lengths_are_translated_right() {
    let mut state = 7_u32;
    for hook in Hook::ALL {
        let site = Site::mysql();
        let mut bench = Bench::load(hook).unwrap();
        site.apply(&mut bench.tables).unwrap();
        let now = bench.jiffies().unwrap();
        let mut deferred = 0;
        for _ in 0..400 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let client = format!("198.51.{}.{}:{}", state >> 24, state >> 16 & 0xff, (state & 0xffff).max(1));
            let backend = if state & 1 == 0 { SERVER1 } else { SERVER2 };
            let flow = Flow::mysql(&client, backend).established();
            put(&mut bench, &flow, now).unwrap();
            let payload = (state >> 8) as usize % 1400;
            for (port, packet) in [
                (Port::Ext, flow.client_ack().macs(mac_of(CLIENT2), EXT_MAC).payload(payload)),
                (Port::Int, flow.backend_ack().payload(payload / 2)),
            ] {
                let outcome = run(&mut bench, port, &packet.clone().id(state as u16), &mut deferred);
                assert_eq!(verify(&outcome.packet), Ok(()), "{hook}: {}", describe(&outcome.packet));
            }
            for key in flow.keys() {
                bench.tables.remove(&key).unwrap();
            }
        }
    }
}

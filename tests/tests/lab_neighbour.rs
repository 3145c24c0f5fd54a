//! The director forgets its neighbours in the middle of the traffic. A packet or two may have to be sent again; no
//! query fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lb_tests::checks::{Setting, rounds};
use lb_tests::lab::{Offload, SysbenchOptions, prepare_sysbench};

const TABLE: u32 = 10_000;

fn survives_forgotten_neighbours(mode: &str, offload: Offload) {
    let setting = Setting::of(mode, offload);
    let lab = setting.up().unwrap();
    let d1 = lab.d1();
    let shares = setting.shares(&lab);
    prepare_sysbench(lab.servers(), TABLE).unwrap();
    let options = SysbenchOptions {
        script: "oltp_read_only".to_owned(),
        threads: 4,
        seconds: 6,
        table_size: TABLE,
        ..Default::default()
    };
    let running = lab.client().start_sysbench(&options).unwrap();

    let (done, flushes) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for interface in ["ext0", "int0"] {
                    // ip gives up when the kernel learns an address faster than it forgets: then the next one counts.
                    let flush = d1.host().run(&["ip", "neigh", "flush", "dev", interface]).unwrap();
                    flushes.fetch_add(u64::from(flush.status.success()), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let work = lab.client().many_connections(rounds(400, &shares), 10, 4);
        thread::sleep(Duration::from_secs(3));
        done.store(true, Ordering::Relaxed);
        flusher.join().unwrap();
        work
    });
    // sysbench opens its connections meanwhile, so that the shares are not exact here.
    let work = work.unwrap();
    assert_eq!((work.failed_queries, work.errors.len()), (0, 0), "{work:?}");
    let report = running.wait().unwrap();
    println!("{mode}: {} flushes, {report:?}", flushes.load(Ordering::Relaxed));
    assert!(flushes.load(Ordering::Relaxed) >= 10);
    assert!(report.completed && report.fatal.is_empty(), "{report:?}");
    assert_eq!((report.errors, report.reconnects), (0, 0), "{report:?}");
}

#[test]
fn no_query_fails_while_the_director_forgets_its_neighbours_tc() {
    survives_forgotten_neighbours("tc", Offload::On);
}

#[test]
fn no_query_fails_while_the_director_forgets_its_neighbours_xdp() {
    survives_forgotten_neighbours("xdp", Offload::Off);
}

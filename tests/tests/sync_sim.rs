//! Connection sync in simulated worlds: thousands of seeds of chaos, and then calm. What must hold is in
//! `sim::sync::chaos` and in the laws of its world.

use lb_tests::sim::sync::{Kind, chaos};

/// Which worlds of each kind: `LB_SIM_SEEDS` asks for more, and may begin elsewhere (`1000..5000`).
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("LB_SIM_SEEDS") else { return 0..300 };
    let number = |text: &str| text.parse().expect("LB_SIM_SEEDS is a number, or two with .. between");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

fn play(kind: Kind) {
    for seed in seeds() {
        if let Err(story) = chaos(seed, kind) {
            panic!("{kind:?} {story}");
        }
    }
}

#[test]
fn after_any_chaos_both_tables_are_equal_and_right() {
    play(Kind::Everything);
}

#[test]
fn conns_that_only_one_director_sees_live_as_long_as_they_are_used() {
    play(Kind::Lease);
}

#[test]
fn nothing_depends_on_the_ring() {
    play(Kind::Deaf);
}

#[test]
fn ends_may_be_forgotten() {
    play(Kind::Forgetful);
}

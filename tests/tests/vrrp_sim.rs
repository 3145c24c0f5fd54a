//! The election in simulated worlds: thousands of seeds of chaos, and then calm. What must hold is in `sim::chaos`.

use lb_tests::sim::chaos;

/// How many worlds of each kind; `LB_SIM_SEEDS` asks for more.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("LB_SIM_SEEDS").ok().map(|text| text.parse().expect("LB_SIM_SEEDS is a number"));
    0..count.unwrap_or(3000)
}

#[test]
fn after_any_chaos_there_is_one_active_with_both_vips() {
    for seed in seeds() {
        if let Err(story) = chaos(seed, false) {
            panic!("{story}");
        }
    }
}

#[test]
fn after_any_chaos_with_a_plain_vrrp_router_each_vip_has_one_owner() {
    for seed in seeds() {
        if let Err(story) = chaos(seed, true) {
            panic!("{story}");
        }
    }
}

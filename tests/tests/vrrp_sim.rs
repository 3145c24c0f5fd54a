//! The election in simulated worlds: thousands of seeds of chaos, and the scenes that operators fear most.

use std::time::Duration;

use lb_tests::sim::{Chance, EXT, Fault, INT, SYNC, Setup, Sleep, World, chaos};
use lb_userspace::{
    ha::{Alarm, Input},
    vrrp::Version,
};

#[test]
fn after_any_chaos_there_is_one_active_with_both_vips() {
    for seed in 0..4000 {
        if let Err(story) = chaos(seed, false) {
            panic!("{story}");
        }
    }
}

#[test]
fn after_any_chaos_with_a_plain_vrrp_router_each_vip_has_one_owner() {
    for seed in 0..4000 {
        if let Err(story) = chaos(seed, true) {
            panic!("{story}");
        }
    }
}

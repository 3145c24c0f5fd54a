//! The ARP gate: only an Active director whose agent is alive answers for a VIP.
//!
//! A dead or frozen agent leaves its addresses configured; the kernel would go on answering for them while the peer has
//! taken over. So the packet path drops requests (RFC 826) for a VIP unless the agent's heartbeat is fresh.

use lb_common::{
    control::{ArpGate, Control},
    counter::Counter,
};

use crate::{Verdict, clock, maps::CONTROL};

/// Judges a request for `target`, a word of the packet.
#[inline(always)]
pub(crate) fn request(target: u32) -> Verdict {
    let Some(control) = CONTROL.get(0) else { return Verdict::Pass };
    if matches!(control.arp_gate, ArpGate::Off) || !is_vip(control, target) {
        return Verdict::Pass;
    }
    let fresh = clock::now().wrapping_sub(control.heartbeat) <= control.heartbeat_jiffies;
    if matches!(control.arp_gate, ArpGate::Open) && fresh { Verdict::Pass } else { Verdict::Drop(Counter::ArpGate) }
}

#[inline(always)]
fn is_vip(control: &Control, target: u32) -> bool {
    let mut found = false;
    for vip in &control.vips {
        found |= vip.word() == target;
    }
    found && target != 0
}

//! Who takes new conns, and how many of them: tiers, full backends, slow starts.

use std::time::Instant;

use super::member::{Member, STEPS, Share, Tier};

/// The shares of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The weights differ for a time although the scheduler does not look at them: its weighted twin must serve.
    pub weighted_twin: bool,
    /// Of each backend, in the order of the config.
    pub backends: Vec<Share>,
}

/// Computes the shares, and whose turn it is.
pub(super) fn shares(members: &[Member], weighted: bool, now: Instant) -> (Shares, Option<Tier>) {
    let tier = members.iter().filter(|m| m.is_eligible()).map(|m| m.plan.tier).min();
    let of_tier = |member: &&Member| member.is_eligible() && Some(member.plan.tier) == tier;
    // Load never takes the last one out: when all are full, all of them serve on.
    let room = members.iter().filter(of_tier).any(|member| !member.is_full());
    let serves = |member: &Member| of_tier(&member) && (!room || !member.is_full());
    let ramping = members.iter().any(|member| serves(member) && member.ramp.is_some());
    let weight = |member: &Member| if weighted || !ramping { member.weight() } else { 1 };
    let heaviest = members.iter().filter(|m| serves(m)).map(weight).max().unwrap_or(1);
    // Steps of a slow start need weights that can be cut finely. Halves of a step are nothing to nobody.
    let scale = if ramping { (u16::MAX / heaviest.max(1)).clamp(1, STEPS as u16) } else { 1 };
    let share = |member: &Member| {
        let whole = u32::from(weight(member)) * u32::from(scale);
        let step = member.ramp.filter(|_| serves(member)).map_or(STEPS, |ramp| ramp.step(now));
        // `whole` is at most u16::MAX, by the scale.
        let cut = (whole * step / STEPS).max(u32::from(whole > 0)) as u16;
        Share { weight: cut, drain: member.is_up() && !serves(member), down: !member.is_up() }
    };
    let backends = members.iter().map(share).collect();
    (Shares { weighted_twin: ramping && !weighted, backends }, tier)
}

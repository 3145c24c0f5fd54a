//! Rates: the difference of two readings over the time between them.

use crate::control::protocol::{BackendRate, Rate, RateView, StatsView, Traffic};
use std::time::Duration;

/// The rates of every service of the second reading. A counter that went back was reset and counts as 0.
pub(super) fn between(before: &[StatsView], after: &[StatsView], elapsed: Duration) -> Vec<RateView> {
    let view = |now: &StatsView| {
        let old = before.iter().find(|s| s.name == now.name && s.listen == now.listen);
        let backends: Vec<_> = now
            .backends
            .iter()
            .map(|backend| {
                let old = old.and_then(|s| s.backends.iter().find(|b| b.address == backend.address));
                // A backend that was added in between started at 0.
                let old = old.map_or(Traffic::default(), |b| b.traffic);
                BackendRate { address: backend.address, rate: rate(&old, &backend.traffic, elapsed) }
            })
            .collect();
        let total = rate(&old.map_or(Traffic::default(), |s| s.total), &now.total, elapsed);
        let interval_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        RateView { name: now.name.clone(), listen: now.listen, protocol: now.protocol, interval_ms, total, backends }
    };
    after.iter().map(view).collect()
}

fn rate(before: &Traffic, after: &Traffic, elapsed: Duration) -> Rate {
    let micros = elapsed.as_micros().max(1);
    let per_second = |before: u64, after: u64| {
        let rate = (u128::from(after.saturating_sub(before)) * 1_000_000 + micros / 2) / micros;
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    Rate {
        cps: per_second(before.conns, after.conns),
        in_pps: per_second(before.in_packets, after.in_packets),
        out_pps: per_second(before.out_packets, after.out_packets),
        in_bps: per_second(before.in_bytes, after.in_bytes),
        out_bps: per_second(before.out_bytes, after.out_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::BackendTraffic;
    use lb_common::conn::Proto;

    fn reading(total: u64, backends: &[(&str, u64)]) -> StatsView {
        let traffic = |n| Traffic { conns: n, in_packets: 2 * n, out_packets: 3 * n, in_bytes: 10 * n, out_bytes: n };
        StatsView {
            name: "mysql".to_owned(),
            listen: "10.80.1.243:3306".parse().unwrap(),
            protocol: Proto::Tcp,
            total: traffic(total),
            backends: backends
                .iter()
                .map(|(a, n)| BackendTraffic { address: a.parse().unwrap(), traffic: traffic(*n) })
                .collect(),
        }
    }

    #[test]
    fn a_rate_is_the_difference_per_second_and_never_negative() {
        let before = [reading(100, &[("10.0.0.1:1", 90), ("10.0.0.2:1", 10)])];
        let after = [reading(105, &[("10.0.0.1:1", 95), ("10.0.0.2:1", 4), ("10.0.0.3:1", 6)])];
        let rates = between(&before, &after, Duration::from_secs(2));
        assert_eq!(rates[0].total, Rate { cps: 3, in_pps: 5, out_pps: 8, in_bps: 25, out_bps: 3 });
        assert_eq!(rates[0].interval_ms, 2000);
        let cps: Vec<_> = rates[0].backends.iter().map(|b| b.rate.cps).collect();
        assert_eq!(cps, [3, 0, 3]);
    }

    #[test]
    fn no_time_and_no_reading_before_are_no_reason_to_fail() {
        let mut after = reading(1, &[]);
        after.total.conns = u64::MAX;
        let rates = between(&[], &[after], Duration::ZERO);
        assert_eq!((rates[0].total.cps, rates[0].total.in_pps), (u64::MAX, 2_000_000));
    }
}

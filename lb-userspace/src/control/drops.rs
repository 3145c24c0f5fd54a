//! What each drop reason means to an operator, and what to do about it.

use super::protocol::DropView;
use lb_common::counter::Counter;

/// The drop reasons among the counters, in their order, zero counts included.
pub(super) fn views(counters: &[(Counter, u64)]) -> Vec<DropView> {
    counters
        .iter()
        .filter_map(|(counter, count)| {
            let (explanation, remedy) = words(*counter)?;
            Some(DropView {
                reason: counter.name().to_owned(),
                count: *count,
                explanation: explanation.to_owned(),
                remedy: remedy.to_owned(),
            })
        })
        .collect()
}

/// Explanation and remedy of a drop reason; no wildcard, so that a new counter gets its words.
const fn words(counter: Counter) -> Option<(&'static str, &'static str)> {
    Some(match counter {
        Counter::NoBackend => (
            "a SYN for a service found no backend that takes new conns; by no_backend it is answered with a RST or dropped",
            "lbctl services: every backend is drained, down or of weight 0; bring one back with lbctl backend undrain",
        ),
        Counter::NoConn => (
            "a packet of a service belonged to no conn and opened none",
            "a few after an idle timeout or a failover are normal; if they grow, raise timeouts.established above \
             MySQL's wait_timeout, and set no_conn = \"rst\" so that clients reconnect at once",
        ),
        Counter::TableFull => (
            "the table of established conns is full, a new conn was refused",
            "raise table.conns in the config; lbctl conns --idle-gt 1h shows who holds idle conns",
        ),
        Counter::HalfOpenFull => (
            "the table of half-open conns took no entry",
            "lbctl conns --state SYN_RECV shows the sources; raise table.half_open if they are real clients, \
             otherwise it is a SYN flood",
        ),
        Counter::BadHandshake => (
            "the ACK that should complete a handshake does not acknowledge the backend's SYN",
            "forged or stray packets; if real clients fail to connect, see that the backend's default gateway is this \
             director",
        ),
        Counter::PortCollision => (
            "no free source port towards the backend: another conn of the client uses the same addresses and ports",
            "the client opens conns to one backend through several services faster than the old ones expire; shorten \
             timeouts.time_wait or give the services separate backends",
        ),
        Counter::Fragment => (
            "a fragment of a packet of a service: only the first one carries ports",
            "let path-MTU discovery work: let ICMP \"fragmentation needed\" pass, use one MTU on both sides",
        ),
        Counter::Ttl => (
            "the time to live of a packet ran out",
            "look for a routing loop: ip route get towards the client and the backend on every hop",
        ),
        Counter::NoRoute => (
            "the director has no route to the next hop",
            "ip route get towards the client and the backend on the director; add what is missing",
        ),
        Counter::NoNeighbour => (
            "the next hop's link-layer address is not known, and the hook cannot ask for it",
            "ip neigh show on the director: is the host up and on this segment? The agent asks for the backends' \
             addresses, so its log may say more",
        ),
        Counter::RewriteFailed => (
            "a helper of the kernel refused to rewrite the packet",
            "not expected: note the mode in lbctl status and the offloads in ethtool -k, and report it",
        ),
        Counter::ResetDown => (
            "a packet of a conn whose backend is down: its sender was answered with a RST",
            "lbctl services shows which backend; its clients reconnect to another one",
        ),
        Counter::ResetNoConn => (
            "a packet of a service belonged to no conn: its sender was answered with a RST",
            "a few after an idle timeout or a failover are normal; if they grow, raise timeouts.established above \
             MySQL's wait_timeout",
        ),
        Counter::ArpGate => (
            "an ARP request for a VIP that this director must not answer now",
            "normal on a Backup; on the Active it means that the agent does not run: see its log",
        ),
        Counter::TooBig => (
            "a packet longer than the link to the next hop takes: its sender was told how long one may be",
            "a few for each new conn are path-MTU discovery at work; if transfers hang, let ICMP \"fragmentation needed\" \
             reach the senders; one MTU on both sides of the director avoids it",
        ),
        Counter::ResetFull => (
            "a new conn found every backend at its max_conn: the client was answered with a RST",
            "lbctl services shows how many conns each has; raise max_conn, or add a backend",
        ),
        Counter::Malformed
        | Counter::IcmpError
        | Counter::Opened
        | Counter::Established
        | Counter::SynAgain
        | Counter::Reused
        | Counter::PortRemapped
        | Counter::BlindRst
        | Counter::HopLookup
        | Counter::Deferred
        | Counter::EventLost => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_has_words_and_nothing_else_has() {
        for counter in Counter::ALL {
            assert_eq!(words(*counter).is_some(), counter.is_drop(), "{counter}");
        }
    }

    #[test]
    fn only_drops_are_listed() {
        let views = views(&[(Counter::NoConn, 7), (Counter::Opened, 9), (Counter::Ttl, 0)]);
        let seen: Vec<_> = views.iter().map(|v| (v.reason.as_str(), v.count)).collect();
        assert_eq!(seen, [("no_conn", 7), ("ttl_exceeded", 0)]);
    }
}

//! May this director take over from a living Active, and may a director be taken down? Both follow from how far the
//! sync is. Pure; asked several times a second.

use std::time::Duration;

use crate::{
    control::protocol::SafetyView,
    ha::GateState,
    sync::{self, State, Status},
};

/// Changes that wait for longer do not just wait for others to travel with.
const LAG: Duration = Duration::from_secs(1);

/// What the sync says about taking over.
pub(super) fn gate(status: &Status, trouble: Option<&str>, bound: Duration) -> GateState {
    let reason = match status.state {
        State::Equal => return GateState::Open,
        State::NoPeer | State::Hello => match trouble {
            Some(trouble) => format!("the sync path does not work ({trouble})"),
            None => "no session with the peer on the sync path yet".to_owned(),
        },
        State::Bulk { done, total } => format!("the conns of the peer are on their way: {done} of {total}"),
        State::Diverged => "the conns of both directors differ and are being repaired".to_owned(),
    };
    GateState::Closed { reason: reason.into(), bound }
}

/// Neither director may be taken down.
pub(super) const fn unsafe_now(answer: String) -> SafetyView {
    SafetyView { this: false, peer: false, answer }
}

/// Whether this director, and the peer, may be taken down without losing an open session.
pub(super) fn safety(status: &Status, fault: bool, own: &str, peer_name: &str, trouble: Option<&str>) -> SafetyView {
    let only_peer = |answer: String| SafetyView { this: false, peer: true, answer };
    let Some(peer) = &status.peer else {
        let why = trouble.map_or_else(String::new, |trouble| format!(" ({trouble})"));
        return unsafe_now(format!(
            "{own} does not hear its peer on the sync path{why}: no director is known to have the other one's conns"
        ));
    };
    let rejected = status.counters.all_rejected();
    match status.state {
        State::NoPeer | State::Hello => return unsafe_now(format!("the session with {peer_name} is being opened")),
        State::Bulk { done, total } => {
            return unsafe_now(format!(
                "{own} and {peer_name} are still telling each other their conns: {done} of {total}"
            ));
        }
        State::Diverged => return unsafe_now(format!("the conns of {own} and {peer_name} differ: see `lbctl diff`")),
        State::Equal => {}
    }
    if status.lag > LAG {
        return unsafe_now(format!(
            "changes have waited for {:.1?} to reach {peer_name}: the sync path does not keep up",
            status.lag
        ));
    }
    // It lacks conns of ours that it was sent.
    if peer.refused > 0 {
        return SafetyView {
            this: false,
            peer: rejected == 0,
            answer: format!(
                "{peer_name} did not take {} conns of {own}: compare both configs, and the size of the tables",
                peer.refused
            ),
        };
    }
    match (fault, peer.beat.role) {
        (true, sync::Role::Fault) => unsafe_now("both directors are in Fault".to_owned()),
        (true, _) => {
            SafetyView { this: true, peer: false, answer: format!("{own} is in Fault and could not take over") }
        }
        (false, sync::Role::Fault) => only_peer(format!("{peer_name} is in Fault and could not take over")),
        (false, sync::Role::Leaving) => only_peer(format!("{peer_name} is leaving")),
        (false, _) => {
            let note = if peer.config_differs { "; their services or backends differ" } else { "" };
            SafetyView {
                this: true,
                peer: true,
                answer: format!("{own} and {peer_name} have the same {} conns{note}", status.conns),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::sync::{Beat, Counters, PeerStatus};

    const BOUND: Duration = Duration::from_secs(30);

    fn status(state: State) -> Status {
        let beat = Beat { role: sync::Role::Backup, priority: 100, address: Ipv4Addr::UNSPECIFIED };
        Status {
            state,
            node: 1,
            epoch: [0; 16],
            insecure: false,
            conns: 1000,
            ends: 0,
            queued: 0,
            lag: Duration::ZERO,
            under_way: 0,
            settled: true,
            bytes: 0,
            peer: Some(PeerStatus {
                node: 2,
                epoch: [1; 16],
                minor: 0,
                beat,
                heard: Duration::ZERO,
                conns: 1000,
                refused: 0,
                config_differs: false,
                equal: Some(Duration::ZERO),
            }),
            counters: Counters::default(),
        }
    }

    fn is_closed(state: State) -> Option<String> {
        match gate(&status(state), None, BOUND) {
            GateState::Open => None,
            GateState::Closed { reason, bound } => {
                assert_eq!(bound, BOUND);
                Some(reason.into_owned())
            }
        }
    }

    #[test]
    fn only_equal_tables_open_the_gate() {
        assert_eq!(is_closed(State::Equal), None);
        let bulk = State::Bulk { done: 400, total: 2000 };
        assert!(is_closed(bulk).unwrap().ends_with("400 of 2000"));
        for state in [State::NoPeer, State::Hello, State::Diverged, bulk] {
            assert!(is_closed(state).is_some());
        }
        let GateState::Closed { reason, .. } = gate(&status(State::NoPeer), Some("sync0: gone"), BOUND) else {
            panic!("open")
        };
        assert!(reason.contains("sync0: gone"));
    }

    #[test]
    fn the_operators_question_is_answered_for_both_directors() {
        let ask = |status: &Status, fault| {
            let SafetyView { this, peer, answer } = safety(status, fault, "d1", "d2", None);
            ((this, peer), answer)
        };
        let equal = status(State::Equal);
        assert_eq!(ask(&equal, false), ((true, true), "d1 and d2 have the same 1000 conns".to_owned()));
        assert_eq!(ask(&equal, true).0, (true, false));
        for state in [State::NoPeer, State::Hello, State::Diverged, State::Bulk { done: 0, total: 1 }] {
            assert_eq!(ask(&status(state), false).0, (false, false));
        }
        let with = |edit: &dyn Fn(&mut Status)| {
            let mut status = equal.clone();
            edit(&mut status);
            status
        };
        let peer_is = |role| with(&|status| status.peer.as_mut().unwrap().beat.role = role);
        assert_eq!(ask(&peer_is(sync::Role::Fault), false).0, (false, true));
        assert_eq!(ask(&peer_is(sync::Role::Fault), true).0, (false, false));
        assert_eq!(ask(&peer_is(sync::Role::Leaving), false).0, (false, true));
        assert_eq!(ask(&with(&|status| status.lag = LAG * 2), false).0, (false, false));
        let (safe, answer) = ask(&with(&|status| status.peer.as_mut().unwrap().refused = 7), false);
        assert!(!safe.0 && answer.contains("did not take 7 conns"), "{answer}");
        assert_eq!(ask(&with(&|status| status.peer = None), false).0, (false, false));
    }
}

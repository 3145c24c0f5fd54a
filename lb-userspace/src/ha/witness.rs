//! The decision table of a Backup: what it makes of the witnesses, adverts on each transport and the heartbeat.
//!
//! One silent path among living ones is a broken path, not a dead peer: who takes over then splits the VIPs or fights.
//! So the Backup takes over when all witnesses agree, and else holds and says which path is broken.

use super::{Mode, PeerRole};

/// What a Backup sees on a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Adverts of an Active that we leave in peace, or it is too early to tell.
    Heard,
    /// Adverts of an Active that we may displace.
    Outranked,
    /// The Active has said that it gives up.
    Resigned,
    /// No advert for the Active_Down_Interval.
    Silent,
}

/// What a Backup sees on the sync path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncPath {
    /// There is no heartbeat: none configured, none yet, or no more.
    Silent,
    /// The peer says what it is.
    Alive(PeerRole),
}

/// Why to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nobody is there.
    Silence,
    /// The peer has given up.
    Resigned,
    /// The peer says on the sync path that it must not be Active, or is leaving.
    PeerFault,
    /// The peer has a lower priority.
    Preempt,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All is well.
    Stay,
    /// The peer lives, but not everywhere: the silent paths are broken.
    Hold,
    /// Take all VIPs.
    Promote(Reason),
}

/// The table.
#[must_use]
pub fn decide(mode: Mode, sights: &[Sight], sync: SyncPath) -> Verdict {
    let any = |sight| sights.contains(&sight);
    let all = |sight| sights.iter().all(|other| *other == sight);
    if mode == Mode::Pair {
        // What it says of itself counts at once, wherever it is heard.
        if matches!(sync, SyncPath::Alive(PeerRole::Fault | PeerRole::Leaving)) {
            return Verdict::Promote(Reason::PeerFault);
        }
        if any(Sight::Resigned) {
            return Verdict::Promote(Reason::Resigned);
        }
    }
    if any(Sight::Heard) {
        return if any(Sight::Silent) { Verdict::Hold } else { Verdict::Stay };
    }
    match mode {
        Mode::Strict if any(Sight::Outranked) => Verdict::Promote(Reason::Preempt),
        Mode::Strict if any(Sight::Resigned) => Verdict::Promote(Reason::Resigned),
        Mode::Strict => Verdict::Promote(Reason::Silence),
        Mode::Pair if all(Sight::Outranked) => Verdict::Promote(Reason::Preempt),
        // Preempting through a broken path would leave a peer that serves well for a director that hears badly.
        Mode::Pair if any(Sight::Outranked) => Verdict::Hold,
        Mode::Pair => match sync {
            SyncPath::Alive(PeerRole::Active) => Verdict::Hold,
            _ => Verdict::Promote(Reason::Silence),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sight::{Heard, Outranked, Resigned, Silent};
    use SyncPath::Alive;

    const BACKUP: SyncPath = Alive(PeerRole::Backup);
    const ACTIVE: SyncPath = Alive(PeerRole::Active);
    const FAULT: SyncPath = Alive(PeerRole::Fault);
    const LEAVING: SyncPath = Alive(PeerRole::Leaving);

    #[test]
    fn a_backup_of_a_pair_judges_by_all_witnesses() {
        let silence = Verdict::Promote(Reason::Silence);
        let preempt = Verdict::Promote(Reason::Preempt);
        let resigned = Verdict::Promote(Reason::Resigned);
        let fault = Verdict::Promote(Reason::PeerFault);
        for (name, ext, int, sync, verdict) in [
            ("nobody anywhere", Silent, Silent, SyncPath::Silent, silence),
            ("multicast is filtered, the peer serves", Silent, Silent, ACTIVE, Verdict::Hold),
            ("the peer is there but nobody serves", Silent, Silent, BACKUP, silence),
            ("one path of two, no heartbeat", Silent, Heard, SyncPath::Silent, Verdict::Hold),
            ("the other path of two, no heartbeat", Heard, Silent, SyncPath::Silent, Verdict::Hold),
            ("one path of two, the peer serves", Silent, Heard, ACTIVE, Verdict::Hold),
            ("all is well", Heard, Heard, ACTIVE, Verdict::Stay),
            ("the sync path is lost", Heard, Heard, SyncPath::Silent, Verdict::Stay),
            ("the peer has just stepped down", Heard, Heard, BACKUP, Verdict::Stay),
            ("the peer is in Fault", Heard, Heard, FAULT, fault),
            ("the peer is in Fault and silent", Silent, Silent, FAULT, fault),
            ("the peer says goodbye", Heard, Silent, LEAVING, fault),
            ("priority 0 everywhere", Resigned, Resigned, SyncPath::Silent, resigned),
            ("priority 0, lost on one path", Resigned, Heard, ACTIVE, resigned),
            ("priority 0 on the only path that lives", Silent, Resigned, SyncPath::Silent, resigned),
            ("a peer of lower priority", Outranked, Outranked, ACTIVE, preempt),
            ("a peer of lower priority, one path to it broken", Outranked, Silent, ACTIVE, Verdict::Hold),
            ("the same without heartbeat", Silent, Outranked, SyncPath::Silent, Verdict::Hold),
            ("a peer of lower priority, too early on one path", Outranked, Heard, ACTIVE, Verdict::Stay),
        ] {
            assert_eq!(decide(Mode::Pair, &[ext, int], sync), verdict, "{name}");
            assert_eq!(decide(Mode::Pair, &[int, ext], sync), verdict, "{name}, mirrored");
        }
    }

    #[test]
    fn strict_mode_counts_adverts_only_and_takes_over_when_every_transport_would() {
        let silence = Verdict::Promote(Reason::Silence);
        for sync in [SyncPath::Silent, ACTIVE, BACKUP, FAULT, LEAVING] {
            for (name, ext, int, verdict) in [
                ("nobody anywhere", Silent, Silent, silence),
                ("one path of two", Silent, Heard, Verdict::Hold),
                ("all is well", Heard, Heard, Verdict::Stay),
                ("priority 0 everywhere", Resigned, Resigned, Verdict::Promote(Reason::Resigned)),
                ("priority 0 on one path", Resigned, Heard, Verdict::Stay),
                ("priority 0 on one path, silence on the other", Resigned, Silent, {
                    Verdict::Promote(Reason::Resigned)
                }),
                ("a peer of lower priority", Outranked, Outranked, Verdict::Promote(Reason::Preempt)),
                ("a peer that lives on one path only, lower", Outranked, Silent, Verdict::Promote(Reason::Preempt)),
                ("lower on one path, not on the other", Outranked, Heard, Verdict::Stay),
            ] {
                assert_eq!(decide(Mode::Strict, &[ext, int], sync), verdict, "{name}");
                assert_eq!(decide(Mode::Strict, &[int, ext], sync), verdict, "{name}, mirrored");
            }
        }
    }

    #[test]
    fn no_transport_moves_alone_however_many_there_are() {
        let sights = [Heard, Outranked, Resigned, Silent];
        for a in sights {
            for b in sights {
                for c in sights {
                    let verdict = decide(Mode::Pair, &[a, b, c], SyncPath::Silent);
                    let unanimous = [a, b, c].iter().all(|sight| *sight == a);
                    let promoted = matches!(verdict, Verdict::Promote(_));
                    let resigned = [a, b, c].contains(&Resigned);
                    assert_eq!(promoted, resigned || (unanimous && a != Heard), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }
}

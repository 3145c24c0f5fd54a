//! The tables of RFC 9568 §6.4 and RFC 3768 §6.4, row by row.

use lb_userspace::vrrp::{
    Version,
    machine::{Action, Input, Preempt, State},
};

use crate::rig::{AT_ONCE, DOWN, HIGHER, LOWER, NEVER, OURS, Rig, SKEW, advert, advertise, enter, ms};

/// What a machine of priority 100 and 1 s does 400 ms after it came into a state.
struct Row {
    rule: &'static str,
    versions: &'static [Version],
    preempt: Preempt,
    before: State,
    input: Input,
    actions: Vec<Action>,
    after: State,
    /// The timer from the input on.
    timer: Option<u64>,
}

const BOTH: &[Version] = &[Version::V2, Version::V3];
const V2: &[Version] = &[Version::V2];
const V3: &[Version] = &[Version::V3];

/// Skew and down times of priority 100, in microseconds: 156/256 s, and 3 s more.
/// The timer that runs on: set 400 ms before.
const DOWN_LEFT: u64 = DOWN - 400_000;
const ADVERT_LEFT: u64 = 600_000;
const SECOND: u64 = 1_000_000;

#[expect(clippy::too_many_lines, reason = "the RFC's table, one row after the other")]
fn rows() -> Vec<Row> {
    use State::{Active, Backup, Initialize};
    let row = |rule, versions, preempt, before, input, actions, after, timer| Row {
        rule,
        versions,
        preempt,
        before,
        input,
        actions,
        after,
        timer,
    };
    let to_active = || vec![advertise(100), Action::Announce, enter(Active)];
    vec![
        // §6.4.1
        row(
            "Initialize, Startup: wait as Backup",
            BOTH,
            NEVER,
            Initialize,
            Input::Startup,
            vec![enter(Backup)],
            Backup,
            Some(DOWN),
        ),
        row("Initialize hears nothing", BOTH, AT_ONCE, Initialize, advert(0, LOWER, 100), vec![], Initialize, None),
        row("Initialize, Shutdown: nothing", BOTH, NEVER, Initialize, Input::Shutdown, vec![], Initialize, None),
        // §6.4.2
        row(
            "Backup, Shutdown: without a word",
            BOTH,
            NEVER,
            Backup,
            Input::Shutdown,
            vec![enter(Initialize)],
            Initialize,
            None,
        ),
        row("Backup, Startup: it has started", BOTH, NEVER, Backup, Input::Startup, vec![], Backup, Some(DOWN_LEFT)),
        row("Backup, priority 0: skew time", BOTH, NEVER, Backup, advert(0, LOWER, 100), vec![], Backup, Some(SKEW)),
        row(
            "Backup that preempts, priority 0: skew time",
            BOTH,
            AT_ONCE,
            Backup,
            advert(0, HIGHER, 100),
            vec![],
            Backup,
            Some(SKEW),
        ),
        row(
            "Backup, greater priority: wait again",
            BOTH,
            AT_ONCE,
            Backup,
            advert(101, LOWER, 100),
            vec![],
            Backup,
            Some(DOWN),
        ),
        row(
            "Backup, equal priority: wait again, whatever the address",
            BOTH,
            AT_ONCE,
            Backup,
            advert(100, LOWER, 100),
            vec![],
            Backup,
            Some(DOWN),
        ),
        row("Backup, an owner: wait again", BOTH, AT_ONCE, Backup, advert(255, LOWER, 100), vec![], Backup, Some(DOWN)),
        row(
            "Backup without preemption, lower priority: wait again",
            BOTH,
            NEVER,
            Backup,
            advert(99, HIGHER, 100),
            vec![],
            Backup,
            Some(DOWN),
        ),
        row(
            "Backup with preemption, lower priority: the timer runs on",
            BOTH,
            AT_ONCE,
            Backup,
            advert(99, HIGHER, 100),
            vec![],
            Backup,
            Some(DOWN_LEFT),
        ),
        row(
            "Backup with preemption delay, lower priority: wait again",
            BOTH,
            Preempt::After(ms(1)),
            Backup,
            advert(99, HIGHER, 100),
            vec![],
            Backup,
            Some(DOWN),
        ),
        row(
            "Backup of version 3 takes over the Active's interval",
            V3,
            NEVER,
            Backup,
            advert(101, LOWER, 10),
            vec![],
            Backup,
            Some(300_000 + 60_937),
        ),
        row(
            "Backup of version 3 takes over a longer interval, too",
            V3,
            NEVER,
            Backup,
            advert(101, LOWER, 1000),
            vec![],
            Backup,
            Some(30_000_000 + 6_093_750),
        ),
        row(
            "Backup of version 3 that preempts takes nothing over",
            V3,
            AT_ONCE,
            Backup,
            advert(99, LOWER, 10),
            vec![],
            Backup,
            Some(DOWN_LEFT),
        ),
        row(
            "Backup of version 2 keeps its own interval",
            V2,
            NEVER,
            Backup,
            advert(101, LOWER, 200),
            vec![],
            Backup,
            Some(DOWN),
        ),
        row("Backup, the group takes over", BOTH, NEVER, Backup, Input::Promote, to_active(), Active, Some(SECOND)),
        // §6.4.3
        row(
            "Active, Shutdown: priority 0",
            BOTH,
            NEVER,
            Active,
            Input::Shutdown,
            vec![advertise(0), enter(Initialize)],
            Initialize,
            None,
        ),
        row(
            "Active, priority 0: an advert, and the timer anew",
            BOTH,
            NEVER,
            Active,
            advert(0, HIGHER, 100),
            vec![advertise(100)],
            Active,
            Some(SECOND),
        ),
        row(
            "Active, greater priority: yield",
            BOTH,
            AT_ONCE,
            Active,
            advert(101, LOWER, 100),
            vec![enter(Backup)],
            Backup,
            Some(DOWN),
        ),
        row(
            "Active of version 3, greater priority: yield, with the winner's interval",
            V3,
            NEVER,
            Active,
            advert(101, LOWER, 10),
            vec![enter(Backup)],
            Backup,
            Some(300_000 + 60_937),
        ),
        row(
            "Active, equal priority, greater address: yield",
            BOTH,
            NEVER,
            Active,
            advert(100, HIGHER, 100),
            vec![enter(Backup)],
            Backup,
            Some(DOWN),
        ),
        row(
            "Active, equal priority, smaller address: assert",
            BOTH,
            NEVER,
            Active,
            advert(100, LOWER, 100),
            vec![advertise(100)],
            Active,
            Some(ADVERT_LEFT),
        ),
        row(
            "Active, equal priority, our own address: only a greater one wins",
            BOTH,
            NEVER,
            Active,
            advert(100, OURS, 100),
            vec![advertise(100)],
            Active,
            Some(ADVERT_LEFT),
        ),
        row(
            "Active, lower priority: assert, whatever the address",
            BOTH,
            NEVER,
            Active,
            advert(99, HIGHER, 100),
            vec![advertise(100)],
            Active,
            Some(ADVERT_LEFT),
        ),
        row("Active, Startup: it has started", BOTH, NEVER, Active, Input::Startup, vec![], Active, {
            Some(ADVERT_LEFT)
        }),
        row(
            "Active, the group yields: without a word",
            BOTH,
            NEVER,
            Active,
            Input::Yield,
            vec![enter(Backup)],
            Backup,
            Some(DOWN),
        ),
        row(
            "Active, the group resigns: priority 0",
            BOTH,
            NEVER,
            Active,
            Input::Resign,
            vec![advertise(0), enter(Backup)],
            Backup,
            Some(DOWN),
        ),
    ]
}

#[test]
fn every_input_in_every_state_does_what_the_rfc_says() {
    for row in rows() {
        for version in row.versions {
            let mut rig = Rig::in_state(*version, 100, row.preempt, row.before);
            rig.wait(ms(400));
            rig.give(row.input);
            let name = format!("{} ({version:?})", row.rule);
            assert_eq!(rig.actions(), row.actions, "{name}: actions");
            assert_eq!(rig.machine.state(), row.after, "{name}: state");
            assert_eq!(rig.timer().map(|left| left.as_micros() as u64), row.timer, "{name}: timer");
        }
    }
}

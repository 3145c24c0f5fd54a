//! The role on the operator's word.

use super::*;

fn asks() -> [Action; 2] {
    [EXT, INT].map(|transport| Action::SendAdvert { transport, priority: 254 })
}

fn backup_beside(priority: u8, config: Config) -> Rig {
    let mut rig = Rig::backup(config);
    for _ in 0..5 {
        rig.hear(priority, &[EXT, INT]);
        rig.wait(ms(100));
    }
    rig.actions();
    rig
}

#[test]
fn a_director_of_any_priority_asks_first_and_takes_when_the_peer_gives_up() {
    for priority in [1, 101, 253] {
        let mut rig = backup_beside(priority, config());
        rig.give(Input::TakeOver);
        assert_eq!(rig.actions(), asks(), "no VIP before the peer has given up");
        assert_eq!(rig.role(), Role::Backup);
        rig.wait(ms(1));
        rig.hear(0, &[EXT, INT]);
        assert_eq!((rig.role(), rig.election.cause), (Role::Active, Cause::Taken));
    }
}

#[test]
fn a_router_that_yields_without_a_word_is_succeeded_after_an_interval_of_silence() {
    let mut rig = backup_beside(200, Config { mode: Mode::Strict, ..config() });
    rig.give(Input::TakeOver);
    // On its way already.
    rig.wait(ms(1));
    rig.hear(200, &[EXT, INT]);
    rig.wait(ms(123));
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(ms(2));
    assert_eq!((rig.role(), rig.election.cause), (Role::Active, Cause::Taken));
}

#[test]
fn a_peer_that_goes_on_speaking_keeps_the_role() {
    let mut rig = backup_beside(254, config());
    rig.give(Input::TakeOver);
    for _ in 0..10 {
        rig.wait(ms(50));
        rig.hear(254, &[EXT, INT]);
    }
    assert_eq!(rig.role(), Role::Backup);
    assert_eq!(rig.actions(), asks(), "asked once, and nothing else");
}

#[test]
fn who_is_active_or_broken_takes_nothing() {
    let mut rig = Rig::active(config());
    rig.give(Input::TakeOver);
    assert_eq!(rig.actions(), []);
    let mut rig = backup_beside(100, config());
    rig.link(EXT, false);
    rig.actions();
    rig.give(Input::TakeOver);
    rig.wait(ms(200));
    assert_eq!((rig.role(), rig.actions()), (Role::Fault, vec![]));
}

#[test]
fn a_fault_between_question_and_answer_ends_it() {
    let mut rig = backup_beside(100, config());
    rig.give(Input::TakeOver);
    rig.link(INT, false);
    rig.link(INT, true);
    assert_eq!(rig.role(), Role::Backup);
    rig.wait(ms(200));
    assert_eq!(rig.role(), Role::Backup, "the question is forgotten");
}

//! The checks of one backend, scene by scene, in virtual time.

use super::*;
use crate::health::outcome::Phase;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// No jitter, so that times are exact.
fn cadence() -> Cadence {
    Cadence { jitter: 0, ..Cadence::default() }
}

/// A backend of which `answer` says what a check finds and how long that takes.
struct Rig {
    checker: Checker,
    start: Instant,
    now: Instant,
    /// When each check began, from the start.
    began: Vec<Duration>,
    timeouts: Vec<Duration>,
    relogins: usize,
    changes: Vec<(Duration, Health)>,
    learned: Vec<Facts>,
}

impl Rig {
    fn new(cadence: Cadence, known: Option<bool>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for times; no test waits")]
        let start = Instant::now();
        Self {
            checker: Checker::new(cadence, known, 1, start),
            start,
            now: start,
            began: Vec::new(),
            timeouts: Vec::new(),
            relogins: 0,
            changes: Vec::new(),
            learned: Vec::new(),
        }
    }

    fn up() -> Self {
        Self::new(cadence(), Some(true))
    }

    /// Lets `time` pass with a server that answers each check so after so long; a check ends at its limit.
    fn run(&mut self, time: Duration, answer: &Outcome, after: Duration) {
        let end = self.now + time;
        while let Some(due) = self.checker.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.checker.handle_timeout(self.now);
            self.drain(answer, after);
            assert!(self.checker.poll_timeout().is_some_and(|next| next >= self.now));
        }
        self.now = self.now.max(end);
    }

    fn drain(&mut self, answer: &Outcome, after: Duration) {
        while let Some(action) = self.checker.poll_action() {
            match action {
                Action::Check { timeout, relogin } => {
                    self.began.push(self.now - self.start);
                    self.timeouts.push(timeout);
                    self.relogins += usize::from(relogin);
                    let (outcome, latency) = if after > timeout {
                        (Outcome::Fail(Fault::Timeout(Phase::Greeting)), timeout)
                    } else {
                        (answer.clone(), after)
                    };
                    self.now += latency;
                    self.checker.handle(Input::Finished { outcome, latency }, self.now);
                }
                Action::Changed(health) => self.changes.push((self.now - self.start, health)),
                Action::Learned(facts) => self.learned.push(facts),
            }
        }
    }

    fn passes(&mut self, time: Duration) {
        self.run(time, &Outcome::Pass(None), ms(1));
    }

    fn health(&self) -> &Health {
        self.checker.health()
    }
}

fn refused() -> Outcome {
    Outcome::Fail(Fault::Refused)
}

#[test]
fn a_new_backend_is_down_until_the_first_pass_and_then_up_at_once() {
    let mut rig = Rig::new(cadence(), None);
    assert!(!rig.health().up);
    assert_eq!(rig.health().cause, "not checked yet");
    rig.passes(ms(200));
    assert_eq!(rig.began.len(), 1);
    assert!(rig.health().up);
    assert_eq!(rig.changes.len(), 1);
    assert_eq!(rig.health().cause, "the first check passed");
}

#[test]
fn a_new_backend_that_fails_first_needs_all_its_passes() {
    let mut rig = Rig::new(cadence(), None);
    rig.run(ms(200), &refused(), ms(1));
    assert_eq!(rig.health().cause, Fault::Refused.to_string());
    rig.passes(ms(1000));
    assert_eq!((rig.began.len(), rig.health().up), (2, false));
    assert_eq!(rig.checker.progress(), (1, 2));
    // The second one comes fast.
    rig.passes(ms(500));
    assert!(rig.health().up);
}

#[test]
fn an_agent_that_starts_anew_goes_on_with_what_is_known() {
    let mut rig = Rig::new(cadence(), Some(true));
    rig.run(ms(200), &refused(), ms(1));
    assert!(rig.health().up, "one failure of three");
    rig.run(ms(1000), &refused(), ms(1));
    assert!(!rig.health().up);
    let mut rig = Rig::new(cadence(), Some(false));
    rig.passes(ms(200));
    assert!(!rig.health().up, "one pass of two");
}

#[test]
fn it_falls_after_so_many_failures_at_the_fast_pace_and_rises_after_so_many_passes() {
    let mut rig = Rig::up();
    rig.passes(ms(3000));
    let first = rig.began.len();
    rig.run(ms(10_000), &refused(), ms(1));
    let began = &rig.began[first..];
    let pauses: Vec<Duration> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Two fast ones to the verdict, then the pace of a dead backend.
    assert_eq!(pauses[..4], [ms(500), ms(500), ms(1000), ms(1000)]);
    let (when, down) = &rig.changes[0];
    assert!(!down.up);
    assert_eq!(*when - began[0], ms(1001));
    rig.passes(ms(5000));
    assert!(rig.health().up);
    assert_eq!(rig.health().cause, "checks pass again");
    // Fast between the first pass and the second.
    let ups = &rig.began[rig.began.len() - 6..];
    assert_eq!(rig.changes.len(), 2);
    assert!(ups.windows(2).any(|pair| pair[1] - pair[0] == ms(500)), "{ups:?}");
}

#[test]
fn a_single_failure_between_passes_changes_nothing() {
    let mut rig = Rig::up();
    for _ in 0..20 {
        rig.run(ms(1000), &refused(), ms(1));
        rig.passes(ms(1000));
    }
    // Two failures fit into one second, three would be down.
    assert!(rig.changes.is_empty(), "{:?}", rig.changes);
}

/// A wedged server answers nothing at all, so every check takes its whole time.
#[test]
fn a_wedged_backend_is_out_within_the_promised_time() {
    for fall in 1..6 {
        for (inter, fast, timeout) in [(1000, 500, 1000), (1000, 500, 300), (2000, 100, 3000), (500, 500, 500)] {
            let cadence = Cadence { inter: ms(inter), fastinter: ms(fast), timeout: ms(timeout), fall, ..cadence() };
            let mut rig = Rig::new(cadence, Some(true));
            rig.passes(ms(5000));
            let first = rig.began.len();
            rig.run(ms(60_000), &Outcome::Pass(None), ms(1_000_000));
            let took = rig.changes[0].0 - rig.began[first];
            assert!(took <= cadence.detection(), "{cadence:?}: {took:?}");
            assert!(took <= ms(fast) * fall + ms(timeout), "{cadence:?}: {took:?}");
            assert_eq!(rig.timeouts[first], ms(timeout), "the first failure takes the whole time");
            if fall > 1 {
                assert_eq!(rig.timeouts[first + 1], ms(timeout.min(fast)));
            }
        }
    }
}

#[test]
fn too_many_connections_is_full_at_once_and_not_death() {
    let mut rig = Rig::up();
    rig.passes(ms(2000));
    let first = rig.began.len();
    rig.run(ms(5000), &Outcome::Full, ms(1));
    assert!(rig.health().up && rig.health().full);
    assert_eq!(rig.changes.len(), 1);
    assert_eq!(rig.changes[0].0 - rig.began[first], ms(1), "no counting");
    // While it is full, every check asks for a login.
    assert_eq!(rig.relogins, rig.began.len() - first - 1);
    rig.passes(ms(5000));
    assert!(!rig.health().full);
    assert_eq!(rig.changes.len(), 2);
    assert_eq!(rig.health().cause, "has room again");
}

#[test]
fn full_ends_only_after_all_passes() {
    let mut rig = Rig::up();
    rig.run(ms(1000), &Outcome::Full, ms(1));
    // One pass between: there was a free slot for a moment.
    rig.passes(ms(500));
    rig.run(ms(500), &Outcome::Full, ms(1));
    assert!(rig.health().full);
    assert_eq!(rig.changes.len(), 1);
}

#[test]
fn a_full_backend_that_dies_is_down_and_comes_back_empty() {
    let mut rig = Rig::up();
    rig.run(ms(1000), &Outcome::Full, ms(1));
    rig.run(ms(3000), &refused(), ms(1));
    assert_eq!((rig.health().up, rig.health().full), (false, false));
    rig.passes(ms(3000));
    assert_eq!((rig.health().up, rig.health().full), (true, false));
}

#[test]
fn a_backend_that_comes_back_full_is_up_and_full() {
    let mut rig = Rig::new(cadence(), Some(false));
    rig.run(ms(5000), &Outcome::Full, ms(1));
    assert_eq!((rig.health().up, rig.health().full), (true, true));
}

#[test]
fn what_only_hinders_the_check_leaves_the_verdict_alone() {
    for trouble in [
        Outcome::CheckUser("ERROR 1045".into()),
        Outcome::Blocked("ERROR 1129".into()),
        Outcome::Unmade("no free local port".into()),
    ] {
        for known in [true, false] {
            let mut rig = Rig::new(cadence(), Some(known));
            rig.run(ms(30_000), &trouble, ms(1));
            assert_eq!(rig.health().up, known, "{trouble:?}");
            assert_eq!(rig.health().trouble.as_ref().map(Trouble::text), Some(trouble.text().as_str()));
            assert_eq!(rig.changes.len(), 1, "said once");
            rig.passes(ms(5000));
            assert!(rig.health().up && rig.health().trouble.is_none());
        }
        // Failures still count, and what is between them is no pass.
        let mut rig = Rig::up();
        rig.run(ms(0), &refused(), ms(1));
        for _ in 0..3 {
            rig.run(ms(1000), &refused(), ms(1));
            rig.run(ms(1000), &trouble, ms(1));
        }
        assert!(!rig.health().up);
    }
}

#[test]
fn what_the_server_says_about_itself_is_handed_on_once() {
    let mut rig = Rig::up();
    let facts = |wait| Facts { wait_timeout: Some(ms(wait)), ..Facts::default() };
    rig.run(ms(3000), &Outcome::Pass(Some(facts(1000))), ms(1));
    rig.passes(ms(3000));
    rig.run(ms(3000), &Outcome::Pass(Some(facts(2000))), ms(1));
    assert_eq!(rig.learned, [facts(1000), facts(2000)]);
}

#[test]
fn jitter_never_makes_a_check_late_and_keeps_backends_apart() {
    let cadence = Cadence { jitter: 20, ..Cadence::default() };
    let mut starts = Vec::new();
    for seed in 0..50 {
        let mut rig = Rig::new(cadence, Some(true));
        rig.checker = Checker::new(cadence, Some(true), seed, rig.start);
        rig.passes(ms(60_000));
        let pauses: Vec<Duration> = rig.began.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (ms(800)..=ms(1000)).contains(pause)), "{pauses:?}");
        assert_eq!(rig.checker.lateness(), Duration::ZERO);
        starts.push(rig.began.last().copied().unwrap());
    }
    starts.sort();
    starts.dedup();
    assert!(starts.len() > 40, "backends march in step: {starts:?}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_ignored() {
    let mut rig = Rig::up();
    for _ in 0..10 {
        rig.checker.handle(Input::Finished { outcome: refused(), latency: ms(1) }, rig.now);
    }
    assert!(rig.health().up);
    assert!(rig.checker.poll_action().is_none());
}

#[test]
fn after_a_long_sleep_one_check_runs_and_not_all_that_were_missed() {
    let mut rig = Rig::up();
    rig.passes(ms(3000));
    let before = rig.began.len();
    rig.now += ms(3_600_000);
    rig.passes(ms(0));
    assert_eq!(rig.began.len(), before + 1);
    assert!(rig.checker.lateness() >= ms(3_590_000));
}

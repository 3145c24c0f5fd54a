//! The distribution's keepalived in the lab: two of them, which shows that the lab can tell a good switch from a bad
//! one; then one beside our agent, as the operators' pairs are while they migrate.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::checks::{Daemon, Pair};
use lb_tests::lab::{Checksum, Knocks, VrrpOptions, addr, now};
use lb_userspace::control::protocol::Status;

/// For what takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_millis(200);

#[test]
fn two_keepalived_hand_over_in_order_but_a_killed_one_goes_on_answering_arp() {
    let pair = Pair::new([Daemon::Keepalived; 2], VrrpOptions::fast()).unwrap();
    let backends: Vec<_> = pair.lab.servers().iter().map(|server| server.address()).collect();
    pair.lab.directors().iter().for_each(|director| director.start_nft(&backends).unwrap());
    let pair = pair.begun().unwrap();
    pair.answers_alone(0).unwrap();

    let knocks = Knocks::start(pair.lab.client(), addr::SERVICE).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();
    let stopped = now();
    pair.stop(0).unwrap();
    pair.gets(1).unwrap();
    knocks.wait_for_calm(CALM, LIMIT).unwrap();
    println!("SIGTERM: {:?} without an answer\n{}", knocks.stop().unwrap().gap(stopped), pair.told());
    let history = pair.history().unwrap();
    assert_eq!((history.promotions(), history.twice()), (2, Duration::ZERO));

    pair.restart(0).unwrap();
    pair.kill(1).unwrap();
    pair.takes(0).unwrap();
    // It cannot take its addresses off, so both have them from now on, and who asks gets two answers.
    let error = pair.answers_alone(0).unwrap_err().to_string();
    assert!(error.contains("f1]") && error.contains("f2]"), "{error}");
}

/// What a pair with one keepalived goes through.
struct Mixed {
    pair: Pair,
    ours: usize,
    theirs: usize,
}

impl Mixed {
    fn new(vrrp: VrrpOptions, ours: usize) -> Result<Self> {
        let mut daemons = [Daemon::Keepalived; 2];
        daemons[ours] = Daemon::Agent;
        Ok(Self { pair: Pair::new(daemons, vrrp.strict())?, ours, theirs: 1 - ours })
    }

    /// A director says goodbye, and the other one is faster than if it had waited for adverts.
    fn stop_and_move(&self, from: usize) -> Result<()> {
        let stopped = now();
        self.pair.stop(from)?;
        let took = self.pair.gets(1 - from)?.saturating_duration_since(stopped);
        println!("d{}: SIGTERM, the VIPs are on d{} after {took:?}", from + 1, 2 - from);
        // With the fast timers there is too little between the two for a busy machine.
        let vrrp = self.pair.vrrp();
        ensure!(vrrp.version == 3 || took < 3 * vrrp.advert, "it waited for adverts: {took:?}");
        self.pair.answers_alone_soon(1 - from)
    }

    /// Both ways: starts, orderly stops, deaths and lost links.
    fn journey(&self) -> Result<()> {
        let Self { pair, ours, theirs } = self;
        let (ours, theirs) = (*ours, *theirs);
        pair.start(theirs)?;
        pair.gets(theirs).context("keepalived alone")?;
        pair.start(ours)?;
        pair.nothing_moves().context("we come second")?;
        pair.answers_alone(theirs)?;

        self.stop_and_move(theirs)?;
        pair.restart(theirs)?;
        pair.nothing_moves().context("keepalived comes second")?;
        self.stop_and_move(ours)?;
        pair.restart(ours)?;
        pair.nothing_moves().context("we come back")?;

        // Nobody fences a killed keepalived, so that there is nothing to say about ARP until it has come back.
        pair.kill(theirs)?;
        pair.takes(ours).context("keepalived was killed")?;
        pair.restart(theirs)?;
        pair.gets(ours).context("keepalived comes back and takes its addresses off")?;
        pair.nothing_moves()?;
        pair.answers_alone(ours)?;

        pair.kill(ours)?;
        pair.takes(theirs).context("our agent was killed")?;
        // Our addresses stay as well, but the packet path does not answer for a dead agent.
        pair.answers_alone_soon(theirs).context("the killed agent's packet path answers ARP")?;
        pair.restart(ours)?;
        pair.gets(theirs).context("we come back and take our addresses off")?;
        pair.nothing_moves()?;
        pair.answers_alone(theirs)?;

        for (loser, interface) in [(theirs, "ext0"), (ours, "int0")] {
            let cut = pair.lab.cut(pair.director(loser).host(), &[interface])?;
            pair.gets(1 - loser).with_context(|| format!("d{} lost {interface}", loser + 1))?;
            pair.answers_alone_soon(1 - loser)?;
            cut.end()?;
            pair.nothing_moves().with_context(|| format!("{interface} of d{} is back", loser + 1))?;
        }
        pair.never_apart()
    }

    /// The higher priority takes the VIPs back, whoever it is.
    fn preempts(&self) -> Result<()> {
        let pair = &self.pair;
        let high = usize::from(pair.vrrp().priorities[1] > pair.vrrp().priorities[0]);
        pair.start(1 - high)?;
        pair.gets(1 - high)?;
        pair.start(high)?;
        pair.gets(high).context("the higher priority came")?;
        pair.answers_alone_soon(high)?;
        self.stop_and_move(high)?;
        pair.restart(high)?;
        pair.gets(high).context("the higher priority came back")?;
        pair.answers_alone_soon(high)?;
        pair.nothing_moves()?;
        pair.never_apart()
    }

    /// Equal priorities, started together: one wins, and it stays with that one.
    fn equals(&self) -> Result<()> {
        let pair = &self.pair;
        pair.start(self.theirs)?;
        pair.start(self.ours)?;
        lb_tests::lab::wait_for("one Active", LIMIT, || pair.watch.active()).with_context(|| pair.told())?;
        pair.nothing_moves()?;
        let winner = pair.watch.active()?.context("one Active")?;
        pair.answers_alone(winner)?;
        self.stop_and_move(winner)?;
        pair.restart(winner)?;
        pair.nothing_moves()?;
        pair.never_apart()
    }

    /// The agent computes the checksum as RFC 9568 says, and this keepalived does not. We hear it and say what is the
    /// matter; it does not hear us, so that it takes over when it comes, and having the higher priority it keeps the role.
    fn other_checksum(&self) -> Result<()> {
        let pair = &self.pair;
        pair.start(self.theirs)?;
        pair.gets(self.theirs)?;
        pair.start(self.ours)?;
        pair.nothing_moves().context("we come second and hear keepalived")?;
        let status: Status = pair.director(self.ours).ctl(&["status"])?;
        let vrrp = status.vrrp.context("an election")?;
        for transport in &vrrp.transports {
            ensure!(transport.received > 0 && transport.other_checksum > 0, "not counted: {transport:?}");
        }
        let log = pair.director(self.ours).agent_log()?;
        ensure!(log.contains("set `checksum` of [vrrp]"), "no word about the checksum in\n{log}");

        self.stop_and_move(self.theirs)?;
        pair.restart(self.theirs)?;
        pair.gets(self.theirs).context("keepalived is deaf and has the higher priority")?;
        pair.nothing_moves()?;
        pair.answers_alone_soon(self.theirs)?;
        let log = pair.director(self.theirs).keepalived_log()?;
        ensure!(log.contains("Invalid VRRPv3 checksum"), "this keepalived accepts our checksum:\n{log}");
        Ok(())
    }
}

/// Timers are most of it, so all pairs live at the same time.
#[test]
fn our_agent_pairs_with_keepalived_in_every_way() {
    type Story = fn(&Mixed) -> Result<()>;
    let fast = VrrpOptions::fast;
    let stories: [(&str, VrrpOptions, usize, Story); 9] = [
        ("v2 1 s PASS, we are d1", VrrpOptions::classic(), 0, Mixed::journey),
        ("v2 1 s PASS, we are d2", VrrpOptions::classic(), 1, Mixed::journey),
        ("v3 10 cs, pseudo-header, we are d1", fast().checksum(Checksum::PseudoHeader), 0, Mixed::journey),
        ("v3 10 cs, pseudo-header, we are d2", fast().checksum(Checksum::PseudoHeader), 1, Mixed::journey),
        ("v3 10 cs, RFC 9568, we are d2", fast(), 1, Mixed::other_checksum),
        ("preempt, we are higher", VrrpOptions::classic().preempt(), 0, Mixed::preempts),
        ("preempt, we are lower", VrrpOptions::classic().preempt(), 1, Mixed::preempts),
        ("equal priorities, we are d1", VrrpOptions::classic().priorities(100, 100), 0, Mixed::equals),
        ("equal priorities, we are d2", VrrpOptions::classic().priorities(100, 100), 1, Mixed::equals),
    ];
    let failures: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = stories
            .into_iter()
            .map(|(name, vrrp, ours, story)| {
                scope.spawn(move || {
                    let mixed = Mixed::new(vrrp, ours).map_err(|error| format!("{name}: {error:#}"))?;
                    story(&mixed).map_err(|error| {
                        let log = |number: usize| match number == ours {
                            true => mixed.pair.director(number).agent_log(),
                            false => mixed.pair.director(number).keepalived_log(),
                        };
                        let logs = [0, 1].map(|number| log(number).unwrap_or_default());
                        format!("{name}: {error:#}\n{}\nd1:\n{}\nd2:\n{}", mixed.pair.told(), logs[0], logs[1])
                    })
                })
            })
            .collect();
        runs.into_iter().filter_map(|run| run.join().expect("a story panicked").err()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

//! Many MySQL sessions that stay open while directors come and go: half of them idle, some with a query now and then,
//! some with transactions. Every answer is checked, and what the busy ones wrote is counted in the servers at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mysql::prelude::Queryable;
use mysql::{Conn, TxOpts};

use crate::lab::{Client, Lab, addr, now, wait_for};

/// A session is lost if it has no answer for so long: longer than any event, and any of TCP's pauses after it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Sessions that log in at the same time.
const OPENING: usize = 16;
/// The pause of a session with a query now and then.
const TRICKLE: Duration = Duration::from_millis(1500);
const STACK: usize = 512 << 10;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, until it is asked whether it lives.
    Idle,
    /// A query now and then.
    Trickle,
    /// One transaction after the other.
    Busy,
}

impl Kind {
    /// Half of all are idle, three tenths trickle.
    fn of(number: usize) -> Self {
        match number % 10 {
            0..5 => Self::Idle,
            5..8 => Self::Trickle,
            _ => Self::Busy,
        }
    }
}

/// What became of the sessions in a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Sessions that were open before.
    pub sessions: usize,
    /// Those that answered after it.
    pub survived: usize,
    /// Wrong answers.
    pub wrong: usize,
    /// The longest time that a query waited for its answer.
    pub gap: Duration,
    /// The first few causes.
    pub errors: Vec<String>,
}

/// Open sessions. Dropping it closes them.
#[derive(Debug)]
pub struct Fleet {
    client: Client,
    members: Vec<Member>,
    /// Those that were closed on purpose.
    retired: Vec<Member>,
    signal: Arc<Signal>,
    pause: Duration,
    next: u32,
}

#[derive(Debug)]
struct Member {
    kind: Kind,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Its number, and its row if it writes.
    number: u32,
    /// `@@server_id`, once it is open.
    server: Option<u32>,
    /// Every answer: when it was asked for, when it came.
    answers: Vec<(Instant, Instant)>,
    /// Transactions that were committed.
    committed: u64,
    wrong: usize,
    /// Why it is lost.
    lost: Option<String>,
    /// It was told to close, and has.
    closed: bool,
}

/// Wakes sessions that wait.
#[derive(Debug, Default)]
struct Signal {
    word: Mutex<Word>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    /// Everybody is asked whether he lives.
    round: u64,
    /// Sessions of a number below this close.
    close_below: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Opens `count` sessions through the service.
    ///
    /// # Errors
    /// When one cannot log in.
    pub fn open(lab: &Lab, count: usize) -> Result<Self> {
        for server in lab.servers() {
            let database = addr::DATABASE;
            server.sql(&format!(
                "CREATE TABLE IF NOT EXISTS {database}.survival (id INT PRIMARY KEY, n BIGINT, total BIGINT)"
            ))?;
        }
        // So much for all busy sessions together that the machine has time left.
        let busy = (count / 5).max(1);
        let pause = Duration::from_millis((busy as u64 * 2).clamp(20, 1000));
        let mut fleet = Self {
            client: lab.client().clone(),
            members: Vec::new(),
            retired: Vec::new(),
            signal: Arc::default(),
            pause,
            next: 1,
        };
        fleet.grow((0..count).map(Kind::of).collect())?;
        Ok(fleet)
    }

    fn grow(&mut self, kinds: Vec<Kind>) -> Result<()> {
        for some in kinds.chunks(OPENING) {
            let first = self.members.len();
            for kind in some {
                let number = self.next;
                self.next += 1;
                self.members.push(self.member(*kind, number)?);
            }
            let new = &self.members[first..];
            wait_for("sessions that are open", PATIENCE, || {
                for member in new {
                    if let Some(error) = &lock(&member.state).lost {
                        bail!("open a session: {error}");
                    }
                }
                Ok(new.iter().all(|member| lock(&member.state).server.is_some()).then_some(()))
            })?;
        }
        Ok(())
    }

    fn member(&self, kind: Kind, number: u32) -> Result<Member> {
        let state = Arc::new(Mutex::new(State { number, ..State::default() }));
        let worker = Worker {
            kind,
            number,
            client: self.client.clone(),
            state: Arc::clone(&state),
            signal: Arc::clone(&self.signal),
            pause: self.pause,
        };
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || worker.run())?;
        Ok(Member { kind, state, thread: Some(thread) })
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.iter().filter(|member| lock(&member.state).lost.is_none()).count()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the older half of the sessions and opens as many new ones.
    ///
    /// # Errors
    /// When one does not close or open.
    pub fn renew_half(&mut self) -> Result<()> {
        let mut numbers: Vec<u32> = self.members.iter().map(|member| lock(&member.state).number).collect();
        numbers.sort_unstable();
        let Some(limit) = numbers.get(numbers.len() / 2).copied() else { return Ok(()) };
        lock(&self.signal.word).close_below = limit;
        self.signal.changed.notify_all();
        let old = |member: &Member| lock(&member.state).number < limit;
        wait_for("sessions that have closed", PATIENCE, || {
            let done = |member: &Member| {
                let state = lock(&member.state);
                state.closed || state.lost.is_some()
            };
            Ok(self.members.iter().filter(|member| old(member)).all(done).then_some(()))
        })?;
        let (retired, members): (Vec<_>, Vec<_>) = std::mem::take(&mut self.members).into_iter().partition(old);
        self.members = members;
        let kinds = retired.iter().map(|member| member.kind).collect();
        self.retired.extend(retired);
        self.grow(kinds)
    }

    /// Sessions that are open at this moment, to be counted after an event.
    #[must_use]
    pub fn roll(&self) -> Vec<u32> {
        let open = self.members.iter().filter(|member| lock(&member.state).lost.is_none());
        open.map(|member| lock(&member.state).number).collect()
    }

    /// Sessions that are open or lost, and were not closed on purpose.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.members.iter().map(|member| lock(&member.state).number).collect()
    }

    /// Asks every session whether it lives and waits for all answers; then tells what became of those on the `roll`
    /// since `event`. Sessions that were closed on purpose do not count.
    ///
    /// # Errors
    /// Only when sessions neither answer nor fail.
    pub fn census(&self, roll: &[u32], event: Instant) -> Result<Census> {
        let asked = now();
        lock(&self.signal.word).round += 1;
        self.signal.changed.notify_all();
        wait_for("the answers of all sessions", PATIENCE + Duration::from_secs(30), || {
            let answered = |member: &Member| {
                let state = lock(&member.state);
                state.lost.is_some() || state.answers.last().is_some_and(|(sent, _)| *sent >= asked)
            };
            Ok(self.members.iter().all(answered).then_some(()))
        })?;
        let mut census = Census { sessions: 0, survived: 0, wrong: 0, gap: Duration::ZERO, errors: Vec::new() };
        for member in &self.members {
            let mut state = lock(&member.state);
            census.wrong += std::mem::take(&mut state.wrong);
            if !roll.contains(&state.number) {
                continue;
            }
            census.sessions += 1;
            match &state.lost {
                None => census.survived += 1,
                Some(error) if census.errors.len() < 5 => {
                    census.errors.push(format!("{:?} session {}: {error}", member.kind, state.number));
                }
                Some(_) => {}
            }
            // What began after the question waited for a thousand others, not for a director.
            let waits = state.answers.iter().filter(|(sent, came)| *came >= event && *sent < asked);
            let longest = waits.map(|(sent, came)| came.saturating_duration_since(*sent)).max();
            census.gap = census.gap.max(longest.unwrap_or_default());
        }
        Ok(census)
    }

    /// Holds what the servers have against what the busy sessions were told is committed, and closes all sessions.
    ///
    /// # Errors
    /// What differs.
    pub fn settle(mut self, lab: &Lab) -> Result<()> {
        self.close()?;
        let mut rows: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
        for server in lab.servers() {
            for row in server.sql(&format!("SELECT id, n, total FROM {}.survival", addr::DATABASE))? {
                let [id, n, total] = row.try_into().map_err(|row| anyhow!("unexpected row {row:?}"))?;
                rows.insert((server.id(), id.parse()?), (n.parse()?, total.parse()?));
            }
        }
        let all = self.members.iter().chain(&self.retired);
        for member in all.filter(|member| member.kind == Kind::Busy) {
            let state = lock(&member.state);
            let server = state.server.context("a session without a server")?;
            let (n, total) = rows.get(&(server, state.number)).copied().context("a session without a row")?;
            // The word that a commit was done may be lost with its session.
            let slack = u64::from(state.lost.is_some());
            ensure!(
                (state.committed..=state.committed + slack).contains(&n) && total == n * (n + 1) / 2,
                "session {} was told of {} commits, its server has {n} with the sum {total}",
                state.number,
                state.committed
            );
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        lock(&self.signal.word).close_below = u32::MAX;
        self.signal.changed.notify_all();
        let all = self.members.iter_mut().chain(&mut self.retired);
        let mut threads = all.filter_map(|member| member.thread.take());
        threads.try_for_each(|thread| thread.join().map_err(|_| anyhow!("the thread of a session panicked")))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// The thread of one session.
struct Worker {
    kind: Kind,
    number: u32,
    client: Client,
    state: Arc<Mutex<State>>,
    signal: Arc<Signal>,
    pause: Duration,
}

impl Worker {
    fn run(self) {
        if let Err(error) = self.live() {
            lock(&self.state).lost = Some(format!("{error:#}"));
        }
    }

    fn live(&self) -> Result<()> {
        let mut session = self.client.connect_patiently(addr::SERVICE, PATIENCE)?;
        let number = self.number;
        session.query_drop(format!("SET @mine = {number}"))?;
        if self.kind == Kind::Busy {
            session.query_drop(format!("INSERT INTO survival VALUES ({number}, 0, 0)"))?;
        }
        let known: Option<(u32, u64)> = session.query_first("SELECT @@server_id, CONNECTION_ID()")?;
        let (server, connection) = known.context("no answer")?;
        lock(&self.state).server = Some(server);
        let mut round = lock(&self.signal.word).round;
        while self.wait(&mut round) {
            let sent = now();
            let right = match self.kind {
                Kind::Busy => self.transact(&mut session)?,
                Kind::Idle | Kind::Trickle => {
                    let answer: Option<(u64, u64, u32)> =
                        session.query_first("SELECT @mine, CONNECTION_ID(), @@server_id")?;
                    answer == Some((number.into(), connection, server))
                }
            };
            let mut state = lock(&self.state);
            state.answers.push((sent, now()));
            state.wrong += usize::from(!right);
        }
        lock(&self.state).closed = true;
        Ok(())
    }

    /// Waits until there is something to do; `false`: the session is to close.
    fn wait(&self, round: &mut u64) -> bool {
        let pause = match self.kind {
            Kind::Idle => PATIENCE * 100,
            // Not all at once.
            Kind::Trickle => TRICKLE + Duration::from_millis(u64::from(self.number % 97) * 10),
            Kind::Busy => self.pause,
        };
        let word = lock(&self.signal.word);
        let nothing = |word: &mut Word| word.round == *round && self.number >= word.close_below;
        let waited = self.signal.changed.wait_timeout_while(word, pause, nothing);
        let word = *waited.unwrap_or_else(PoisonError::into_inner).0;
        *round = word.round;
        self.number >= word.close_below
    }

    /// Reads, adds and reads again within a transaction, then once more after it.
    fn transact(&self, session: &mut Conn) -> Result<bool> {
        let (number, done) = (self.number, lock(&self.state).committed);
        let read = format!("SELECT n, total FROM survival WHERE id = {number}");
        let sum = |n: u64| n * (n + 1) / 2;
        let mut transaction = session.start_transaction(TxOpts::default())?;
        let before: Option<(u64, u64)> = transaction.query_first(format!("{read} FOR UPDATE"))?;
        transaction.query_drop(format!("UPDATE survival SET n = n + 1, total = total + n WHERE id = {number}"))?;
        let within: Option<(u64, u64)> = transaction.query_first(&read)?;
        transaction.commit()?;
        lock(&self.state).committed = done + 1;
        // MariaDB assigns from left to right: `total` grows by the new `n`.
        Ok((before, within) == (Some((done, sum(done))), Some((done + 1, sum(done + 1)))))
    }
}

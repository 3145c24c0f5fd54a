//! One check after the other of one backend, on a connection that is kept.
//!
//! A connection in the middle of a login is never thrown away lightly: the next check goes on with it. A server that
//! hangs, or asks a slow name server about us, then finds a client that answers when it wakes, and nothing to count
//! against this host.

use std::{net::SocketAddrV4, path::Path, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::{live::Live, tcp, tls::Tlsing};
use crate::health::{
    mysql::{Command, Login, Reply, rows::Rows},
    outcome::{Fault, Outcome, Phase},
    plan::{Facts, Level, Plan},
    secret::Secret,
};

/// A login that has not come to its end after this is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a login may take to its end when the checks stop.
const GOODBYE: Duration = Duration::from_secs(1);
/// Who logs in when there is no check user: the answer "access denied" completes the protocol, too.
const NOBODY: &str = "lb_check";
const FACTS: &str = "SELECT @@global.wait_timeout, @@global.interactive_timeout, @@global.max_connections";

/// The checks of one backend.
pub struct Probe {
    address: SocketAddrV4,
    plan: Arc<Plan>,
    /// None: not read yet, or to be read again.
    secret: Option<Option<Arc<Secret>>>,
    tls: Option<Tlsing>,
    /// Logged in.
    kept: Option<Live>,
    /// Being logged in.
    coming: Option<Live>,
    phase: Phase,
}

impl Probe {
    /// Checks of the server at `address`.
    #[must_use]
    pub fn new(address: SocketAddrV4, plan: Arc<Plan>) -> Self {
        Self { address, plan, secret: None, tls: None, kept: None, coming: None, phase: Phase::Connect }
    }

    /// Runs one check within `limit`. `relogin`: whether the server still takes connections is the question.
    pub async fn check(&mut self, limit: Duration, relogin: bool) -> Outcome {
        self.phase = Phase::Connect;
        let outcome = match timeout(limit, self.attempt(relogin)).await {
            Ok(outcome) => outcome,
            Err(_) => self.too_late(),
        };
        if matches!(outcome, Outcome::CheckUser(_)) {
            // The file may hold another password by now.
            self.secret = None;
        }
        outcome
    }

    /// Ends the connections as the protocol wants it.
    pub async fn quit(&mut self) {
        if let Some(live) = self.kept.take() {
            live.quit().await;
        }
        if let (Some(mut live), Some(tls)) = (self.coming.take(), &self.tls) {
            match timeout(GOODBYE, live.log_in(tls)).await {
                Ok(_) => live.quit().await,
                Err(_) => live.reset(),
            }
        }
    }

    async fn attempt(&mut self, relogin: bool) -> Outcome {
        if self.plan.level == Level::Tcp {
            return match tcp::knock(self.address).await {
                Ok(seen) => {
                    seen.into_iter().for_each(|stream| self.take_leave(stream));
                    Outcome::Pass(None)
                }
                Err(outcome) => outcome,
            };
        }
        match self.look(relogin).await {
            Ok(facts) => Outcome::Pass(facts),
            Err(outcome) => outcome,
        }
    }

    /// Ends a connection that the server knows of, though nobody meant to log in: by a login, and goodbye.
    fn take_leave(&mut self, stream: TcpStream) {
        // Without the password it is a denied login, which does not count against this host either.
        let ready = self.ready_to_log_in().is_ok();
        let (secret, Some(tls)) = (self.secret.clone().flatten(), self.tls.clone()) else {
            tcp::reset(stream);
            return;
        };
        let user = self.plan.user.clone().filter(|_| ready).unwrap_or_else(|| NOBODY.to_owned());
        let mut live = Live::new(stream, Login { user, secret, tls: self.plan.tls });
        tokio::spawn(async move {
            match timeout(PATIENCE, live.log_in(&tls)).await {
                Ok(_) => live.quit().await,
                Err(_) => live.reset(),
            }
        });
    }

    async fn look(&mut self, relogin: bool) -> Result<Option<Facts>, Outcome> {
        let due = self.kept.as_ref().is_none_or(|kept| relogin || kept.age() >= self.plan.relogin);
        let mut facts = None;
        if due {
            facts = self.log_in().await?;
        }
        if self.plan.level == Level::Greeting {
            if let Some(live) = self.kept.take() {
                tokio::spawn(live.quit());
            }
            return Ok(facts);
        }
        let answered = self.question().await;
        if let Err(Outcome::Fail(_)) = &answered
            && let Some(live) = self.kept.take_if(|live| !live.is_ready())
        {
            live.reset();
        }
        answered.map(|()| facts)
    }

    /// Makes a new connection, or goes on with the one that is being made; then the old one may go.
    async fn log_in(&mut self) -> Result<Option<Facts>, Outcome> {
        if let Some(old) = self.coming.take_if(|live| live.age() > PATIENCE) {
            old.reset();
        }
        self.ready_to_log_in()?;
        // Both were just made sure of.
        let (Some(secret), Some(tls)) = (self.secret.clone(), self.tls.clone()) else {
            return Err(Outcome::Unmade("no TLS".into()));
        };
        if self.coming.is_none() {
            let user = self.plan.user.clone().unwrap_or_else(|| NOBODY.to_owned());
            let login = Login { user, secret, tls: self.plan.tls };
            let stream = tcp::connect(self.address).await?;
            self.coming = Some(Live::new(stream, login));
        }
        let Some(coming) = &mut self.coming else { return Ok(None) };
        let logged_in = coming.log_in(&tls).await;
        if let Err(outcome) = logged_in {
            return self.not_let_in(outcome);
        }
        let facts = if self.plan.level >= Level::Auth { Some(facts(coming, &tls).await?) } else { None };
        if let Some(old) = std::mem::replace(&mut self.kept, self.coming.take()) {
            tokio::spawn(old.quit());
        }
        Ok(facts)
    }

    /// The server has answered a login, but not with OK.
    fn not_let_in(&mut self, outcome: Outcome) -> Result<Option<Facts>, Outcome> {
        if let Some(live) = self.coming.take() {
            // It has closed its end, or is about to.
            tokio::spawn(live.quit());
        }
        match outcome {
            Outcome::CheckUser(_) if self.plan.level == Level::Greeting => Ok(None),
            other => Err(other),
        }
    }

    fn ready_to_log_in(&mut self) -> Result<(), Outcome> {
        if self.tls.is_none() {
            self.tls = Some(Tlsing::new(&self.plan).map_err(Outcome::CheckUser)?);
        }
        if self.secret.is_none() {
            self.secret = Some(self.plan.password_file.as_deref().map(password).transpose()?);
        }
        Ok(())
    }

    async fn question(&mut self) -> Result<(), Outcome> {
        let (Some(live), Some(tls)) = (&mut self.kept, &self.tls) else {
            return Err(Outcome::Fail(Fault::Closed(Phase::Ping)));
        };
        if self.plan.level < Level::Query {
            self.phase = Phase::Ping;
            return live.ask(&Command::Ping, tls).await.map(drop);
        }
        self.phase = Phase::Query;
        for question in self.plan.condition.questions(live.session().flavour()) {
            let rows = query(live, &question.sql, tls).await?;
            question.judge(&rows).map_err(|what| Outcome::Fail(Fault::Condition(what)))?;
        }
        Ok(())
    }

    /// Time is over. What the next check can go on with stays.
    fn too_late(&mut self) -> Outcome {
        let phase = match &self.coming {
            Some(live) => live.session().phase(),
            None => self.phase,
        };
        if let Some(live) = self.coming.take_if(|live| !live.is_logging_in()) {
            live.reset();
        }
        if let Some(live) = self.kept.take_if(|live| !live.is_ready()) {
            live.reset();
        }
        Outcome::Fail(Fault::Timeout(phase))
    }
}

fn password(path: &Path) -> Result<Arc<Secret>, Outcome> {
    Secret::read(path)
        .map(Arc::new)
        .map_err(|error| Outcome::CheckUser(format!("the check's password file {}: {error}", path.display())))
}

async fn query(live: &mut Live, sql: &str, tls: &Tlsing) -> Result<Rows, Outcome> {
    match live.ask(&Command::Query(sql.to_owned()), tls).await? {
        Reply::Rows(rows) => Ok(rows),
        Reply::LoggedIn | Reply::Pong => {
            Err(Outcome::Fail(Fault::Garbage { phase: Phase::Query, what: "another answer than was asked for" }))
        }
    }
}

/// What the server says about itself. A server that does not say is none the worse.
async fn facts(live: &mut Live, tls: &Tlsing) -> Result<Facts, Outcome> {
    let version = live.session().version().to_owned();
    let rows = match query(live, FACTS, tls).await {
        Ok(rows) => rows,
        Err(_) if live.is_ready() => Rows::default(),
        Err(outcome) => return Err(outcome),
    };
    let number = |at: usize| {
        let value = rows.rows.first()?.get(at)?.as_deref()?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    let idle = number(0).max(number(1));
    Ok(Facts {
        version,
        wait_timeout: idle.map(Duration::from_secs),
        max_connections: number(2).and_then(|count| u32::try_from(count).ok()),
    })
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("address", &self.address).finish_non_exhaustive()
    }
}

//! Answers the control socket.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use lb_common::{abi, backend::BackendState, counter::Counter};
use tokio::task::block_in_place;

use super::{
    overrides::Change,
    pair::{Moved, Pair},
    state::State,
    sync::ConnSync,
    views::{self, ConnViews},
};
use crate::{
    control::{
        protocol::{
            ApiError, BackendAction, BackendAnswer, BackendCommand, ConnFilter, DiffView, ErrorCode, FailoverAnswer,
            FailoverStep, LeftView, ServiceView, StatsView, Status, SyncView, TableView, VERSION,
        },
        server::{ConnSink, Handler, Reply},
    },
    datapath::{Datapath, Scan, Summary, Sweep, versioned},
    ha::Role,
    health::pool::State as MemberState,
};

/// How long the peer is Active in a drill.
const DRILL_PAUSE: Duration = Duration::from_secs(2);
/// Entries up to which a count of conns is made anew for every question.
const COUNT_AT_ONCE: u64 = 200_000;

impl Handler for State {
    fn status(&self) -> Reply<'_, Status> {
        blocking(|| self.status_now())
    }

    fn services(&self) -> Reply<'_, Vec<ServiceView>> {
        blocking(|| self.services_now())
    }

    fn conns(&self, filter: &ConnFilter, sink: &mut ConnSink) -> Result<(), ApiError> {
        if let Some(name) = &filter.service
            && !self.config().services.iter().any(|service| service.name == *name)
        {
            let names: Vec<&str> = self.config().services.iter().map(|service| service.name.as_str()).collect();
            let message = format!("no service is called '{name}'; there are: {}", names.join(", "));
            return Err(ApiError::new(ErrorCode::UnknownService, message));
        }
        self.walk_conns(sink).map_err(ApiError::internal)
    }

    fn stats(&self) -> Reply<'_, Vec<StatsView>> {
        blocking(|| views::stats(self.config(), &self.ids(), self.datapath().tables()))
    }

    fn counters(&self) -> Reply<'_, Vec<(Counter, u64)>> {
        blocking(|| Ok(self.datapath().tables().counters()?))
    }

    fn backend(&self, command: BackendCommand) -> Reply<'_, BackendAnswer> {
        Box::pin(std::future::ready(block_in_place(|| {
            let services = self.services_now().map_err(ApiError::internal)?;
            let (service, backend) = command.find(&services)?;
            let edit = |change: Change| match command.action {
                BackendAction::Drain { .. } => Change { drain: true, ..change },
                BackendAction::Undrain => Change { drain: false, ..change },
                BackendAction::Disable => Change { disabled: true, ..change },
                BackendAction::Enable => Change { disabled: false, drain: false, ..change },
                BackendAction::Weight { weight } => Change { weight: Some(weight), ..change },
                BackendAction::Kill => change,
            };
            let done = match command.action {
                BackendAction::Kill => self.kill(&service.name, backend.address),
                BackendAction::Drain { deadline_seconds } => {
                    let deadline = deadline_seconds.map(Duration::from_secs);
                    self.change(&service.name, backend.address, deadline, edit)
                }
                _ => self.change(&service.name, backend.address, None, edit),
            };
            done.map_err(ApiError::internal)?;
            let services = self.services_now().map_err(ApiError::internal)?;
            let (service, backend) = command.find(&services)?;
            Ok(BackendAnswer { service: service.name.clone(), backend: backend.clone() })
        })))
    }

    fn peer(&self) -> Reply<'_, SyncView> {
        Box::pin(async move { Ok(self.sync()?.asked(self.config(), self.is_in_fault()).await) })
    }

    fn diff(&self, limit: u64) -> Reply<'_, Vec<DiffView>> {
        Box::pin(async move { block_in_place(|| Ok(self.sync()?.differences(limit))) })
    }

    fn failover(&self, drill: bool, force: bool) -> Reply<'_, FailoverAnswer> {
        Box::pin(async move {
            let Some(pair) = self.pair() else {
                let message = "this director is alone: there is no [vrrp] in its config";
                return Err(ApiError::new(ErrorCode::WrongRole, message));
            };
            let conns = || block_in_place(|| self.counted()).map(|summary| summary.conns).map_err(ApiError::internal);
            let step = |role: Role, Moved { peer, gap }, before| {
                let gap_us = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
                Ok(FailoverStep { role: role.name().to_owned(), peer, gap_us, conns: [before, conns()?] })
            };
            let before = conns()?;
            let mut steps = vec![step(Role::Backup, pair.give_away(force).await?, before)?];
            if drill {
                tokio::time::sleep(DRILL_PAUSE).await;
                let before = conns()?;
                steps.push(step(Role::Active, pair.take_back().await?, before)?);
            }
            Ok(FailoverAnswer { steps })
        })
    }
}

/// Runs system calls, of which a walk over the conn tables makes many, without holding up other tasks.
fn blocking<'a, T: Send + 'a>(work: impl FnOnce() -> anyhow::Result<T>) -> Reply<'a, T> {
    Box::pin(std::future::ready(block_in_place(work).map_err(ApiError::internal)))
}

impl State {
    fn sync(&self) -> Result<&ConnSync, ApiError> {
        let message = "there is no [sync] in the config: open sessions end with the director that carries them";
        self.pair().and_then(Pair::sync).ok_or_else(|| ApiError::new(ErrorCode::NoSync, message))
    }

    fn is_in_fault(&self) -> bool {
        self.pair().is_some_and(|pair| pair.role_name() == Role::Fault.name())
    }

    fn status_now(&self) -> anyhow::Result<Status> {
        let config = self.config();
        let tables = self.datapath().tables();
        let backends = tables.backends.all()?;
        let ids = self.ids();
        let up = |id: &&u16| backends.get(usize::from(**id)).is_some_and(|b| b.state == BackendState::Up);
        let mut warnings = self.datapath().report().notes.clone();
        warnings.extend(views::fill_warnings(&self.table_views()?));
        warnings.extend(self.health().warnings(config, self.timeouts().established));
        Ok(Status {
            version: VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: abi::ABI_VERSION,
            pid: std::process::id(),
            uptime_seconds: self.uptime_seconds(),
            config_path: self.path().to_owned(),
            pin_dir: versioned(&config.agent.pin_dir),
            interfaces: self.datapath().report().interfaces.iter().map(views::interface).collect(),
            tables: self.table_views()?,
            services: config.services.len() as u64,
            backends: ids.backends.iter().map(Vec::len).sum::<usize>() as u64,
            backends_up: ids.backends.iter().flatten().filter(up).count() as u64,
            events_lost: tables.counter(Counter::EventLost)?,
            warnings,
            checks: self.checks_now(&self.left()?),
            vrrp: self.pair().and_then(|pair| pair.view(config)),
            sync: self.sync().ok().map(|sync| sync.view(config, self.is_in_fault(), None)),
        })
    }

    fn table_views(&self) -> anyhow::Result<Vec<TableView>> {
        let summary = self.counted()?;
        Ok(views::tables(self.datapath().tables(), &summary, &self.ids()))
    }

    fn services_now(&self) -> anyhow::Result<Vec<ServiceView>> {
        let words = |service| {
            self.members(service).iter().map(|member| (member.state.name(), member.agreement.difference())).collect()
        };
        let summary = self.counted()?;
        let (ids, left) = (self.ids(), self.left()?);
        views::services(self.config(), &ids, self.datapath().tables(), &summary, &left, &words)
    }

    /// What is left of backends that are drained or disabled.
    fn left(&self) -> anyhow::Result<BTreeMap<u16, LeftView>> {
        let ids = self.ids();
        let mut leaving = Vec::new();
        for (service, ids) in ids.backends.iter().enumerate() {
            let members = self.members(service);
            let leaves = |state| matches!(state, MemberState::Draining | MemberState::Disabled);
            leaving.extend(ids.iter().zip(members).filter(|(_, member)| leaves(member.state)).map(|(id, _)| *id));
        }
        ConnViews::new(self.config(), self.datapath(), &self.timeouts())?.left(&leaving)
    }

    /// How many conns there are: of this moment, or of the last sweep if counting would take long.
    fn counted(&self) -> anyhow::Result<Arc<Summary>> {
        match self.swept() {
            Some(summary) if 2 * (summary.conns + summary.half_open) > COUNT_AT_ONCE => Ok(summary),
            _ => {
                let mut sweep = Sweep::new(self.datapath(), &self.timeouts())?;
                loop {
                    if let Some(summary) = self.step(&mut sweep)? {
                        return Ok(Arc::new(summary));
                    }
                }
            }
        }
    }

    /// Streams every conn: the half-open ones first, because they may move to the other table meanwhile.
    fn walk_conns(&self, sink: &mut ConnSink) -> anyhow::Result<()> {
        let datapath: &Datapath = self.datapath();
        let views = ConnViews::new(self.config(), datapath, &self.timeouts())?;
        for table in [&datapath.tables().half_open, &datapath.tables().conns] {
            let mut scan = Scan::new();
            while let Some(slice) = scan.next(table)? {
                for (key, conn) in slice {
                    if let Some(view) = views.of(table, key, conn)?
                        && let ControlFlow::Break(()) = sink.push(&view)
                    {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

//! Relations between entries: what each line alone cannot show to be wrong. Values themselves were checked when they
//! were read; what only the running system knows (interfaces, bpffs, routes) is checked by the agent.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddrV4;
use std::ops::Range;

use lb_common::abi::RING_SLOTS;
use lb_common::service::Scheduler;
use toml::Spanned;

use super::check::CheckDraft;
use super::code::Code;
use super::diagnostic::{Sink, counted};
use super::model::MaxConn;
use super::read::{Draft, ServiceDraft};
use super::{check, sync, vrrp};
use crate::health::pool::Tier;

/// A service's region in the ring table has two halves, the one in use and the next; each backend needs a slot in both.
const MAX_PER_SERVICE: u32 = RING_SLOTS / 2;

/// Reports every broken relation of `draft`. Entries that could not be read take no part.
pub(super) fn validate(draft: &Draft, sink: &mut Sink) {
    let services = &draft.services;

    let names = draft.interfaces.iter().filter_map(|interface| interface.name.as_ref());
    for (again, first) in repeated(names) {
        let message = format!("interface `{}` is given twice", again.get_ref());
        sink.report(Code::DuplicateInterface, again.span(), message, "remove one of the two [[interface]]");
        sink.note("first given", first);
    }
    for (again, first) in repeated(services.iter().filter_map(|service| service.name.as_ref())) {
        let message = format!("service name `{}` is given twice", again.get_ref());
        sink.report(Code::DuplicateService, again.span(), message, "give every service a name of its own");
        sink.note("first given", first);
    }
    for (again, first) in repeated(services.iter().filter_map(|service| service.listen.as_ref())) {
        let message = format!("two services listen on {}", again.get_ref());
        let help = "give one of them another address or port, or move its backends to the other service";
        sink.report(Code::DuplicateListen, again.span(), message, help);
        sink.note("first given", first);
    }
    for service in services {
        for (again, first) in repeated(service.backends.iter().filter_map(|backend| backend.address.as_ref())) {
            let message = format!("backend {} is given twice in this service", again.get_ref());
            let help = "remove one of the two; for a larger share raise its `weight`";
            sink.report(Code::DuplicateBackend, again.span(), message, help);
            sink.note("first given", first);
        }
        if let Some(excess) = usize::try_from(MAX_PER_SERVICE).ok().and_then(|most| service.backends.get(most)) {
            let message = format!("more than {MAX_PER_SERVICE} backends in one service");
            let help = "move some of them to a service of their own, with another listen address";
            sink.report(Code::RingFull, excess.header.clone(), message, help);
        }
        weights(service, sink);
        tiers(service, sink);
        if let Some(check) = &service.check {
            check::validate(check, sink);
        }
    }
    let logs_in = |service: &ServiceDraft| service.check.as_ref().is_some_and(CheckDraft::logs_in);
    if let Some(at) = draft.established_auto.clone().filter(|_| !services.iter().any(logs_in)) {
        let message = "`established = \"auto\"` needs checks that log in: nobody asks the servers";
        let help = "add `user` and `password_file` to a [service.check], or give a duration";
        sink.report(Code::CheckConflict, at, message, help);
    }
    loops(services, sink);
    capacities(draft, sink);
    let interfaces: Vec<_> = draft.interfaces.iter().filter_map(|interface| interface.name.as_ref()).collect();
    vrrp::validate(&draft.vrrp, &interfaces, services, sink);
    if let Some(sync) = &draft.sync {
        sync::validate(sync, &draft.vrrp, &draft.timeouts, sink);
    }

    if let Some(at) = &draft.control_socket_at
        && draft.agent.control_socket.starts_with(&draft.agent.pin_dir)
    {
        let help = "pin_dir lies in a bpffs, where no socket can be made; use a path like `/run/lb/agent.sock`";
        sink.report(Code::SocketInPinDir, at.clone(), "the control socket is inside pin_dir", help);
    }
}

/// Every value that was there before, with the place of the first.
fn repeated<'a, T: Eq + Hash + 'a>(
    values: impl Iterator<Item = &'a Spanned<T>>,
) -> impl Iterator<Item = (&'a Spanned<T>, Range<usize>)> {
    let mut seen: HashMap<&T, Range<usize>> = HashMap::new();
    values.filter_map(move |value| match seen.get(value.get_ref()) {
        Some(first) => Some((value, first.clone())),
        None => {
            seen.insert(value.get_ref(), value.span());
            None
        }
    })
}

/// Weights that do something else than they look like.
fn weights(service: &ServiceDraft, sink: &mut Sink) {
    let Some(weights) = service.backends.iter().map(|backend| backend.weight.as_ref()).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let mut serving = weights.iter().filter(|weight| *weight.get_ref() > 0);
    let Some(first) = serving.next() else {
        if !weights.is_empty() {
            let help = "give at least one backend a weight above 0";
            let message = "all backends have weight 0: the service accepts no new conns";
            sink.report(Code::AllDrained, service.header.clone(), message, help);
        }
        return;
    };
    let weighted = match service.scheduler {
        Some(Scheduler::Rr) => Scheduler::Wrr,
        Some(Scheduler::Lc) => Scheduler::Wlc,
        _ => return,
    };
    if let Some(other) = serving.find(|weight| weight.get_ref() != first.get_ref()) {
        let message = "the weights differ, but this scheduler does not look at them";
        let help = format!("use `scheduler = \"{weighted}\"`, or give all backends the same weight");
        sink.report(Code::WeightsUnused, other.span(), message, help);
    }
}

/// Who serves first, and what needs checks to mean something.
fn tiers(service: &ServiceDraft, sink: &mut Sink) {
    if !service.backends.is_empty() && service.backends.iter().all(|backend| backend.tier() != Tier::Primary) {
        let help = "at least one backend must be neither `backup` nor `sorry`";
        sink.report(Code::NoPrimary, service.header.clone(), "the service has no backend that serves first", help);
    }
    let is = |flag: &Option<Spanned<bool>>| flag.as_ref().filter(|flag| *flag.get_ref()).map(Spanned::span);
    for backend in &service.backends {
        if let (Some(sorry), Some(_)) = (is(&backend.sorry), is(&backend.backup)) {
            let help =
                "remove one of the two: `backup` is checked and serves when the others are gone, `sorry` is last";
            sink.report(Code::NoPrimary, sorry, "a backend is `backup` or `sorry`, not both", help);
        }
        let logs_in = service.check.as_ref().is_some_and(CheckDraft::logs_in);
        if let Some(most) = backend.max_conn.as_ref().filter(|most| *most.get_ref() == MaxConn::Auto && !logs_in) {
            let message = "`max_conn = \"auto\"` needs checks that log in: nobody asks the server";
            let help = "add `user` and `password_file` to [service.check], or give a number";
            sink.report(Code::CheckConflict, most.span(), message, help);
        }
        if service.check.is_some() {
            continue;
        }
        let idle = [
            ("backup", is(&backend.backup)),
            ("sorry", is(&backend.sorry)),
            ("slow_start", backend.slow_start.as_ref().filter(|time| !time.get_ref().is_zero()).map(Spanned::span)),
        ];
        for (key, at) in idle {
            if let Some(at) = at {
                let message = format!("`{key}` does nothing without checks: nobody notices when a backend dies");
                sink.report(Code::WithoutEffect, at, message, format!("add [service.check], or remove `{key}`"));
            }
        }
    }
}

/// Backends that are a VIP and port of ours: their packets would come back to us.
fn loops(services: &[ServiceDraft], sink: &mut Sink) {
    let mut listens: HashMap<SocketAddrV4, Range<usize>> = HashMap::new();
    for listen in services.iter().filter_map(|service| service.listen.as_ref()) {
        listens.entry(*listen.get_ref()).or_insert(listen.span());
    }
    for service in services {
        for address in service.backends.iter().filter_map(|backend| backend.address.as_ref()) {
            let Some(listen) = listens.get(address.get_ref()) else { continue };
            let own = service.listen.as_ref().is_some_and(|own| own.get_ref() == address.get_ref());
            let whose = if own { "its own service" } else { "another service" };
            let message = format!("backend {} is the listen address of {whose}", address.get_ref());
            let help = "give the address of the MySQL server itself, not the VIP";
            sink.report(Code::Loop, address.span(), message, help);
            sink.note("listen is set", listen.clone());
        }
    }
}

/// More entries in the file than the tables are planned for.
fn capacities(draft: &Draft, sink: &mut Sink) {
    let mut check = |code, key, most: u32, set_at: &Option<Range<usize>>, headers: Vec<&Range<usize>>| {
        let Some(excess) = usize::try_from(most).ok().and_then(|most| headers.get(most)) else { return };
        let message = format!("the file has {}, the table holds {most}", counted(headers.len(), key));
        let help = format!("set `{key}s = {}` or more in [table]", headers.len());
        sink.report(code, (*excess).clone(), message, help);
        if let Some(set_at) = set_at {
            sink.note("the size is set", set_at.clone());
        }
    };
    let services = draft.services.iter().map(|service| &service.header).collect();
    check(Code::TooManyServices, "service", draft.tables.services, &draft.max_services_at, services);
    let backends = draft.services.iter().flat_map(|service| &service.backends).map(|backend| &backend.header).collect();
    check(Code::TooManyBackends, "backend", draft.tables.backends, &draft.max_backends_at, backends);
}

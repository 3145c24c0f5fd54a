//! From the TOML tree to a [`Draft`]: what each key means, which are required, what the defaults are. A draft has
//! everything that could be read; relations between its entries are `validate`'s.

use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Duration;

use lb_common::service::{OnDown, Refusal, Scheduler};
use toml::Spanned;
use toml::de::DeTable;

use super::address::{parse_ipv4_port, parse_socket_addr};
use super::check::{self, CheckDraft};
use super::code::Code;
use super::diagnostic::Sink;
use super::duration::{parse_delay, parse_duration};
use super::model::{AgentSettings, Backend, Config, Interface, MaxConn, Service};
use super::names::{parse_interface_name, parse_log_filter, parse_pin_dir, parse_service_name, parse_socket_path};
use super::schema;
use super::section::Section;
use super::sync;
use super::vrrp;
use super::words::{parse_mode, parse_on_down, parse_refusal, parse_scheduler};
use crate::datapath::{Mode, TableSizes, Timeouts};
use crate::health::pool::Tier;

/// The only schema version so far.
const SCHEMA_VERSION: u32 = 1;
/// The most entries of the conn and the half-open table.
const MAX_CONNS: u32 = 16_777_216;
/// Fewer half-open conns than this fill up during an ordinary reconnect of a few connection pools.
const MIN_HALF_OPEN: u32 = 1024;
/// The most services: each has a ring in kernel memory.
const MAX_SERVICES: u32 = 4096;
/// The most backends: their ids have 16 bits.
const MAX_BACKENDS: u32 = 65_536;
/// An established timeout below this cuts sessions between two queries.
const SHORT_ESTABLISHED: Duration = Duration::from_secs(30);

/// What could be read, with the places that relations are reported at.
pub(super) struct Draft {
    pub(super) agent: AgentSettings,
    /// Where `control_socket` is set, if it is.
    pub(super) control_socket_at: Option<Range<usize>>,
    pub(super) tables: TableSizes,
    /// Where `services` and `backends` of `[table]` are set.
    pub(super) max_services_at: Option<Range<usize>>,
    pub(super) max_backends_at: Option<Range<usize>>,
    pub(super) timeouts: Timeouts,
    /// Where `established` is "auto", if it is.
    pub(super) established_auto: Option<Range<usize>>,
    pub(super) interfaces: Vec<InterfaceDraft>,
    pub(super) services: Vec<ServiceDraft>,
    pub(super) vrrp: vrrp::Draft,
    pub(super) sync: Option<sync::Draft>,
}

/// An `[[interface]]`; the name is none when it was reported.
pub(super) struct InterfaceDraft {
    pub(super) name: Option<Spanned<String>>,
    mode: Mode,
}

/// A `[[service]]`; what is none was reported.
pub(super) struct ServiceDraft {
    pub(super) header: Range<usize>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<SocketAddrV4>>,
    /// None when the word was not understood, so that nothing is concluded from a default.
    pub(super) scheduler: Option<Scheduler>,
    no_conn: Refusal,
    no_backend: Refusal,
    on_down: OnDown,
    pub(super) check: Option<CheckDraft>,
    pub(super) backends: Vec<BackendDraft>,
}

/// A `[[service.backend]]`; what is none was reported.
pub(super) struct BackendDraft {
    pub(super) header: Range<usize>,
    pub(super) address: Option<Spanned<SocketAddrV4>>,
    /// The default's place is the header.
    pub(super) weight: Option<Spanned<u16>>,
    pub(super) backup: Option<Spanned<bool>>,
    pub(super) sorry: Option<Spanned<bool>>,
    pub(super) slow_start: Option<Spanned<Duration>>,
    drain_deadline: Option<Duration>,
    pub(super) max_conn: Option<Spanned<MaxConn>>,
}

/// Reads a whole document. `end` is the place of what is missing from it.
pub(super) fn read(root: &DeTable<'_>, end: Range<usize>, sink: &mut Sink) -> Option<Draft> {
    let mut root = Section::new(&schema::ROOT, end, root);
    // The rest of a file for another version would only look wrong.
    if !is_our_version(&mut root, sink) {
        return None;
    }
    let mut draft = Draft {
        agent: AgentSettings::default(),
        control_socket_at: None,
        tables: TableSizes::default(),
        max_services_at: None,
        max_backends_at: None,
        timeouts: Timeouts::default(),
        established_auto: None,
        interfaces: Vec::new(),
        services: Vec::new(),
        vrrp: vrrp::Draft::default(),
        sync: None,
    };
    if let Some(section) = root.section("agent", &schema::AGENT, sink) {
        read_agent(section, &mut draft, sink);
    }
    if let Some(section) = root.section("table", &schema::TABLE, sink) {
        read_tables(section, &mut draft, sink);
    }
    if let Some(section) = root.section("timeouts", &schema::TIMEOUTS, sink) {
        (draft.timeouts, draft.established_auto) = read_timeouts(section, sink);
    }
    if let Some(sections) = root.sections("interface", &schema::INTERFACE, sink) {
        if sections.is_empty() {
            let help = "add [[interface]] with a line like `name = \"eth0\"`, one for each side";
            root.missing("interface", Code::MissingSection, root.header(), "the file has no [[interface]]", help);
        }
        draft.interfaces = sections.into_iter().map(|section| read_interface(section, sink)).collect();
    }
    if let Some(sections) = root.sections("service", &schema::SERVICE, sink) {
        if sections.is_empty() {
            let help = "add [[service]] with `name` and `listen`, and a [[service.backend]] with `address` after it";
            root.missing("service", Code::MissingSection, root.header(), "the file has no [[service]]", help);
        }
        draft.services = sections.into_iter().map(|section| read_service(section, sink)).collect();
    }
    draft.vrrp = vrrp::read(&mut root, sink);
    draft.sync = sync::read(&mut root, sink);
    root.finish(sink);
    Some(draft)
}

fn is_our_version(root: &mut Section<'_>, sink: &mut Sink) -> bool {
    let known = SCHEMA_VERSION..=SCHEMA_VERSION;
    if !root.has("schema_version") {
        let help = "put `schema_version = 1` on the first line";
        root.missing("schema_version", Code::NoSchemaVersion, 0..0, "`schema_version` is missing", help);
        return true;
    }
    let Some(version) = root.integer("schema_version", 0..=u32::MAX, Code::BadSchemaVersion, VERSION_HELP, sink) else {
        return true;
    };
    if known.contains(version.get_ref()) {
        return true;
    }
    let message = format!("schema version {} is not supported", version.get_ref());
    sink.report(Code::BadSchemaVersion, version.span(), message, VERSION_HELP);
    false
}

const VERSION_HELP: &str = "this program reads version 1; a newer file needs a newer program";

fn read_agent(mut section: Section<'_>, draft: &mut Draft, sink: &mut Sink) {
    let agent = &mut draft.agent;
    if let Some(path) = section.parsed("pin_dir", parse_pin_dir, sink) {
        agent.pin_dir = path.into_inner();
    }
    if let Some(path) = section.parsed("control_socket", parse_socket_path, sink) {
        draft.control_socket_at = Some(path.span());
        agent.control_socket = path.into_inner();
    }
    if let Some(address) = section.parsed("metrics", parse_socket_addr, sink) {
        agent.metrics = address.into_inner();
    }
    if let Some(filter) = section.parsed("log", parse_log_filter, sink) {
        agent.log = filter.into_inner();
    }
    section.finish(sink);
}

fn read_tables(mut section: Section<'_>, draft: &mut Draft, sink: &mut Sink) {
    let tables = &mut draft.tables;
    let mut size = |name, least, most, help: &str| {
        let help = format!("{help}; `lb-agent check` shows the memory");
        section.integer(name, least..=most, Code::TableRange, &help, sink)
    };
    if let Some(conns) = size("conns", 1, MAX_CONNS, "give the most established conns you plan for") {
        tables.conns = conns.into_inner();
    }
    if let Some(half_open) = size("half_open", MIN_HALF_OPEN, MAX_CONNS, "fewer than 1024 do not survive a reconnect") {
        tables.half_open = half_open.into_inner();
    }
    if let Some(services) = size("services", 1, MAX_SERVICES, "give the most services you plan for") {
        draft.max_services_at = Some(services.span());
        tables.services = services.into_inner();
    }
    if let Some(backends) = size("backends", 1, MAX_BACKENDS, "give the most backends of all services together") {
        draft.max_backends_at = Some(backends.span());
        tables.backends = backends.into_inner();
    }
    section.finish(sink);
}

/// The timeouts, and where `established` is "auto".
fn read_timeouts(mut section: Section<'_>, sink: &mut Sink) -> (Timeouts, Option<Range<usize>>) {
    let Timeouts { syn_recv, established, fin_wait, close_wait, time_wait, close } = Timeouts::default();
    let mut time = |name, default| match section.parsed(name, parse_duration, sink) {
        Some(value) => value,
        None => Spanned::new(0..0, default),
    };
    let syn_recv = time("syn_recv", syn_recv).into_inner();
    let fin_wait = time("fin_wait", fin_wait).into_inner();
    let close_wait = time("close_wait", close_wait).into_inner();
    let time_wait = time("time_wait", time_wait).into_inner();
    let close = time("close", close).into_inner();
    let auto_or_time = |text: &str| if text == "auto" { Ok(None) } else { parse_duration(text).map(Some) };
    let given = section.parsed("established", auto_or_time, sink);
    let auto = given.as_ref().filter(|given| given.get_ref().is_none()).map(Spanned::span);
    let established = match given {
        Some(given) => Spanned::new(given.span(), given.into_inner().unwrap_or(established)),
        None => Spanned::new(0..0, established),
    };
    if *established.get_ref() < SHORT_ESTABLISHED {
        let message = "an established timeout below 30s cuts sessions between two queries";
        let help = "make it longer than MySQL's wait_timeout; its default of 8 hours needs `8h1m`";
        sink.report(Code::ShortEstablished, established.span(), message, help);
    }
    section.finish(sink);
    (Timeouts { syn_recv, established: established.into_inner(), fin_wait, close_wait, time_wait, close }, auto)
}

fn read_interface(mut section: Section<'_>, sink: &mut Sink) -> InterfaceDraft {
    let name = section.required("name", parse_interface_name, sink);
    let mode = section.parsed("mode", parse_mode, sink).map(Spanned::into_inner).unwrap_or_default();
    section.finish(sink);
    InterfaceDraft { name, mode }
}

fn read_service(mut section: Section<'_>, sink: &mut Sink) -> ServiceDraft {
    let header = section.header();
    let name = section.required("name", parse_service_name, sink);
    let listen = section.required("listen", parse_ipv4_port, sink);
    let has_scheduler = section.has("scheduler");
    let scheduler = section.parsed("scheduler", parse_scheduler, sink).map(Spanned::into_inner);
    let no_conn = section.parsed("no_conn", |text| parse_refusal(text, "a no_conn policy"), sink);
    let no_backend = section.parsed("no_backend", |text| parse_refusal(text, "a no_backend policy"), sink);
    let on_down = section.parsed("on_down", parse_on_down, sink);
    let check = section.section("check", &schema::CHECK, sink).map(|section| check::read(section, sink));
    let mut backends = Vec::new();
    if let Some(sections) = section.sections("backend", &schema::BACKEND, sink) {
        if sections.is_empty() {
            let help = "add [[service.backend]] after it, with a line like `address = \"192.168.80.167:3306\"`";
            let message = "[[service]] has no [[service.backend]]";
            section.missing("backend", Code::MissingSection, section.header(), message, help);
        }
        backends = sections.into_iter().map(|section| read_backend(section, sink)).collect();
    }
    section.finish(sink);
    ServiceDraft {
        header,
        name,
        listen,
        scheduler: if has_scheduler { scheduler } else { Some(Scheduler::Rr) },
        no_conn: no_conn.map_or(Refusal::Drop, Spanned::into_inner),
        no_backend: no_backend.map_or(Refusal::Rst, Spanned::into_inner),
        on_down: on_down.map_or(OnDown::Rst, Spanned::into_inner),
        check,
        backends,
    }
}

fn read_backend(mut section: Section<'_>, sink: &mut Sink) -> BackendDraft {
    let header = section.header();
    let address = section.required("address", parse_ipv4_port, sink);
    let weight = if section.has("weight") {
        let help = "give a whole number of 0 to 65535; 0 drains the backend";
        section
            .integer("weight", 0..=u32::from(u16::MAX), Code::WeightRange, help, sink)
            .and_then(|weight| Some(Spanned::new(weight.span(), u16::try_from(weight.into_inner()).ok()?)))
    } else {
        Some(Spanned::new(header.clone(), 1))
    };
    let (backup, sorry) = (section.boolean("backup", sink), section.boolean("sorry", sink));
    let slow_start = section.parsed("slow_start", parse_delay, sink);
    let drain_deadline = section.parsed("drain_deadline", parse_duration, sink).map(Spanned::into_inner);
    let max_conn = section.count_or_auto("max_conn", sink);
    section.finish(sink);
    BackendDraft { header, address, weight, backup, sorry, slow_start, drain_deadline, max_conn }
}

impl Draft {
    /// The configuration, when nothing in it was reported as an error.
    pub(super) fn build(self) -> Option<Config> {
        let Self { agent, tables, timeouts, interfaces, services, vrrp, sync, .. } = self;
        let interfaces = interfaces
            .into_iter()
            .map(|InterfaceDraft { name, mode }| Some(Interface { name: name?.into_inner(), mode }))
            .collect::<Option<_>>()?;
        let services = services.into_iter().map(ServiceDraft::build).collect::<Option<_>>()?;
        let (vrrp, directors) = vrrp.build()?;
        let established_auto = self.established_auto.is_some();
        let sync = match sync {
            Some(draft) => Some(draft.build()?),
            None => None,
        };
        Some(Config { agent, interfaces, tables, timeouts, established_auto, services, vrrp, directors, sync })
    }
}

impl ServiceDraft {
    fn build(self) -> Option<Service> {
        let backend = |draft: BackendDraft| {
            Some(Backend {
                tier: draft.tier(),
                address: draft.address?.into_inner(),
                weight: draft.weight?.into_inner(),
                slow_start: draft.slow_start.map_or(Duration::ZERO, Spanned::into_inner),
                drain_deadline: draft.drain_deadline,
                max_conn: draft.max_conn.map_or(MaxConn::None, Spanned::into_inner),
            })
        };
        let check = match self.check {
            Some(check) => Some(check.build()?),
            None => None,
        };
        Some(Service {
            name: self.name?.into_inner(),
            listen: self.listen?.into_inner(),
            scheduler: self.scheduler?,
            no_conn: self.no_conn,
            no_backend: self.no_backend,
            on_down: self.on_down,
            check,
            backends: self.backends.into_iter().map(backend).collect::<Option<_>>()?,
        })
    }
}

impl BackendDraft {
    pub(super) fn tier(&self) -> Tier {
        let is = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| *flag.get_ref());
        match (is(&self.sorry), is(&self.backup)) {
            (true, _) => Tier::Sorry,
            (false, true) => Tier::Backup,
            (false, false) => Tier::Primary,
        }
    }
}

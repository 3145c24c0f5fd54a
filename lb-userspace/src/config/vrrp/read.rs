//! From the TOML tree to a [`Draft`]: the keys of `[vrrp]` and its companions, with their defaults.

use std::{collections::BTreeMap, net::Ipv4Addr, ops::Range, path::PathBuf, time::Duration};

use toml::Spanned;

use super::super::{
    address::{parse_ipv4, parse_ipv4_prefix},
    code::Code,
    diagnostic::Sink,
    duration::{parse_delay, parse_duration},
    names::{parse_director_name, parse_interface_name, parse_process_name, parse_program},
    schema,
    section::Section,
    words::parse_checksum,
};
use super::{Director, Track, Tracked, Vip, Vrrp, values};
use crate::vrrp::{
    Version,
    interval::Interval,
    machine::Preempt,
    packet::{Auth, ChecksumKind},
};

/// The pause between two looks at what is tracked.
const TRACK_EVERY: Duration = Duration::from_secs(2);
/// A script may fail once; that a process is gone is certain.
const SCRIPT_FALL: u32 = 2;
const PROCESS_FALL: u32 = 1;
const RISE: u32 = 2;

/// What could be read, with the places that relations are reported at.
#[derive(Default)]
pub(in super::super) struct Draft {
    pub(super) vrrp: Option<VrrpDraft>,
    pub(super) vips: Vec<VipDraft>,
    pub(super) tracks: Vec<TrackDraft>,
    pub(super) directors: Vec<DirectorDraft>,
}

/// `[vrrp]`; the version is none when it was reported.
pub(super) struct VrrpDraft {
    pub(super) header: Range<usize>,
    pub(super) version: Option<Version>,
    pub(super) advert: Option<Spanned<Duration>>,
    pub(super) auth: Option<Spanned<Auth>>,
    pub(super) checksum: Option<Spanned<ChecksumKind>>,
    pub(super) preempt: bool,
    pub(super) preempt_delay: Option<Spanned<Duration>>,
    strict: bool,
    pub(super) virtual_mac: bool,
    pub(super) unicast: Option<Spanned<bool>>,
    notify: Option<PathBuf>,
}

/// A `[[vip]]`; what is none was reported.
pub(super) struct VipDraft {
    pub(super) header: Range<usize>,
    pub(super) address: Option<Spanned<(Ipv4Addr, u8)>>,
    pub(super) interface: Option<Spanned<String>>,
    pub(super) vrid: Option<u8>,
}

/// A `[[track]]`.
pub(super) struct TrackDraft {
    pub(super) header: Range<usize>,
    /// One of the two is there, right or wrong.
    pub(super) has_either: bool,
    pub(super) script: Option<Spanned<PathBuf>>,
    pub(super) process: Option<Spanned<String>>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
}

/// A `[director.NAME]`; the priority is none when it was reported.
pub(super) struct DirectorDraft {
    pub(super) header: Range<usize>,
    pub(super) name: String,
    priority: Option<u8>,
    pub(super) addresses: Vec<(Spanned<String>, Spanned<Ipv4Addr>)>,
}

/// Reads the sections of the whole document that are about sharing the VIPs.
pub(in super::super) fn read(root: &mut Section<'_>, sink: &mut Sink) -> Draft {
    let vrrp = root.section("vrrp", &schema::VRRP, sink).map(|section| read_vrrp(section, sink));
    let vips = root.sections("vip", &schema::VIP, sink).unwrap_or_default();
    let vips = vips.into_iter().map(|section| read_vip(section, sink)).collect();
    let tracks = root.sections("track", &schema::TRACK, sink).unwrap_or_default();
    let tracks = tracks.into_iter().map(|section| read_track(section, sink)).collect();
    let directors = root.named("director", &schema::DIRECTOR, parse_director_name, sink).unwrap_or_default();
    let directors = directors.into_iter().map(|(name, section)| read_director(name, section, sink)).collect();
    Draft { vrrp, vips, tracks, directors }
}

fn read_vrrp(mut section: Section<'_>, sink: &mut Sink) -> VrrpDraft {
    let header = section.header();
    let version = if section.has("version") {
        let help = "give 3, or 2 for a peer that speaks only that";
        match section.integer("version", 2..=3, Code::VrrpRange, help, sink).map(Spanned::into_inner) {
            Some(2) => Some(Version::V2),
            Some(_) => Some(Version::V3),
            None => None,
        }
    } else {
        Some(Version::V3)
    };
    let mut flag = |name| section.boolean(name, sink);
    let (preempt, strict) = (flag("preempt"), flag("strict"));
    let (virtual_mac, unicast) = (flag("virtual_mac"), flag("unicast"));
    let is_set = |flag: Option<Spanned<bool>>| flag.is_some_and(Spanned::into_inner);
    let draft = VrrpDraft {
        header,
        version,
        advert: section.parsed("advert", parse_duration, sink),
        auth: section.parsed("auth", values::parse_auth, sink),
        checksum: section.parsed("checksum", parse_checksum, sink),
        preempt: is_set(preempt),
        preempt_delay: section.parsed("preempt_delay", parse_delay, sink),
        strict: is_set(strict),
        virtual_mac: is_set(virtual_mac),
        unicast,
        notify: section.parsed("notify", parse_program, sink).map(Spanned::into_inner),
    };
    section.finish(sink);
    draft
}

fn read_vip(mut section: Section<'_>, sink: &mut Sink) -> VipDraft {
    let header = section.header();
    let address = section.required("address", parse_ipv4_prefix, sink);
    let interface = section.required("interface", parse_interface_name, sink);
    let help = "give a number of 1 to 255 that no other virtual router has on the segment";
    let vrid = number(&mut section, "vrid", (1, 255), help, sink);
    section.finish(sink);
    VipDraft { header, address, interface, vrid }
}

fn read_track(mut section: Section<'_>, sink: &mut Sink) -> TrackDraft {
    let header = section.header();
    let has_either = section.has("script") || section.has("process");
    let script = section.parsed("script", parse_program, sink);
    let process = section.parsed("process", parse_process_name, sink);
    let interval = section.parsed("interval", parse_duration, sink).map(Spanned::into_inner);
    let timeout = section.parsed("timeout", parse_duration, sink).map(Spanned::into_inner);
    let mut count = |name| {
        let help = "give how many looks in a row it takes, 1 to 100";
        section.integer(name, 1..=100, Code::VrrpRange, help, sink).map(Spanned::into_inner)
    };
    let (rise, fall) = (count("rise"), count("fall"));
    section.finish(sink);
    TrackDraft { header, has_either, script, process, interval, timeout, rise, fall }
}

fn read_director(name: Spanned<String>, mut section: Section<'_>, sink: &mut Sink) -> DirectorDraft {
    let header = section.header();
    let help = "give 1 to 254; the director with the higher priority is the better one";
    let priority = number(&mut section, "priority", (1, 254), help, sink);
    let addresses = section.entries("addresses", parse_ipv4, sink);
    section.finish(sink);
    DirectorDraft { header, name: name.into_inner(), priority, addresses }
}

/// A small number that must be there.
fn number(
    section: &mut Section<'_>,
    name: &'static str,
    (least, most): (u8, u8),
    help: &str,
    sink: &mut Sink,
) -> Option<u8> {
    section.must_have(name);
    let range = u32::from(least)..=u32::from(most);
    let number = section.integer(name, range, Code::VrrpRange, help, sink)?;
    u8::try_from(number.into_inner()).ok()
}

impl Draft {
    /// There is a `[vrrp]`.
    pub(in super::super) const fn is_there(&self) -> bool {
        self.vrrp.is_some()
    }

    /// The directors that have no address on an interface: name and place.
    pub(in super::super) fn without_address_on(&self, interface: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
        let lacks =
            move |director: &&DirectorDraft| !director.addresses.iter().any(|(name, _)| name.get_ref() == interface);
        self.directors.iter().filter(lacks).map(|director| (director.name.as_str(), director.header.clone()))
    }

    /// What it says, when nothing in it was reported as an error.
    pub(in super::super) fn build(self) -> Option<(Option<Vrrp>, Vec<Director>)> {
        let Self { vrrp, vips, tracks, directors } = self;
        let directors = directors.into_iter().map(DirectorDraft::build).collect::<Option<_>>()?;
        let Some(draft) = vrrp else { return Some((None, directors)) };
        let vips = vips.into_iter().map(VipDraft::build).collect::<Option<_>>()?;
        let tracks = tracks.into_iter().map(TrackDraft::build).collect::<Option<_>>()?;
        Some((Some(draft.build(vips, tracks)?), directors))
    }
}

impl VrrpDraft {
    fn build(self, vips: Vec<Vip>, tracks: Vec<Track>) -> Option<Vrrp> {
        let version = self.version?;
        let advert = match (self.advert, version) {
            (Some(advert), _) => values::interval(version, advert.into_inner()).ok()?,
            (None, Version::V2) => Interval::SECOND,
            (None, Version::V3) => Interval::new(Version::V3, 10)?,
        };
        let delay = self.preempt_delay.map(Spanned::into_inner).unwrap_or_default();
        Some(Vrrp {
            version,
            advert,
            auth: self.auth.map_or(Auth::None, Spanned::into_inner),
            checksum: self.checksum.map_or(ChecksumKind::Message, Spanned::into_inner),
            preempt: if self.preempt { Preempt::After(delay) } else { Preempt::Never },
            strict: self.strict,
            virtual_mac: self.virtual_mac,
            unicast: self.unicast.is_some_and(Spanned::into_inner),
            notify: self.notify,
            vips,
            tracks,
        })
    }
}

impl VipDraft {
    fn build(self) -> Option<Vip> {
        let (address, prefix) = self.address?.into_inner();
        Some(Vip { address, prefix, interface: self.interface?.into_inner(), vrid: self.vrid? })
    }
}

impl TrackDraft {
    fn build(self) -> Option<Track> {
        let interval = self.interval.unwrap_or(TRACK_EVERY);
        let (what, fall) = match (self.script, self.process) {
            (Some(script), None) => (Tracked::Script(script.into_inner()), SCRIPT_FALL),
            (None, Some(process)) => (Tracked::Process(process.into_inner()), PROCESS_FALL),
            _ => return None,
        };
        let timeout = self.timeout.unwrap_or(interval);
        Some(Track { what, interval, timeout, rise: self.rise.unwrap_or(RISE), fall: self.fall.unwrap_or(fall) })
    }
}

impl DirectorDraft {
    fn build(self) -> Option<Director> {
        let addresses: BTreeMap<_, _> =
            self.addresses.into_iter().map(|(name, address)| (name.into_inner(), address.into_inner())).collect();
        Some(Director { name: self.name, priority: self.priority?, addresses })
    }
}

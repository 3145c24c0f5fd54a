//! Reads `[sync]` and checks its relations.

use std::{net::Ipv4Addr, net::SocketAddrV4, ops::Range, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{
    super::{
        address::parse_group,
        code::Code,
        diagnostic::Sink,
        duration::{format_duration, parse_delay, parse_duration},
        names::{parse_interface_name, parse_key_file},
        problem::Problem,
        schema,
        section::Section,
        vrrp,
    },
    SYNC_PORT, Sync, SyncPeer,
};
use crate::{datapath::Timeouts, printable::quote};

/// The group, unless another one is given.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 80, 81), SYNC_PORT);
const HEARTBEAT: Duration = Duration::from_millis(50);
const LOST_AFTER: u32 = 3;
/// A million conns take some seconds; whoever needs longer has other trouble.
const WAIT: Duration = Duration::from_secs(30);
/// A look through a table of a million conns takes a second of CPU.
const REFRESH: Duration = Duration::from_secs(30);
/// Below this, ordinary scheduling looks like a loss.
const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
const REFRESH_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Looks at the table within the life of an idle conn: some of what they find may be lost.
const LOOKS: u32 = 3;

/// What could be read; what is none was reported, or is not there.
pub(in crate::config) struct Draft {
    header: Range<usize>,
    interface: Option<Spanned<String>>,
    group: Option<Spanned<SocketAddrV4>>,
    unicast: Option<Spanned<()>>,
    /// One of the two is there, right or wrong.
    has_key_or_insecure: bool,
    key_file: Option<Spanned<PathBuf>>,
    insecure: Option<Spanned<bool>>,
    heartbeat: Option<Spanned<Duration>>,
    lost_after: Option<u32>,
    wait: Option<Duration>,
    refresh: Option<Spanned<Duration>>,
}

/// Reads the section of the whole document.
pub(in crate::config) fn read(root: &mut Section<'_>, sink: &mut Sink) -> Option<Draft> {
    let mut section = root.section("sync", &schema::SYNC, sink)?;
    let header = section.header();
    let interface = section.required("interface", parse_interface_name, sink);
    let group = section.parsed("group", parse_group, sink);
    let unicast = section.parsed("peer", parse_peer, sink);
    let has_key_or_insecure = section.has("key_file") || section.has("insecure");
    let key_file = section.parsed("key_file", parse_key_file, sink);
    let insecure = section.boolean("insecure", sink);
    let heartbeat = section.parsed("heartbeat", parse_duration, sink);
    let help = "give how many heartbeats in a row may be missing, 2 to 100";
    let lost_after = section.integer("heartbeat_lost_after", 2..=100, Code::SyncRange, help, sink);
    let wait = section.parsed("wait", parse_delay, sink).map(Spanned::into_inner);
    let refresh = section.parsed("refresh", parse_duration, sink);
    section.finish(sink);
    let lost_after = lost_after.map(Spanned::into_inner);
    Some(Draft {
        header,
        interface,
        group,
        unicast,
        has_key_or_insecure,
        key_file,
        insecure,
        heartbeat,
        lost_after,
        wait,
        refresh,
    })
}

fn parse_peer(text: &str) -> Result<(), Problem> {
    if text == "unicast" {
        return Ok(());
    }
    let message = format!("{} is not a kind of peer", quote(text));
    let help = "write `peer = \"unicast\"`, and its address in `addresses` of [director.NAME]; or leave it out";
    Err(Problem::new(Code::UnknownWord, message, help))
}

/// Reports every broken relation.
pub(in crate::config) fn validate(draft: &Draft, vrrp: &vrrp::Draft, timeouts: &Timeouts, sink: &mut Sink) {
    if !vrrp.is_there() {
        let help = "add a section [vrrp] with its [[vip]]s, and a [director.NAME] for each director";
        sink.report(Code::WithoutVrrp, draft.header.clone(), "[sync] without [vrrp]: there is no peer", help);
    }
    protection(draft, sink);
    if let (Some(group), Some(unicast)) = (&draft.group, &draft.unicast) {
        let message = "a group and a peer in one [sync]";
        sink.report(Code::GroupOrUnicast, unicast.span(), message, "remove one of the two lines");
        sink.note("the group is given", group.span());
    }
    if let (Some(unicast), Some(interface)) = (&draft.unicast, &draft.interface) {
        let interface = interface.get_ref();
        for (name, header) in vrrp.without_address_on(interface) {
            let message = format!("[director.{name}] has no address on {interface}");
            let help = format!("add it: `addresses = {{ {interface} = \"…\" }}`, its own address there");
            sink.report(Code::NoPeerAddress, header, message, help);
            sink.note("unicast is asked for", unicast.span());
        }
    }
    let outside = |value: &Option<Spanned<Duration>>, (least, most): (Duration, Duration)| {
        value.as_ref().filter(|value| !(least..=most).contains(value.get_ref())).map(Spanned::span)
    };
    if let Some(at) = outside(&draft.heartbeat, HEARTBEAT_RANGE) {
        let help = "give 10ms to 10s; with the default of 50ms a dead peer is noticed after 150ms";
        sink.report(Code::SyncRange, at, "a heartbeat outside 10ms to 10s", help);
    }
    if let Some(at) = outside(&draft.refresh, REFRESH_RANGE) {
        sink.report(Code::SyncRange, at, "a refresh outside 100ms to 600s", "the default of 30s suits most");
    }
    let refresh = draft.refresh.as_ref().map_or(REFRESH, |refresh| *refresh.get_ref());
    if refresh * LOOKS > timeouts.established {
        let at = draft.refresh.as_ref().map_or(draft.header.clone(), Spanned::span);
        let message = format!(
            "with `refresh` at {} and `established` at {}, conns in use could look idle to the peer",
            format_duration(refresh),
            format_duration(timeouts.established)
        );
        let help = format!("give `refresh` {} at most", format_duration(timeouts.established / LOOKS));
        sink.report(Code::SyncRange, at, message, help);
    }
}

fn protection(draft: &Draft, sink: &mut Sink) {
    let insecure = draft.insecure.as_ref().filter(|insecure| *insecure.get_ref());
    match (&draft.key_file, insecure) {
        (Some(key), Some(insecure)) => {
            let help = "remove the line `insecure = true`";
            sink.report(Code::KeyOrInsecure, insecure.span(), "a key file, and unprotected all the same", help);
            sink.note("the key file is given", key.span());
        }
        (None, None) if !draft.has_key_or_insecure || draft.insecure.is_some() => {
            let help = "make a key with `lb-agent keygen /etc/lb/sync.key`, copy it to the other director, and add \
                        `key_file = \"/etc/lb/sync.key\"`; for a cable between the two, `insecure = true` does without";
            sink.report(Code::KeyOrInsecure, draft.header.clone(), "[sync] has no `key_file`", help);
        }
        (None, Some(insecure)) => {
            let help = "give a `key_file`, unless the sync path is a cable between the two directors";
            let message = "whoever reaches the sync path can read, forge and end conns";
            sink.report(Code::Unprotected, insecure.span(), message, help);
        }
        _ => {}
    }
}

impl Draft {
    /// What it says, when nothing in it was reported as an error.
    pub(in crate::config) fn build(self) -> Option<Sync> {
        Some(Sync {
            interface: self.interface?.into_inner(),
            peer: match (self.unicast, self.group) {
                (Some(_), _) => SyncPeer::Unicast,
                (None, group) => SyncPeer::Group(group.map_or(GROUP, Spanned::into_inner)),
            },
            key_file: self.key_file.map(Spanned::into_inner),
            heartbeat: self.heartbeat.map_or(HEARTBEAT, Spanned::into_inner),
            heartbeat_lost_after: self.lost_after.unwrap_or(LOST_AFTER),
            wait: self.wait.unwrap_or(WAIT),
            refresh: self.refresh.map_or(REFRESH, Spanned::into_inner),
        })
    }
}

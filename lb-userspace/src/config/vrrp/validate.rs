//! Relations of `[vrrp]` with its companions and with the rest of the file.

use std::{collections::HashMap, net::Ipv4Addr, ops::Range};

use lb_common::control::MAX_VIPS;
use toml::Spanned;

use super::super::{code::Code, diagnostic::Sink, read::ServiceDraft};
use super::{
    Draft,
    read::{VipDraft, VrrpDraft},
    values,
};
use crate::vrrp::Version;

/// Reports every broken relation. Entries that could not be read take no part.
pub(in super::super) fn validate(
    draft: &Draft,
    interfaces: &[&Spanned<String>],
    services: &[ServiceDraft],
    sink: &mut Sink,
) {
    tracks(draft, sink);
    let Some(vrrp) = &draft.vrrp else {
        let headers = draft.vips.iter().map(|vip| ("[[vip]]", &vip.header));
        let headers = headers.chain(draft.tracks.iter().map(|track| ("[[track]]", &track.header)));
        for (what, header) in headers {
            let message = format!("{what} without [vrrp]: nobody would look at it");
            sink.report(Code::WithoutVrrp, header.clone(), message, "add a section [vrrp]; it may be empty");
        }
        return;
    };
    if draft.vips.is_empty() {
        let help = "add [[vip]] with `address`, `interface` and `vrid` for each address that moves";
        sink.report(Code::MissingSection, vrrp.header.clone(), "[vrrp] without a [[vip]]", help);
    }
    if draft.directors.is_empty() {
        let help = "add [director.NAME] with `priority` for each director; NAME is its host name";
        sink.report(Code::MissingSection, vrrp.header.clone(), "[vrrp] without a [director.NAME]", help);
    }
    version(vrrp, sink);
    vips(draft, interfaces, services, sink);
    peers(draft, vrrp, sink);
    virtual_macs(draft, vrrp, sink);
}

/// What the chosen version has and has not.
fn version(vrrp: &VrrpDraft, sink: &mut Sink) {
    if let (Some(delay), false) = (&vrrp.preempt_delay, vrrp.preempt)
        && !delay.get_ref().is_zero()
    {
        let help = "set `preempt = true`, or remove the delay";
        sink.report(Code::WithoutEffect, delay.span(), "`preempt_delay` without preemption does nothing", help);
    }
    let Some(version) = vrrp.version else { return };
    if let Some(advert) = &vrrp.advert
        && let Err((message, help)) = values::interval(version, *advert.get_ref())
    {
        sink.report(Code::VrrpRange, advert.span(), message, help);
    }
    if let (Some(auth), Version::V3) = (&vrrp.auth, version) {
        let help = "remove it, or set `version = 2` on all directors";
        sink.report(Code::WrongVersion, auth.span(), "version 3 has no password", help);
    }
    if let (Some(checksum), Version::V2) = (&vrrp.checksum, version) {
        let help = "remove it: only version 3 has two ways to compute the checksum";
        sink.report(Code::WrongVersion, checksum.span(), "`checksum` with version 2", help);
    }
}

fn vips(draft: &Draft, interfaces: &[&Spanned<String>], services: &[ServiceDraft], sink: &mut Sink) {
    let mut seen: HashMap<Ipv4Addr, Range<usize>> = HashMap::new();
    for vip in draft.vips.iter().filter_map(|vip| vip.address.as_ref()) {
        let address = vip.get_ref().0;
        match seen.get(&address) {
            Some(first) => {
                let help = "remove one of the two [[vip]]";
                sink.report(Code::DuplicateVip, vip.span(), format!("the VIP {address} is given twice"), help);
                sink.note("first given", first.clone());
            }
            None => {
                seen.insert(address, vip.span());
            }
        }
    }
    if let Some(excess) = draft.vips.get(MAX_VIPS) {
        let message = format!("more than {MAX_VIPS} VIPs");
        let help = "the ARP gate guards no more; a VIP can carry many services, on different ports";
        sink.report(Code::TooManyVips, excess.header.clone(), message, help);
    }
    for interface in draft.vips.iter().filter_map(|vip| vip.interface.as_ref()) {
        if !interfaces.is_empty() && !interfaces.iter().any(|known| known.get_ref() == interface.get_ref()) {
            let names: Vec<&str> = interfaces.iter().map(|known| known.get_ref().as_str()).collect();
            let name = interface.get_ref();
            let message = format!("`{name}` is no [[interface]]: a VIP needs the packet path on its interface");
            let help = format!("add [[interface]] with that name, or use one of {}", names.join(", "));
            sink.report(Code::UnknownInterface, interface.span(), message, help);
        }
    }
    let own = draft.directors.iter().flat_map(|director| &director.addresses).map(|(_, address)| address);
    let backends = services.iter().flat_map(|service| &service.backends).filter_map(|backend| backend.address.as_ref());
    let backends = backends.map(|address| (*address.get_ref().ip(), address.span(), "a backend's"));
    for (ip, at, whose) in own.map(|own| (*own.get_ref(), own.span(), "a director's")).chain(backends) {
        if let Some(vip) = seen.get(&ip) {
            let message = format!("{ip} is {whose} own address and a VIP");
            sink.report(Code::VipIsOwnAddress, at, message, "a VIP moves: give it an address that no host has");
            sink.note("the VIP is given", vip.clone());
        }
    }
    if draft.vips.iter().any(|VipDraft { address, .. }| address.is_none()) {
        return;
    }
    for listen in services.iter().filter_map(|service| service.listen.as_ref()) {
        let ip = *listen.get_ref().ip();
        if !seen.is_empty() && !seen.contains_key(&ip) {
            let message = format!("{ip} is no [[vip]]: the Active does not take it over");
            let help = format!("add [[vip]] with an `address` like `{ip}/24`");
            sink.report(Code::ServiceWithoutVip, listen.span(), message, help);
        }
    }
}

/// Unicast needs to know where everybody is.
fn peers(draft: &Draft, vrrp: &VrrpDraft, sink: &mut Sink) {
    let Some(unicast) = vrrp.unicast.as_ref().filter(|unicast| *unicast.get_ref()) else { return };
    let mut needed: Vec<&str> =
        draft.vips.iter().filter_map(|vip| vip.interface.as_ref()).map(|name| name.get_ref().as_str()).collect();
    needed.sort_unstable();
    needed.dedup();
    for director in &draft.directors {
        for interface in &needed {
            if !director.addresses.iter().any(|(name, _)| name.get_ref() == interface) {
                let message = format!("[director.{}] has no address on {interface}", director.name);
                let help = format!("add it: `addresses = {{ {interface} = \"…\" }}`, its own address there");
                sink.report(Code::NoPeerAddress, director.header.clone(), message, help);
                sink.note("unicast is asked for", unicast.span());
            }
        }
    }
}

/// The packet path takes frames for one address per interface beside its own.
fn virtual_macs(draft: &Draft, vrrp: &VrrpDraft, sink: &mut Sink) {
    if !vrrp.virtual_mac {
        return;
    }
    let mut seen: HashMap<&str, (u8, Range<usize>)> = HashMap::new();
    for vip in &draft.vips {
        let (Some(interface), Some(vrid)) = (&vip.interface, vip.vrid) else { continue };
        match seen.get(interface.get_ref().as_str()) {
            Some((first, at)) if *first != vrid => {
                let message = format!("a second VRID on {} with virtual MACs", interface.get_ref());
                let help =
                    format!("give all VIPs of an interface one VRID, like {first}, or set `virtual_mac = false`");
                sink.report(Code::SecondVirtualMac, interface.span(), message, help);
                sink.note("the first VIP of the interface is given", at.clone());
            }
            Some(_) => {}
            None => {
                seen.insert(interface.get_ref(), (vrid, interface.span()));
            }
        }
    }
}

fn tracks(draft: &Draft, sink: &mut Sink) {
    for track in &draft.tracks {
        let (at, message) = match (&track.script, &track.process) {
            (Some(_), Some(process)) => (process.span(), "a script and a process in one [[track]]"),
            (None, None) if !track.has_either => {
                (track.header.clone(), "[[track]] names neither a script nor a process")
            }
            _ => continue,
        };
        let help = "give either `script = \"/path\"` or `process = \"name\"`";
        sink.report(Code::ScriptOrProcess, at, message, help);
    }
}

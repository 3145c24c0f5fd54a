//! Whether the packet path is still what the start made of it: links attached, programs ours, maps in place.
//!
//! Somebody may detach a link, put another program into it, or remove a pin; nothing would translate packets then, and
//! nobody would notice. Asks the kernel by bpf(2) only: some ten system calls.

use std::os::fd::AsFd;

use super::{
    Datapath, InterfaceStatus, LinkStatus, attach,
    bpf::{self, Map},
    clsact,
    mode::Hook,
};

impl Datapath {
    /// What is broken, each in a few words that name the interface or the map; empty: nothing.
    ///
    /// May wait for others that change the network's configuration (the kernel's RTNL lock).
    #[must_use]
    pub fn health(&self) -> Vec<String> {
        let links = self
            .report
            .interfaces
            .iter()
            .flat_map(|interface| interface.links.iter().filter_map(|link| self.broken_link(interface, link)));
        let maps = self.map_ids.iter().filter_map(|(name, id)| self.broken_map(name, *id));
        links.chain(maps).collect()
    }

    fn broken_link(&self, interface: &InterfaceStatus, known: &LinkStatus) -> Option<String> {
        let (name, hook) = (&interface.name, known.hook);
        if hook == Hook::Tc && !attach::tcx_known() {
            return match clsact::program(interface.ifindex) {
                Ok(Some(program)) if program == known.program_id => None,
                Ok(Some(other)) => {
                    Some(format!("another program ({other}) was put in place of ours on {name} ({hook})"))
                }
                Ok(None) => Some(format!("the filter on {name} ({hook}) was removed")),
                Err(error) => Some(format!("the filters of {name} cannot be listed: {error}")),
            };
        }
        let link = match bpf::obj_get(&self.pins.link(name, hook)) {
            Ok(link) => link,
            Err(error) => return Some(format!("the link of {name} ({hook}) is gone: {error}")),
        };
        match bpf::link_info(link.as_fd()) {
            Err(error) => Some(format!("the link of {name} ({hook}) does not answer: {error}")),
            Ok(info) if info.id != known.link_id => {
                Some(format!("another link ({}) has taken the place of ours on {name} ({hook})", info.id))
            }
            Ok(info) if info.ifindex != interface.ifindex => {
                Some(format!("the program on {name} ({hook}) was detached"))
            }
            Ok(info) if info.program != known.program_id => {
                Some(format!("another program ({}) was put in place of ours on {name} ({hook})", info.program))
            }
            Ok(_) => None,
        }
    }

    fn broken_map(&self, name: &str, id: u32) -> Option<String> {
        match Map::open(&self.pins.map(name)) {
            Err(error) => Some(format!("the map {name} is gone: {error}")),
            Ok(map) if map.info().id != id => Some(format!("another map has taken the place of {name}")),
            Ok(_) => None,
        }
    }
}

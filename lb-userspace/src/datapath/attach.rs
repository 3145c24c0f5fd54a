//! Links: a program at a hook of an interface, pinned so that it outlives the agent.
//!
//! Owns attaching, taking over the link of an earlier agent by an atomic update, and taking links off. Links are made
//! by the bpf(2) command itself: the loader library would fall back to an attachment that cannot be pinned.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use super::{
    attachment::{InterfaceStatus, LinkStatus},
    bpf, clsact,
    error::{Error, Result},
    mode::{Choice, Hook},
    netdev::{self, NetDev},
    pins::{self, LinkPin, PinDir},
    undo::Undo,
};

/// The programs that were loaded for attaching.
pub(super) struct Programs<'a> {
    pub(super) xdp: Option<BorrowedFd<'a>>,
    pub(super) tc: BorrowedFd<'a>,
}

impl<'a> Programs<'a> {
    fn of(&self, hook: Hook) -> Result<BorrowedFd<'a>> {
        match hook {
            Hook::Tc => Ok(self.tc),
            Hook::XdpNative | Hook::XdpGeneric => self.xdp.ok_or_else(|| Error::Object {
                what: "attach XDP".to_owned(),
                why: "the XDP program was not loaded".to_owned(),
            }),
        }
    }
}

/// Attaches to one interface: TC first, so that what XDP defers always finds it.
pub(super) fn interface(
    pins: &PinDir,
    dev: &NetDev,
    choice: &Choice,
    programs: &Programs<'_>,
    undo: &mut Undo,
) -> Result<InterfaceStatus> {
    let mut links = vec![take_over_or_attach(pins, dev, Hook::Tc, programs, undo)?];
    let mut status = InterfaceStatus {
        name: dev.name.clone(),
        ifindex: dev.index,
        hook: Hook::Tc,
        why: choice.why.clone(),
        links: Vec::new(),
    };
    if let Some(hook) = choice.xdp {
        match take_over_or_attach(pins, dev, hook, programs, undo) {
            Ok(link) => {
                links.insert(0, link);
                status.hook = hook;
            }
            Err(error @ (Error::XdpBusy { .. } | Error::Attach { .. })) if choice.may_fall_back => {
                status.why = format!("no native XDP: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    status.links = links;
    Ok(status)
}

fn take_over_or_attach(
    pins: &PinDir,
    dev: &NetDev,
    hook: Hook,
    programs: &Programs<'_>,
    undo: &mut Undo,
) -> Result<LinkStatus> {
    let path = pins.link(&dev.name, hook);
    let program = programs.of(hook)?;
    if hook == Hook::Tc && !tcx_known() {
        return clsact::take_over_or_attach(pins, dev, program, &mut undo.filters);
    }
    if let Some((link, info)) = usable(&path, dev, hook)? {
        // May be refused when the old program is gone or the right to open it is missing: then nothing is undone.
        let old = bpf::program_by_id(info.program);
        bpf::link_update(link.as_fd(), program)
            .map_err(|source| attach_error(dev, hook, "the running program stays in place", source))?;
        if let Ok(old) = old {
            undo.replaced.push((link, old));
        }
        let program_id = bpf::program_id(program).map_err(Error::io("ask for the program's id"))?;
        return Ok(LinkStatus { hook, link_id: info.id, program_id, adopted: true });
    }
    let link = attach(dev, hook, program)?;
    let pinned = bpf::obj_pin(link.as_fd(), &path);
    let info = bpf::link_info(link.as_fd());
    undo.attached.push(link);
    pinned.map_err(Error::io(format!("pin {}", path.display())))?;
    undo.created.push(path);
    let info = info.map_err(Error::io("ask for the link's id"))?;
    Ok(LinkStatus { hook, link_id: info.id, program_id: info.program, adopted: false })
}

/// The pinned link, if it still serves this hook of this interface; a stale one is taken off.
fn usable(path: &Path, dev: &NetDev, hook: Hook) -> Result<Option<(OwnedFd, bpf::LinkInfo)>> {
    let link = match bpf::obj_get(path) {
        Ok(link) => link,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(Error::io(format!("open {}", path.display()))(error)),
    };
    let info = bpf::link_info(link.as_fd())
        .map_err(|error| Error::PinMismatch { path: path.to_owned(), what: format!("it is no link ({error})") })?;
    let serves = match hook {
        Hook::Tc => {
            info.link_type == bpf::LINK_TYPE_TCX
                && info.ifindex == dev.index
                && bpf::tcx_links(dev.index).is_ok_and(|ids| ids.contains(&info.id))
        }
        Hook::XdpNative | Hook::XdpGeneric => {
            // The same index may exist in another network namespace: only the program in the slot is proof.
            info.link_type == bpf::LINK_TYPE_XDP
                && info.ifindex == dev.index
                && dev
                    .xdp
                    .is_some_and(|xdp| xdp.program == Some(info.program) && xdp.generic == (hook == Hook::XdpGeneric))
        }
    };
    if serves {
        return Ok(Some((link, info)));
    }
    // An interface that was made anew, or another mode: the old link serves nobody, and may hold the hook.
    tracing::info!(path = %path.display(), link = info.id, "removing a stale link");
    take_off(path, link.as_fd())?;
    Ok(None)
}

fn attach(dev: &NetDev, hook: Hook, program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (attach_type, flags) = match hook {
        Hook::XdpNative => (bpf::ATTACH_XDP, bpf::XDP_DRV),
        Hook::XdpGeneric => (bpf::ATTACH_XDP, bpf::XDP_SKB),
        Hook::Tc => (bpf::ATTACH_TCX_INGRESS, 0),
    };
    bpf::link_create(program, dev.index, attach_type, flags).map_err(|source| refused(dev, hook, source))
}

fn refused(dev: &NetDev, hook: Hook, source: io::Error) -> Error {
    match (hook, source.raw_os_error()) {
        (Hook::XdpNative | Hook::XdpGeneric, Some(libc::EBUSY | libc::EEXIST)) => {
            let now = netdev::list().unwrap_or_default();
            let program = now.iter().find(|now| now.index == dev.index).and_then(|now| now.xdp?.program);
            Error::XdpBusy { interface: dev.name.clone(), program }
        }
        (Hook::XdpNative, Some(libc::EOPNOTSUPP)) => {
            attach_error(dev, hook, "the driver has no native XDP; set mode = \"auto\" or \"tc\"", source)
        }
        (Hook::XdpNative, _) => {
            let remedy = "the driver refused it (MTU too large, or too few queues?); set mode = \"auto\" or \"tc\"";
            attach_error(dev, hook, remedy, source)
        }
        (Hook::XdpGeneric, _) => attach_error(dev, hook, "set mode = \"tc\"", source),
        (Hook::Tc, _) => attach_error(dev, hook, "look at `bpftool net show`", source),
    }
}

/// Whether this kernel has TCX links (since 6.6); programs go to clsact if not.
pub(super) fn tcx_known() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    // The loopback interface: a kernel with TCX answers, even if with an empty list.
    *KNOWN.get_or_init(|| !bpf::tcx_links(1).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)))
}

fn attach_error(dev: &NetDev, hook: Hook, remedy: &'static str, source: io::Error) -> Error {
    Error::Attach { interface: dev.name.clone(), hook: hook.name(), remedy, source }
}

/// Takes off the links that the config no longer asks for; tells which.
pub(super) fn remove_others(pins: &PinDir, wanted: &[InterfaceStatus]) -> Result<Vec<String>> {
    let wanted: Vec<_> = wanted
        .iter()
        .flat_map(|interface| interface.links.iter().map(|link| pins.link(&interface.name, link.hook)))
        .collect();
    let mut removed = Vec::new();
    for pin in pins.links()? {
        if !wanted.contains(&pin.path) {
            unpin(&pin)?;
            removed.push(format!("detached from {} ({}): no longer in the config", pin.interface, pin.hook));
        }
    }
    Ok(removed)
}

/// Takes a pinned link off its interface and removes the pin.
pub(super) fn unpin(pin: &LinkPin) -> Result<()> {
    let path = &pin.path;
    if pin.hook == "tc" && !tcx_known() {
        let dev = netdev::list()?.into_iter().find(|dev| dev.name == pin.interface);
        return clsact::unpin(path, dev.map(|dev| dev.index));
    }
    match bpf::obj_get(path) {
        Ok(link) => take_off(path, link.as_fd()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(Error::io(format!("open {}", path.display()))(error)),
    }
}

fn take_off(path: &Path, link: BorrowedFd<'_>) -> Result<()> {
    match bpf::link_detach(link) {
        Ok(()) => {}
        // Its interface is gone, and the attachment with it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV | libc::EINVAL)) => {}
        Err(error) => return Err(Error::io(format!("detach {}", path.display()))(error)),
    }
    pins::remove(path).map_err(Error::io(format!("remove {}", path.display())))
}

//! The TC hook of kernels before 6.6: a cls_bpf filter at clsact ingress, where TCX has links.
//!
//! No link holds such a filter: it stays until somebody removes it, like a link that is pinned. Its place (priority and
//! handle) and the program pinned under the link's name mark it as ours, and its program is replaced in place. Follows
//! tc-bpf(8) and `net/sched/cls_bpf.c`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use lb_common::abi;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
    },
};

use super::{
    attachment::LinkStatus,
    bpf,
    error::{Error, Result},
    mode::Hook,
    netdev::NetDev,
    pins::{self, PinDir},
};
use crate::netlink::{self, Order};

/// Our place among the filters of an interface: behind those of low numbers, which people write by hand.
const PRIORITY: u32 = 0x6c62;
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const QDISC: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;

/// What a failed start puts back.
#[derive(Debug)]
pub(super) struct Replaced {
    ifindex: u32,
    path: PathBuf,
    /// `None`: there was no filter of ours.
    earlier: Option<OwnedFd>,
}

impl Replaced {
    pub(super) fn undo(self) -> io::Result<()> {
        pins::remove(&self.path)?;
        match self.earlier {
            Some(program) => {
                set(self.ifindex, program.as_fd())?;
                bpf::obj_pin(program.as_fd(), &self.path)
            }
            None => remove(self.ifindex),
        }
    }
}

/// Puts the program into our filter, which is made if it is missing. What must be put back if the start fails goes to
/// `undo` before the step that could fail.
pub(super) fn take_over_or_attach(
    pins: &PinDir,
    dev: &NetDev,
    program: BorrowedFd<'_>,
    undo: &mut Vec<Replaced>,
) -> Result<LinkStatus> {
    let attach = |what: &str| Error::io(format!("{what} at clsact ingress of {}", dev.name));
    let path = pins.link(&dev.name, Hook::Tc);
    let earlier = bpf::obj_get(&path).ok().filter(|earlier| serves(dev.index, earlier.as_fd()));
    let adopted = earlier.is_some();
    ensure_qdisc(dev.index).map_err(attach("make a qdisc"))?;
    set(dev.index, program).map_err(attach("set the filter"))?;
    undo.push(Replaced { ifindex: dev.index, path: path.clone(), earlier });
    // If this is interrupted, the next start finds the filter by its place.
    pins::remove(&path).map_err(Error::io(format!("remove {}", path.display())))?;
    bpf::obj_pin(program, &path).map_err(Error::io(format!("pin {}", path.display())))?;
    let program_id = bpf::program_id(program).map_err(Error::io("ask for the program's id"))?;
    Ok(LinkStatus { hook: Hook::Tc, link_id: 0, program_id, adopted })
}

/// Whether our filter of this interface runs the pinned program.
fn serves(ifindex: u32, pinned: BorrowedFd<'_>) -> bool {
    let runs = program(ifindex).ok().flatten();
    runs.is_some() && runs == bpf::program_id(pinned).ok()
}

/// The id of the program that our filter runs; `None`: there is no such filter.
pub(super) fn program(ifindex: u32) -> io::Result<Option<u32>> {
    let ours = |message: &TcMessage| message.header.handle == HANDLE && message.header.info >> 16 == PRIORITY;
    Ok(filters(ifindex, INGRESS)?.iter().find(|message| ours(message)).and_then(program_id))
}

fn program_id(message: &TcMessage) -> Option<u32> {
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

/// Takes a filter off whose program is pinned at `path`, and removes the pin. `ifindex`: if the interface still exists.
pub(super) fn unpin(path: &Path, ifindex: Option<u32>) -> Result<()> {
    let pinned = bpf::obj_get(path).map_err(Error::io(format!("open {}", path.display())))?;
    // The name may have gone to another interface since.
    if let Some(ifindex) = ifindex.filter(|ifindex| serves(*ifindex, pinned.as_fd())) {
        remove(ifindex).map_err(Error::io(format!("remove the filter of {}", path.display())))?;
    }
    pins::remove(path).map_err(Error::io(format!("remove {}", path.display())))
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, info: u32, kind: &str) -> TcMessage {
    let mut header = TcHeader::default();
    (header.index, header.handle, header.parent, header.info) = (ifindex as i32, handle, parent, info);
    let mut message = TcMessage::default();
    message.header = header;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

/// Our filter's place in a message: priority, and all protocols.
const fn place() -> u32 {
    PRIORITY << 16 | ETH_P_ALL.to_be() as u32
}

fn ensure_qdisc(ifindex: u32) -> io::Result<()> {
    let qdisc = message(ifindex, QDISC, TcHandle::CLSACT, 0, "clsact");
    let made = give(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL);
    made.or_else(|error| if error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) })
}

/// A packet sees either the old program or this one.
fn set(ifindex: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut filter = message(ifindex, HANDLE, INGRESS, place(), "bpf");
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName(abi::PROG_TC.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    filter.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
    give(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)
}

/// Removes our filter, and the qdisc if nobody else uses it.
fn remove(ifindex: u32) -> io::Result<()> {
    give(RouteNetlinkMessage::DelTrafficFilter(message(ifindex, HANDLE, INGRESS, place(), "bpf")), 0)?;
    if filters(ifindex, INGRESS)?.is_empty() && filters(ifindex, EGRESS)?.is_empty() {
        give(RouteNetlinkMessage::DelQueueDiscipline(message(ifindex, QDISC, TcHandle::CLSACT, 0, "clsact")), 0)?;
    }
    Ok(())
}

fn filters(ifindex: u32, parent: TcHandle) -> io::Result<Vec<TcMessage>> {
    let mut question = message(ifindex, TcHandle::UNSPEC, parent, 0, "");
    question.attributes.clear();
    let found = match netlink::dump(RouteNetlinkMessage::GetTrafficFilter(question)) {
        // No qdisc, no filters.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(Vec::new()),
        found => found?,
    };
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            // Every priority is announced by a message of its own, without a handle.
            RouteNetlinkMessage::NewTrafficFilter(filter) if filter.header.handle != TcHandle::UNSPEC => Some(filter),
            _ => None,
        })
        .collect())
}

fn give(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    Order::new(message, flags).give(&netlink::open()?)
}

//! How a failed start leaves everything as it was.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use super::{bpf, clsact, pins};

/// Takes back, when dropped, what a start has done so far; [`Undo::keep`] ends that.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Directories and pins, in the order of their creation.
    pub(super) created: Vec<PathBuf>,
    /// Links that were made. Removing the pin is not enough: the kernel then detaches some time later.
    pub(super) attached: Vec<OwnedFd>,
    /// Links whose program was replaced, with the program they had.
    pub(super) replaced: Vec<(OwnedFd, OwnedFd)>,
    /// Filters that were made or got another program.
    pub(super) filters: Vec<clsact::Replaced>,
}

impl Undo {
    /// Everything went well.
    pub(super) fn keep(mut self) {
        self.created.clear();
        self.attached.clear();
        self.replaced.clear();
        self.filters.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for (link, program) in self.replaced.drain(..).rev() {
            if let Err(error) = bpf::link_update(link.as_fd(), program.as_fd()) {
                tracing::warn!(%error, "cannot give a link its program back");
            }
        }
        for filter in self.filters.drain(..).rev() {
            filter.undo().unwrap_or_else(|error| tracing::warn!(%error, "cannot undo a filter"));
        }
        for link in self.attached.drain(..).rev() {
            bpf::link_detach(link.as_fd()).unwrap_or_else(|error| tracing::warn!(%error, "cannot detach"));
        }
        for path in self.created.drain(..).rev() {
            pins::remove(&path).unwrap_or_else(|error| tracing::warn!(%error, path = %path.display(), "cannot undo"));
        }
    }
}

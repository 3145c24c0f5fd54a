//! Wakes the thread of the sync.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// What wakes the thread, for everybody who has something for it.
#[derive(Clone, Debug)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// One that has not rung.
    ///
    /// # Errors
    ///
    /// The kernel refuses an eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)))
    }

    /// Wakes the thread. Never waits.
    pub fn ring(&self) {
        // Fails only when it has rung 2^64 times unheard.
        let _ = self.0.write(1);
    }

    /// Takes note of all rings so far.
    pub(super) fn hush(&self) {
        // Nothing to read means that it has not rung.
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

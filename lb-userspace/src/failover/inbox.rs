//! The way of messages to the timer thread: bounded, and no sender ever holds the thread up.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Error, status::Status};
use crate::ha;

/// Messages that may wait: beats every few milliseconds while the thread is asleep for a second.
const ROOM: usize = 512;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// To the election.
    Input(ha::Input),
    /// A question.
    Status(SyncSender<Status>),
}

/// The sending end. Clones send to the same thread.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    messages: SyncSender<Message>,
    bell: Arc<EventFd>,
}

/// The thread's end.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: Receiver<Message>,
    bell: Arc<EventFd>,
}

pub(super) fn open() -> Result<(Outside, Inbox), Error> {
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| Error::io("make an eventfd")(errno.into()))?;
    let bell = Arc::new(bell);
    let (sender, receiver) = sync_channel(ROOM);
    Ok((Outside { messages: sender, bell: bell.clone() }, Inbox { messages: receiver, bell }))
}

impl Outside {
    /// Leaves a message; `false`: there is no room, or nobody reads any more.
    pub(super) fn send(&self, message: Message) -> bool {
        let sent = match self.messages.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        // Fails only when it has rung four billion times unheard.
        let _ = self.bell.write(1);
        sent
    }
}

impl Inbox {
    /// To wait on.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Silences the bell, before the messages are taken.
    pub(super) fn hush(&self) {
        // Nothing to read means that it has not rung.
        let _ = self.bell.read();
    }

    /// The next message.
    pub(super) fn take(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }
}

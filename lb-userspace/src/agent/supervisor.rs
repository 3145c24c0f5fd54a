//! What systemd is told (sd_notify(3)): ready, alive, stopping. Without systemd nobody is told.
//!
//! "Alive" means that the runtime runs and that the timer thread's loop turns: either one stuck is a reason to be killed,
//! and then the ARP gate is shut already.

use std::{env, io, os::unix::ffi::OsStrExt, time::Duration};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};
use tracing::warn;

/// The variables that systemd sets. Children must not inherit them: they would speak for the agent.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The one who started the agent, if he listens.
#[derive(Debug)]
pub(super) struct Supervisor {
    address: Option<UnixAddr>,
    /// He kills the agent after this long without a sign of life.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let path = env::var_os(VARIABLES[0]).filter(|path| !path.is_empty());
        let address = path.and_then(|path| {
            // An abstract address begins with a zero byte, written as @.
            match path.as_bytes() {
                [b'@', name @ ..] => UnixAddr::new_abstract(name).ok(),
                _ => UnixAddr::new(path.as_os_str()).ok(),
            }
        });
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number(VARIABLES[2]).is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number(VARIABLES[1]).filter(|micros| *micros > 0 && ours).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| address.is_some()), address }
    }

    /// How often to call [`Supervisor::alive`]; `None`: nobody waits for it.
    pub(super) fn every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    /// The director works.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// What `systemctl status` shows.
    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The agent lives.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The agent ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, text: &str) {
        let Some(address) = &self.address else { return };
        let sent = || -> io::Result<()> {
            let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            sendto(std::os::fd::AsRawFd::as_raw_fd(&fd), text.as_bytes(), address, flags)?;
            Ok(())
        };
        if let Err(error) = sent() {
            warn!(%error, "cannot tell systemd");
        }
    }
}

/// Whether the timer thread has turned since the last look.
#[derive(Debug, Default)]
pub(super) struct Pulse(Option<u64>);

impl Pulse {
    /// Looks at its turns; `None`: there is no such thread.
    pub(super) fn beats(&mut self, turns: Option<u64>) -> bool {
        let Some(turns) = turns else { return true };
        self.0.replace(turns) != Some(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_turn_is_dead() {
        let mut pulse = Pulse::default();
        assert!(pulse.beats(Some(7)) && pulse.beats(Some(8)));
        assert!(!pulse.beats(Some(8)) && !pulse.beats(Some(8)));
        assert!(pulse.beats(Some(9)));
        assert!(Pulse::default().beats(None), "nothing to die");
    }
}

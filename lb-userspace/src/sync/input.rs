//! What the core is told, and what it wants done.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use lb_common::tcp::State;

use super::{
    conn::{Conn, Key},
    crypto::Random,
    notice::Notice,
    time::Tenths,
};

/// What may happen.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram arrived. It is opened in place.
    Datagram(&'a mut [u8]),
    /// The packet path completed a handshake.
    Established(Conn),
    /// The packet path saw a side close, or a reset.
    Closing(Conn),
    /// A new handshake took the key of a closed conn, which is no more.
    Replaced(Key),
    /// The conn was removed from the packet path's table, because its time was over.
    Expired {
        /// Its key.
        key: Key,
        /// Its state then.
        state: State,
    },
    /// The packet path could not tell of some changes.
    Lost,
    /// A packet of a service belongs to no conn.
    Miss(Key),
    /// The answer to [`Action::Scan`]: a conn of the table, as it was when the look came by, a while ago perhaps.
    Seen(Conn),
    /// The answer to [`Action::Scan`]: one of both entries of a conn, of which the look did not see the other.
    SeenHalf(Key),
    /// The answer to [`Action::Scan`]: that was all.
    Scanned,
    /// The answer to [`Action::Look`], or to a removal or creation that was not done: the conn is in the table, like
    /// this.
    Found(Conn),
    /// The answer to [`Action::Look`] or [`Action::Retire`]: it is not in the table, or not any more.
    NotFound(Key),
    /// The answer to a [`Write::Create`] for which the table has no room.
    NotWritten(Key),
    /// The services and backends that conns of the peer may belong to, those being drained included.
    Services(Services),
    /// What the heartbeat is to tell.
    Beat(Beat),
    /// The peer shall have this, instead of what it was to have before.
    Notice(Notice),
    /// The peer is to become Active: tell when it has everything.
    Drain {
        /// The longest time to wait for that.
        within: Duration,
    },
    /// This director stops.
    Stop,
}

/// VIP and port → backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(HashMap<SocketAddrV4, Vec<SocketAddrV4>>);

impl Services {
    /// Adds a backend of a service.
    pub fn add(&mut self, service: SocketAddrV4, backend: SocketAddrV4) {
        self.0.entry(service).or_default().push(backend);
    }

    /// The backends of a service; `None`: there is no such service.
    #[must_use]
    pub fn backends(&self, service: SocketAddrV4) -> Option<&[SocketAddrV4]> {
        self.0.get(&service).map(Vec::as_slice)
    }
}

/// What a director says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It holds all VIPs.
    Active,
    /// It holds none and could.
    Backup,
    /// It holds none and must not.
    Fault,
    /// It is stopping or handing over.
    Leaving,
}

impl Role {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Active => 1,
            Self::Backup => 2,
            Self::Fault => 3,
            Self::Leaving => 4,
        }
    }

    /// Of a byte that this version does not know, the one that takes nothing over.
    pub(super) const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Active,
            2 => Self::Backup,
            4 => Self::Leaving,
            _ => Self::Fault,
        }
    }
}

/// A heartbeat, as the election needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// What it is.
    pub role: Role,
    /// Its priority.
    pub priority: u8,
    /// Its address on the first segment.
    pub address: Ipv4Addr,
}

impl Default for Beat {
    fn default() -> Self {
        Self { role: Role::Backup, priority: 0, address: Ipv4Addr::UNSPECIFIED }
    }
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    /// Send a datagram to the peer.
    Send(&'a [u8]),
    /// Change the packet path's table.
    Write(Write),
    /// Look through the whole table: tell every conn, then that it was all.
    Scan,
    /// Look at one conn in the table.
    Look(Key),
    /// Remove the conn, whatever its state, unless something was seen of it more recently: tell which.
    Retire {
        /// Its key.
        key: Key,
        /// Its silence as far as the core knows.
        idle: Tenths,
    },
    /// The peer is alive.
    Beat(Beat),
    /// What the peer's notice says now; `None`: the peer is gone, and what it said does not count any more.
    Notice(Option<Notice>),
    /// The peer has everything that was known when the drain began, or it does not.
    Drained(Result<(), Stalled>),
    /// Something that people want to know.
    Event(Event),
}

/// A change of the packet path's table. Only conns of services and backends that were told.
///
/// The table may know more than the core does at that moment: the packet path's word may be on its way. Then what is
/// there stays, and the answer is [`Input::Found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A conn of the peer is new here. If another one has its key, that goes, unless the core knows of none, or it is
    /// not over and something was seen of it more recently.
    Create {
        /// The new conn.
        conn: Conn,
        /// The silence of the other one as far as the core knows; the longest time: it knows of none.
        idle: Tenths,
    },
    /// More is known of a conn: flags are added, numbers and times go forward. Nothing happens if it is not there, or if
    /// the one that is there is of another age ([`Conn::SLACK`]): the packet path's word of it is on its way.
    Update(Conn),
    /// The conn is no more. It goes, unless it is not over and something was seen of it more recently.
    Remove {
        /// Its key.
        key: Key,
        /// Its silence as far as the core knows.
        idle: Tenths,
    },
}

impl Write {
    /// The conn's key.
    #[must_use]
    pub const fn key(&self) -> Key {
        match self {
            Self::Create { conn, .. } | Self::Update(conn) => conn.key,
            Self::Remove { key, .. } => *key,
        }
    }
}

/// Why a drain did not come to its end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// There is no peer.
    NoPeer,
    /// The peer did not confirm in time.
    Late,
}

/// What people want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session with the peer is open.
    PeerUp {
        /// Its number.
        node: u16,
        /// Its epoch.
        epoch: Random,
        /// It remembers what was sent before; otherwise everything is sent anew.
        resumed: bool,
    },
    /// The peer is gone.
    PeerDown {
        /// It said so; otherwise it was not heard any more.
        leaving: bool,
    },
    /// Both have sent each other everything.
    BulkDone,
    /// Both tables are equal, after they were not or it was not known.
    Equal,
    /// The tables differ, and are being repaired.
    Diverged,
    /// The peer has other services or backends.
    ConfigDiffers(bool),
}

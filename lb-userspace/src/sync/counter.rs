//! What is counted: every frame and every record that does not count, by its cause, and what was done.

/// Fieldless causes with names for people and a table of counts.
macro_rules! causes {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name people read.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

causes! {
    /// Why a frame did not count. It changed nothing.
    pub enum Refused {
        /// It is longer than any frame, or empty.
        Length => "length",
        /// It does not begin like a frame of this protocol.
        NotOurs => "not ours",
        /// It is of another major version.
        Version => "other version",
        /// It is of a kind that this version does not know.
        Kind => "unknown kind",
        /// It claims to be of this very director.
        OwnNode => "own node",
        /// It is of a third director, while the peer is alive.
        ThirdNode => "third node",
        /// It names a key that is not in the key file.
        UnknownKey => "unknown key",
        /// One director has a key, the other one has none.
        Unprotected => "unprotected",
        /// There were too many greetings.
        Limited => "too many greetings",
        /// It belongs to no session that is open.
        UnknownSession => "unknown session",
        /// Its number was seen before, or is too old.
        Replayed => "replayed",
        /// It was forged or damaged, or sealed with another key.
        Forged => "forged",
        /// It is authentic, and makes no sense.
        Malformed => "malformed",
        /// It runs too far ahead of what is missing.
        Ahead => "too far ahead",
    }
}

causes! {
    /// Why a record of an authentic frame did not count.
    pub enum Rejected {
        /// It is of a kind that this version does not know.
        UnknownKind => "unknown kind",
        /// No service has its VIP and port.
        UnknownService => "unknown service",
        /// The service does not have its backend.
        UnknownBackend => "unknown backend",
        /// Its flags are not those of a conn whose handshake is complete.
        Implausible => "implausible",
        /// There are as many conns as the tables are planned for.
        Full => "full",
        /// The packet path's table did not take it.
        Table => "table",
    }
}

/// The counts of one director.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    refused: [u64; Refused::ALL.len()],
    rejected: [u64; Rejected::ALL.len()],
    /// Frames sent, and bytes in them.
    pub sent: Traffic,
    /// Authentic frames received, and bytes in them.
    pub received: Traffic,
    /// Frames of the peer that were missing.
    pub missing: u64,
    /// Frames that the peer was missing.
    pub resent: u64,
    /// Conns sent as they changed.
    pub deltas: u64,
    /// Conns sent in bulk.
    pub bulk: u64,
    /// Ends of conns sent.
    pub gone: u64,
    /// Reports of activity sent.
    pub activity: u64,
    /// Reports of activity that were left out, because there was too much else to do.
    pub activity_left_out: u64,
    /// Ends of conns forgotten, because the peer was away for too long.
    pub forgotten: u64,
    /// Conns of the peer that were taken over here.
    pub created: u64,
    /// Conns that were removed here because the peer said so.
    pub removed: u64,
    /// Times that both had different conns of one key, and this one stayed.
    pub contested: u64,
    /// Buckets sent anew because their digests differed.
    pub repaired: u64,
    /// Conns asked for because a packet missed them.
    pub pulled: u64,
}

/// Frames and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes in them, without the headers of UDP and below.
    pub bytes: u64,
}

impl Traffic {
    pub(super) const fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

impl Counters {
    /// Frames that did not count for this cause.
    #[must_use]
    pub const fn refused(&self, cause: Refused) -> u64 {
        self.refused[cause as usize]
    }

    /// Records that did not count for this cause.
    #[must_use]
    pub const fn rejected(&self, cause: Rejected) -> u64 {
        self.rejected[cause as usize]
    }

    /// Records that did not count.
    #[must_use]
    pub fn all_rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Frames that did not count.
    #[must_use]
    pub fn all_refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    pub(super) const fn refuse(&mut self, cause: Refused) {
        self.refused[cause as usize] += 1;
    }

    pub(super) const fn reject(&mut self, cause: Rejected) {
        self.rejected[cause as usize] += 1;
    }
}

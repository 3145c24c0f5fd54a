//! The stable codes of all diagnostics. A code keeps its number and its meaning for ever: people search for it and
//! scripts match it. 0xx file and syntax · 01x shape · 02x addresses and durations · 03x words, numbers, paths ·
//! 04x relations between entries · 06x warnings · 07x checks of backends.

use std::fmt;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what its author wants.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        /// What kind of problem a diagnostic reports; shown as `C` and three digits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)+
        }

        impl Code {
            /// All codes by number.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

codes! {
    /// The file cannot be opened or read.
    Unreadable = 1,
    /// The file is larger than 1 MiB.
    TooLarge = 2,
    /// The file is not UTF-8 text.
    NotUtf8 = 3,
    /// The file has no content.
    Empty = 4,
    /// The text is not TOML.
    Syntax = 5,
    /// A key or a section is given twice.
    DuplicateKey = 6,

    /// `schema_version` is missing.
    NoSchemaVersion = 10,
    /// `schema_version` is one that this program does not know.
    BadSchemaVersion = 11,
    /// A key that means nothing here.
    UnknownKey = 12,
    /// A section that means nothing here.
    UnknownSection = 13,
    /// A value of another TOML type than the key takes.
    WrongType = 14,
    /// A key that the section needs is missing.
    MissingKey = 15,
    /// No interface, no service, or a service without backends.
    MissingSection = 16,
    /// `[x]` where `[[x]]` belongs, or the reverse.
    WrongBrackets = 17,

    /// Not a duration.
    BadDuration = 20,
    /// A duration of zero, below zero or above 30 days.
    DurationRange = 21,
    /// Not an address and port.
    BadAddress = 22,
    /// An IPv6 address.
    Ipv6 = 23,
    /// The port is missing, 0, above 65535 or not a number.
    BadPort = 24,
    /// An address that no service and no backend can have.
    UnusableAddress = 25,
    /// A host name where an IP address belongs.
    HostName = 26,
    /// An address without the length of its network, or with one that no network has.
    BadPrefix = 27,
    /// A VRRP password of no or of more than 8 bytes.
    BadPassword = 28,
    /// A number or an interval outside what the sync allows.
    SyncRange = 29,

    /// Not a name that the kernel accepts for an interface.
    BadInterfaceName = 30,
    /// Not a name for a service.
    BadServiceName = 31,
    /// A word that is none of the allowed ones.
    UnknownWord = 32,
    /// A weight outside 0 to 65535.
    WeightRange = 33,
    /// A table size outside its limits.
    TableRange = 34,
    /// A relative or otherwise unusable path.
    BadPath = 35,
    /// A socket path longer than the kernel's 107 bytes.
    SocketPathLength = 36,
    /// Not a log filter.
    BadLogFilter = 37,
    /// Not a name for a director or a process.
    BadName = 38,
    /// A number or an interval outside what VRRP or the tracking allows.
    VrrpRange = 39,

    /// Two interfaces with one name.
    DuplicateInterface = 40,
    /// Two services with one name.
    DuplicateService = 41,
    /// Two services on one address and port.
    DuplicateListen = 42,
    /// One backend twice in a service.
    DuplicateBackend = 43,
    /// A backend that is a service's listen address.
    Loop = 44,
    /// More services than the table holds.
    TooManyServices = 45,
    /// More backends than the table holds.
    TooManyBackends = 46,
    /// The control socket lies in the pin directory, where no socket can be made.
    SocketInPinDir = 47,
    /// More backends in one service than its ring has slots.
    RingFull = 48,
    /// One VIP twice.
    DuplicateVip = 49,
    /// More VIPs than the ARP gate guards.
    TooManyVips = 50,
    /// A VIP or something tracked, but no `[vrrp]`.
    WithoutVrrp = 51,
    /// An interface that is no `[[interface]]`.
    UnknownInterface = 52,
    /// What the chosen VRRP version does not have.
    WrongVersion = 53,
    /// Unicast adverts to a director whose address is not given.
    NoPeerAddress = 54,
    /// A VIP that is some host's own address.
    VipIsOwnAddress = 55,
    /// Neither a script nor a process, or both.
    ScriptOrProcess = 56,
    /// Two virtual MACs on one interface.
    SecondVirtualMac = 57,
    /// A sync path with neither a key nor the word that it needs none, or with both.
    KeyOrInsecure = 58,
    /// A sync path with a group and a single peer.
    GroupOrUnicast = 59,

    /// All backends of a service have weight 0.
    AllDrained = 60,
    /// The established timeout is so short that it cuts sessions in use.
    ShortEstablished = 61,
    /// Weights differ, but the scheduler does not look at them.
    WeightsUnused = 62,
    /// A service whose address is no VIP, so that no director takes it over.
    ServiceWithoutVip = 63,
    /// A setting that does nothing beside another one.
    WithoutEffect = 64,
    /// Checks that do not log in.
    GreetingOnly = 65,
    /// A sync path without a key.
    Unprotected = 66,

    /// An interval or a number of the checks outside its limits.
    CheckRange = 70,
    /// A user, a statement or a name for a check that cannot be one.
    BadText = 71,
    /// Settings of a check that do not go together.
    CheckConflict = 75,
    /// No backend of a service is one that serves first.
    NoPrimary = 76,
}

impl Code {
    /// Warnings from 60 to 69, errors otherwise.
    #[must_use]
    pub const fn severity(self) -> Severity {
        if matches!(self as u16, 60..70) { Severity::Warning } else { Severity::Error }
    }

    /// True for problems of a single value, which stand on their own even when the text around them is not TOML.
    pub(super) const fn is_about_one_value(self) -> bool {
        matches!(self as u16, 20..40 | 70..75)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{:03}", *self as u16)
    }
}

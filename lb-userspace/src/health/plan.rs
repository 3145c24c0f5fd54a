//! How a service's backends are to be checked. Made from the config; knows neither files nor sockets.

use std::{fmt, path::PathBuf, time::Duration};

use super::{cadence::Cadence, condition::Condition};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in config and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

words! {
    /// How deep a check looks. Each includes those before it.
    Level {
        /// The port answers SYN with SYN-ACK; the server itself never learns of it.
        Tcp = "tcp",
        /// The server greets, and answers a login, whatever it answers.
        Greeting = "greeting",
        /// The check user logs in; then a ping on the connection that stays.
        Auth = "auth",
        /// The condition holds.
        Query = "query",
    }
}

words! {
    /// TLS between the check and the server. (Clients' TLS passes untouched.)
    Tls {
        /// Never.
        Off = "off",
        /// If the server offers it; nothing is verified.
        Prefer = "prefer",
        /// Or the check fails; nothing is verified.
        Require = "require",
        /// With a certificate of the given authority, or the check fails.
        Verify = "verify",
    }
}

/// What the server says about itself after a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version text of its greeting.
    pub version: String,
    /// The longer of `wait_timeout` and `interactive_timeout`: a session may be idle for so long.
    pub wait_timeout: Option<Duration>,
    /// `max_connections`.
    pub max_connections: Option<u32>,
}

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How deep.
    pub level: Level,
    /// When.
    pub cadence: Cadence,
    /// The check user; none below `auth`, mostly.
    pub user: Option<String>,
    /// The file with its password; none: it has none.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub tls: Tls,
    /// PEM file with the authorities for [`Tls::Verify`].
    pub tls_ca: Option<PathBuf>,
    /// The name that the server's certificate must hold; none: any certificate of the authority will do.
    pub tls_name: Option<String>,
    /// What must hold at `query`.
    pub condition: Condition,
    /// How long the check's connection serves until it is made anew, to see that logging in still works.
    pub relogin: Duration,
}

impl Plan {
    /// The checks log in, so that the server can be asked something.
    #[must_use]
    pub fn logs_in(&self) -> bool {
        self.user.is_some() && self.level >= Level::Auth
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            level: Level::Greeting,
            cadence: Cadence::default(),
            user: None,
            password_file: None,
            tls: Tls::Prefer,
            tls_ca: None,
            tls_name: None,
            condition: Condition::default(),
            relogin: Duration::from_secs(5),
        }
    }
}

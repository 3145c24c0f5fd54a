//! Connection sync: each director tells the other what its own packet path does with conns, whatever its role, so that
//! either can go on with all of them at any moment.
//!
//! [`Replication`] is the pure core: it takes datagrams, changes and time, and says what to send and what to write. The
//! protocol is this project's own; what it learnt from IPVS, conntrackd, pfsync and SONiC's DASH is said where it is used.

mod bell;
mod config;
mod conn;

mod counter;
mod crypto;
mod index;
mod input;
mod key_file;
mod limit;
mod line;
mod notice;
mod replay;
mod replication;
mod status;
mod stream;
mod thread;
mod time;
mod wire;

pub use bell::Bell;
pub use config::{Config, ConfigError, Timeouts};
pub use conn::{Conn, Half, Key};

pub use counter::{Counters, Refused, Rejected, Traffic};
pub use crypto::{Psk, Random};
pub use index::{BUCKETS, bucket_of};
pub use input::{Action, Beat, Event, Input, Role, Services, Stalled, Write};
pub use key_file::{KeyError, generate as generate_key, random, read as read_keys};
pub use line::{Line, Peer};
pub use notice::Notice;
pub use replication::Replication;
pub use status::{Difference, PeerStatus, State, Status};
pub use thread::{Happened, Listener, Path, Running, StartError, Table, Tell};
pub use time::Tenths;
pub use wire::fuzz;

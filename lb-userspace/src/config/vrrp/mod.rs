//! `[vrrp]`, `[[vip]]`, `[[track]]` and `[director.NAME]`: who shares the VIPs, and what a director must have to hold
//! them. The types; reading is `read`, relations are `validate`, single values are `values`.

mod read;
mod validate;
mod values;

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, time::Duration};

use serde::{Serialize, Serializer};

use super::{Config, duration::format_duration};
use crate::vrrp::{
    Version,
    interval::Interval,
    machine::Preempt,
    packet::{Auth, ChecksumKind},
};

pub(super) use read::{Draft, read};
pub(super) use validate::validate;

/// The `[vrrp]` section with the `[[vip]]`s and what is tracked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vrrp {
    /// The protocol version; the two do not understand each other.
    #[serde(serialize_with = "version")]
    pub version: Version,
    /// The pause between two adverts of the Active.
    #[serde(serialize_with = "interval")]
    pub advert: Interval,
    /// The password of version 2. Not shown.
    #[serde(skip)]
    pub auth: Auth,
    /// How version 3 computes the checksum of what it sends.
    #[serde(serialize_with = "checksum")]
    pub checksum: ChecksumKind,
    /// What to do about an Active of lower priority.
    #[serde(serialize_with = "preempt")]
    pub preempt: Preempt,
    /// The peer is another VRRP implementation: adverts only.
    pub strict: bool,
    /// VIPs have a link-layer address of their own.
    pub virtual_mac: bool,
    /// Adverts go to the other directors' addresses instead of the multicast group.
    pub unicast: bool,
    /// Run at every change of the role.
    pub notify: Option<PathBuf>,
    /// At least one; addresses are unique, interfaces are among `[[interface]]`.
    pub vips: Vec<Vip>,
    /// What else must work.
    pub tracks: Vec<Track>,
}

/// One `[[vip]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vip {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network, 1 to 32.
    pub prefix: u8,
    /// The interface it is configured on.
    pub interface: String,
    /// The virtual router, 1 to 255. VIPs with one VRID on one interface share its adverts.
    pub vrid: u8,
}

/// One `[[track]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Track {
    /// What is looked at.
    pub what: Tracked,
    /// The pause between two looks.
    #[serde(serialize_with = "duration")]
    pub interval: Duration,
    /// How long a script may take.
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    /// This many good looks in a row make it good.
    pub rise: u32,
    /// This many bad looks in a row make it bad.
    pub fall: u32,
}

/// What a `[[track]]` looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracked {
    /// A program that ends with 0.
    Script(PathBuf),
    /// A process of this name.
    Process(String),
}

/// One `[director.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Director {
    /// Its name: the host name, or what `--node` says.
    pub name: String,
    /// 1 to 254; the higher one is the better one.
    pub priority: u8,
    /// Its own addresses, by interface.
    pub addresses: BTreeMap<String, Ipv4Addr>,
}

impl Config {
    /// The director of that name.
    ///
    /// # Errors
    /// There is none; the message says how to name it.
    pub fn director(&self, name: &str) -> Result<&Director, String> {
        self.directors.iter().find(|director| director.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.directors.iter().map(|director| director.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("no [director.{name}] in the config (there are: {known}); say which one this is with --node NAME")
        })
    }
}

fn version<S: Serializer>(value: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(value.number())
}

fn interval<S: Serializer>(value: &Interval, serializer: S) -> Result<S::Ok, S::Error> {
    duration(&value.duration(), serializer)
}

fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_duration(*value))
}

fn checksum<S: Serializer>(value: &ChecksumKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.name())
}

fn preempt<S: Serializer>(value: &Preempt, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Preempt::Never => serializer.serialize_str("never"),
        Preempt::After(delay) => serializer.collect_str(&format_args!("after {}", format_duration(*delay))),
    }
}

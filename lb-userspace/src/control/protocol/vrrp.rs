//! What the agent shows of the election: the part of `status` that is there with `[vrrp]`.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

/// The election as this director sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpView {
    /// This director.
    pub node: String,
    /// `Active`, `Backup` or `Fault`: for all VIPs together.
    pub role: String,
    /// For how long.
    pub since_ms: u64,
    /// Why.
    pub cause: String,
    /// It has slept, and says nothing until it has listened.
    pub listening: bool,
    /// Its priority.
    pub priority: u8,
    /// The protocol version.
    pub version: u8,
    /// The pause between its adverts.
    pub advert_ms: u64,
    /// The other directors of the config.
    pub peers: Vec<PeerView>,
    /// The VIPs.
    pub vips: Vec<VipView>,
    /// ARP requests for the VIPs are answered.
    pub answers_arp: bool,
    /// One for each VRID.
    pub transports: Vec<TransportView>,
    /// What the peer says on the sync path, or `silent`; absent: there is no such path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<String>,
    /// Why this director leaves a peer of lower priority in peace for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// What is broken here.
    pub faults: Vec<String>,
    /// What somebody should look at.
    pub alarms: Vec<AlarmView>,
    /// The thread behind it.
    pub timer: TimerView,
}

/// Another director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u8,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// The address with the length of its network.
    pub address: String,
    /// Its interface.
    pub interface: String,
    /// Its virtual router.
    pub vrid: u8,
}

/// A VRRP instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportView {
    /// Its interface.
    pub interface: String,
    /// Its virtual router.
    pub vrid: u8,
    /// The link carries packets.
    pub link_up: bool,
    /// What a Backup sees: `heard`, `outranked`, `resigned` or `silent`; absent in another role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sees: Option<String>,
    /// The other router that was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Ipv4Addr>,
    /// How long ago in the present role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// With which priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_priority: Option<u8>,
    /// Adverts sent.
    pub sent: u64,
    /// Adverts that could not be sent.
    pub send_errors: u64,
    /// Adverts that counted.
    pub received: u64,
    /// Of these, with the checksum computed in the other way than ours.
    pub other_checksum: u64,
    /// Packets that did not count, by reason ([`crate::vrrp::packet::DecodeError`]).
    pub ignored: BTreeMap<String, u64>,
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmView {
    /// A word for programs.
    pub name: String,
    /// A sentence for people.
    pub text: String,
}

/// The thread that keeps the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerView {
    /// It runs before ordinary threads.
    pub realtime: bool,
    /// Its memory stays.
    pub locked: bool,
    /// How often it came so late that it listened before it spoke.
    pub late: u64,
    /// The longest delay so far, in microseconds.
    pub worst_delay_us: u64,
}

/// What became of a hand-over, and of the way back if that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverAnswer {
    /// One for each change of the role.
    pub steps: Vec<FailoverStep>,
}

/// One change of the role, as far as one side can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverStep {
    /// `Active` or `Backup`: what this director is since.
    pub role: String,
    /// The other director.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Ipv4Addr>,
    /// Microseconds without a director that is Active: from the last word of the old one to the first of the new one.
    pub gap_us: u64,
    /// Conns that this director knows, before and after.
    pub conns: [u64; 2],
}

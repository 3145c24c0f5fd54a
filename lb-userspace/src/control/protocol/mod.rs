//! The control protocol, version 1: JSON lines over a unix stream.
//!
//! A request is `{"version":1,"verb":"status", …arguments}`. A single answer is `{"version":1,"ok":true,"data":…}`, a
//! refusal `{"version":1,"ok":false,"error":{"code":…,"message":…}}`. A listing verb answers with one `{"item":…}`
//! line each and closes with `{"end":true,"count":N}`; a refusal may come instead of any of its lines.
//! Readers ignore fields they do not know in answers; requests with unknown arguments are refused.

mod check;
mod error;
mod filter;
mod names;
mod request;
mod sync;
mod view;
mod vrrp;

pub use check::{CheckLine, CheckView, LeftView, ServerView};
pub use error::{ApiError, ErrorCode};
pub use filter::{AddrFilter, ConnFilter};
pub use names::parse as parse_name;
pub use request::{BackendAction, BackendCommand, Request};
pub use sync::{DiffView, SafetyView, SyncCounters, SyncPeerView, SyncView};
pub use view::{
    BackendAnswer, BackendRate, BackendTraffic, BackendView, ConnView, DropView, InterfaceView, Mode, Rate, RateView,
    ServiceView, StatsView, Status, TableView, Traffic,
};
pub use vrrp::{AlarmView, FailoverAnswer, FailoverStep, PeerView, TimerView, TransportView, VipView, VrrpView};

use serde::{Deserialize, Serialize};

/// The version of the protocol; raised when a request or an answer changes its meaning.
pub const VERSION: u32 = 1;
/// The longest request line the agent reads, in bytes without the newline.
pub const MAX_REQUEST: usize = 64 << 10;

/// A single answer on its way out.
#[derive(Serialize)]
pub(super) struct Answer<T> {
    version: u32,
    ok: bool,
    data: T,
}

impl<T> Answer<T> {
    pub(super) fn new(data: T) -> Self {
        Self { version: VERSION, ok: true, data }
    }
}

/// A refusal on its way out.
#[derive(Serialize)]
pub(super) struct Refusal<'a> {
    version: u32,
    ok: bool,
    error: &'a ApiError,
}

impl<'a> Refusal<'a> {
    pub(super) fn new(error: &'a ApiError) -> Self {
        Self { version: VERSION, ok: false, error }
    }
}

/// One element of a listing on its way out.
#[derive(Serialize)]
pub(super) struct Item<T> {
    pub(super) item: T,
}

/// The last line of a listing on its way out.
#[derive(Serialize)]
pub(super) struct End {
    end: bool,
    count: u64,
}

impl End {
    pub(super) fn new(count: u64) -> Self {
        Self { end: true, count }
    }
}

/// Any answer line, as the client reads it.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Line<T> {
    pub(super) version: Option<u32>,
    pub(super) data: Option<T>,
    pub(super) item: Option<T>,
    #[serde(default)]
    pub(super) end: bool,
    #[serde(default)]
    pub(super) count: u64,
    pub(super) error: Option<ApiError>,
}

/// Appends `value` as one line.
pub(super) fn put_line(to: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.push(b'\n');
    Ok(())
}

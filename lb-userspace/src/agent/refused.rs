//! Packets that were refused, for the log.

use lb_common::{counter::Counter, event::Event};
use tracing::debug;

/// A packet that was refused, for the log.
pub(super) fn log(event: &Event) {
    let reason = Counter::from_byte(event.reason).map_or("unknown", Counter::name);
    debug!(client = %event.key.src, port = event.key.sport, vip = %event.key.dst, reason, "refused");
}

//! The balanced traffic passes a host firewall that lets nothing in and nothing through, with no rule added for it.

use anyhow::{Context, Result, bail};

use crate::lab::Lab;

/// Does `work` while the firewall of d1 drops by policy, and checks that no packet reached the firewall. It is off
/// afterwards.
///
/// # Errors
/// Those of `work`, and when the firewall refused a packet.
pub fn behind_firewall<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let d1 = lab.d1();
    d1.firewall_default_drop()?;
    let done = work().and_then(|done| Ok((done, d1.firewall_drops()?)));
    d1.firewall_off()?;
    let (done, refused) = done.context("with the host firewall on")?;
    if refused > 0 {
        bail!("{refused} packets went up to the host firewall, and were refused there");
    }
    Ok(done)
}

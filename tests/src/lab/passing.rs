//! An XDP program that passes everything, on the switch's ports of a director that runs native XDP.
//!
//! A veth whose own program answers a packet (XDP_TX) wakes the far end only if that runs an XDP program, too
//! (`veth_xdp_flush` in `drivers/net/veth.c`); GRO there is enough for redirected packets, but not for those.

use anyhow::Result;

use super::director::Director;
use super::host::Host;
use super::program::{EXIT, Kind, set, with_pinned};

const XDP_PASS: u32 = 2;

impl Director {
    /// Lets the switch take what XDP programs of this director answer by themselves.
    ///
    /// # Errors
    /// When the kernel refuses the program, or ip cannot attach it.
    pub(crate) fn make_switch_pass(&self) -> Result<()> {
        pass_everything(self.switch(), self.ports())
    }
}

/// Attaches the program to interfaces of a host.
pub(crate) fn pass_everything(host: &Host, mut interfaces: impl Iterator<Item = String>) -> Result<()> {
    with_pinned(host, Kind::Xdp, &[set(0, XDP_PASS), EXIT], |path| {
        interfaces.try_for_each(|interface| {
            host.check(&["ip", "-force", "link", "set", "dev", &interface, "xdpdrv", "pinned", path]).map(drop)
        })
    })
}

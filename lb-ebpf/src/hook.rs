//! What the packet path needs from its hook. Two implement it: [`crate::xdp`] and [`crate::tc`].

use core::ffi::c_void;

use lb_common::{conn::Conn, counter::Counter, parse::Tcp};

/// A packet at a hook of the kernel.
pub(crate) trait Hook {
    /// The type of the hook's actions.
    type Action;
    /// Leaves the packet to the kernel.
    const PASS: Self::Action;
    /// Ends the packet.
    const DROP: Self::Action;
    /// Not an action of the kernel: asks the entry point for another run after a pull; [`Hook::PASS`] where the hook's
    /// headers are always linear.
    const PULL: Self::Action;
    /// Not an action of the kernel: asks the entry point whether the frame is complete; [`Hook::PASS`] where it always is.
    const FOREIGN: Self::Action;
    /// Not an action of the kernel: asks the entry point for [`crate::icmp`].
    const ICMP: Self::Action;
    /// Not an action of the kernel: asks the entry point for [`crate::reset`].
    const RESET: Self::Action;
    /// Not an action of the kernel: asks the entry point for [`crate::undeliverable`].
    const UNDELIVERABLE: Self::Action;
    /// This hook can translate whatever comes. One that cannot defers to one behind it.
    const COMPLETE: bool;

    /// The context, for helpers.
    fn context(&self) -> *mut c_void;

    /// First byte of the frame, and the byte behind its last.
    fn bounds(&self) -> (usize, usize);

    /// The interface the frame came in by.
    fn ingress(&self) -> u32;

    /// The frame is addressed to this host, not flooded to it.
    fn is_addressed(&self, eth: *const u8) -> bool;

    /// The packet fits through a link that takes IP packets of `mtu` bytes.
    fn fits(&self, packet: &Tcp, mtu: u16) -> bool;

    /// Rewrites IPv4 and TCP for `conn`. All checks were made: what is rewritten will be sent.
    fn rewrite(&self, packet: &Tcp, conn: &Conn) -> Result<(), Counter>;

    /// Writes the Ethernet addresses of the next hop and takes the VLAN tags of this segment off. Pointers are void
    /// after that.
    fn readdress(&self, eth: *mut u8, tags: u8, conn: &Conn) -> Result<(), Counter>;

    /// Cuts the frame to `len` bytes; pointers into it are void after that.
    fn resize(&self, len: u32) -> bool;

    /// Makes room for `len` bytes between the Ethernet header and what follows it. The Ethernet header is to be written
    /// anew; pointers into the frame are void after that.
    fn prepend(&self, len: u32) -> bool;

    /// Sends the frame back out of the interface it came in by.
    fn reflect(&self) -> Self::Action;

    /// Sends the rewritten frame out of an interface.
    fn send(&self, ifindex: u32) -> Self::Action;

    /// Sends the rewritten frame to a neighbour whose link-layer address the kernel finds out.
    fn send_unresolved(&self, ifindex: u32, gateway: u32) -> Self::Action;
}

//! The straight way: what nearly every packet is, a plain segment of an established conn or a packet of nobody's.
//!
//! Whatever is unusual about a packet is left to [`crate::datapath`], which looks at it anew: here nothing is changed
//! before everything is known to be usual. So this way stays short enough for the compiler to keep in registers what it
//! needs; on a hit it asks neither the routing table nor a clock.

use lb_common::{parse::parse_plain, tcp::flag};

use crate::{
    Verdict, datapath, forward,
    hook::Hook,
    hop,
    maps::{CONNS, CONTROL},
};

/// The verdict of a usual packet; `None` for every other one, which is untouched.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> Option<Verdict> {
    let (start, end) = hook.bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    let packet = unsafe { parse_plain(start, end) }?;
    if packet.flags & flag::STATE != 0 {
        return None;
    }
    let control = CONTROL.get(0)?;
    let key = packet.key();
    if datapath::is_foreign(control, &key) || !hook.is_addressed(packet.eth) {
        return Some(Verdict::Pass);
    }
    // SAFETY: the element is this direction's, as in `datapath`.
    let conn = unsafe { &mut *CONNS.get_ptr_mut(&key)? };
    if !hop::is_current(conn, control.hop_gen)
        || !hook.fits(&packet, conn.mtu)
        || forward::check::<H>(&packet, conn.dir).is_err()
    {
        return None;
    }
    let ifindex = conn.ifindex;
    Some(forward::translate(hook, &packet, conn).map_or_else(|verdict| verdict, |()| Verdict::Send { ifindex }))
}

//! ICMP errors about packets of a conn: translated outside and inside, both ways, so that path-MTU discovery works.

use lb_common::{
    conn::{Conn, Direction},
    counter::Counter,
    icmp::{IcmpError, Translation},
    parse::{Parsed, parse},
};

use crate::{
    Verdict, count, datapath,
    hook::Hook,
    hop,
    maps::{CONNS, CONTROL, HALF_OPEN},
};

/// Translates the error that the frame holds.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> Verdict {
    let (start, end) = hook.bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    match unsafe { parse(start, end) } {
        Parsed::IcmpError(error) => match translate(hook, &error) {
            // Nobody resets an ICMP error.
            Err(Verdict::Reset(reason)) => Verdict::Drop(reason),
            Ok(verdict) | Err(verdict) => verdict,
        },
        _ => Verdict::Pass,
    }
}

/// Translates an error about a packet of a conn; leaves every other one untouched.
#[inline(always)]
fn translate<H: Hook>(hook: &H, error: &IcmpError) -> Result<Verdict, Verdict> {
    let control = CONTROL.get(0).ok_or(Verdict::Pass)?;
    let key = error.key();
    if datapath::is_foreign(control, &key) || !hook.is_addressed(error.eth) {
        return Err(Verdict::Pass);
    }
    // The error travels with the flow that would answer the quoted packet, whose entry tells all.
    let conn = CONNS.get_ptr_mut(&key).or_else(|| HALF_OPEN.get_ptr_mut(&key)).ok_or(Verdict::Pass)?;
    // SAFETY: only the cached next hop of the entry is written, as its direction's packets do.
    let conn = unsafe { &mut *conn };
    if error.ttl() <= 1 {
        // Nobody is told about the end of an ICMP error; the kernel knows that.
        return Err(match conn.dir {
            Direction::Forward => Verdict::Drop(Counter::Ttl),
            Direction::Reverse => Verdict::Pass,
        });
    }
    if !H::COMPLETE && error.tags != 0 {
        return Err(Verdict::Defer);
    }
    let hop = hop::ensure(hook, conn, control.hop_gen)?;
    error.rewrite(&translation(error, conn), hook.bounds().1);
    hook.readdress(error.eth, error.tags, conn).map_err(Verdict::Drop)?;
    count::one(Counter::IcmpError);
    Ok(hop.verdict())
}

/// The quoted packet went the other way: what the entry makes of its sources, the quote has as its destinations.
#[inline(always)]
fn translation(error: &IcmpError, conn: &Conn) -> Translation {
    let outer_src = match conn.dir {
        // A router on the client's side speaks for itself.
        Direction::Forward => error.outer[0],
        // The client knows nobody behind the VIP.
        Direction::Reverse => conn.src.word(),
    };
    Translation {
        outer: [outer_src, conn.dst.word()],
        addrs: [conn.dst.word(), conn.src.word()],
        ports: [conn.dport.to_be(), conn.sport.to_be()],
    }
}

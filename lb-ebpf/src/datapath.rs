//! The way of a packet: parse, filter, find its conn or open one, then on to `forward`.

use lb_common::{
    conn::FlowKey,
    control::{Control, filter_bit},
    counter::Counter,
    parse::{Parsed, Tcp, parse},
    tcp::flag,
};

use crate::{
    Verdict, arp,
    closing::{self, Outcome},
    count, forward,
    hook::Hook,
    hop,
    maps::{CONNS, CONTROL},
    opening,
};

/// Translates a packet of a service or a backend; leaves every other packet untouched.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> Verdict {
    let (start, end) = hook.bounds();
    // SAFETY: the bounds are the frame's, as the hook gives them.
    match unsafe { parse(start, end) } {
        Parsed::Tcp(packet) => translate(hook, &packet).unwrap_or_else(|verdict| verdict),
        Parsed::IcmpError(_) => Verdict::Icmp,
        Parsed::ArpRequest { target } => arp::request(target),
        Parsed::Foreign => Verdict::Foreign,
        Parsed::Short => Verdict::Pull,
        // Counted by one hook only.
        Parsed::Malformed if !H::COMPLETE => Verdict::Defer,
        Parsed::Malformed => {
            count::one(Counter::Malformed);
            Verdict::Pass
        }
    }
}

/// Ends with the verdict of a translated packet, or early with that of one that is not translated.
#[inline(always)]
fn translate<H: Hook>(hook: &H, packet: &Tcp) -> Result<Verdict, Verdict> {
    let control = CONTROL.get(0).ok_or(Verdict::Pass)?;
    let key = packet.key();
    if is_foreign(control, &key) || !hook.is_addressed(packet.eth) {
        return Err(Verdict::Pass);
    }
    // One lookup by the packet's own 5-tuple finds either direction.
    let found = match CONNS.get_ptr_mut(&key) {
        Some(conn) => {
            // SAFETY: as below.
            let entry = unsafe { &mut *conn };
            forward::check::<H>(packet, entry.dir)?;
            if hop::is_current(entry, control.hop_gen) {
                forward::check_length(hook, packet, entry)?;
            } else {
                forward::catch_up(packet, entry);
            }
            let goes_on = packet.flags & flag::STATE == 0 || closing::note(packet, &key, entry) == Outcome::Continue;
            goes_on.then_some(conn)
        }
        None => None,
    };
    let conn = match found {
        Some(conn) => conn,
        None => opening::find::<H>(packet, control, &key)?,
    };
    // SAFETY: the element is this direction's, so that no other packet writes it. A slot that the agent's sweep frees
    // meanwhile may be taken by a new conn, which survives what this packet then writes: its own next packet
    // overwrites it.
    forward::packet(hook, packet, control, unsafe { &mut *conn })
}

/// Neither end is a service or a backend.
#[inline(always)]
pub(crate) fn is_foreign(control: &Control, key: &FlowKey) -> bool {
    !admitted(control, filter_bit(key.dst.word(), key.dport))
        && !admitted(control, filter_bit(key.src.word(), key.sport))
}

#[inline(always)]
fn admitted(control: &Control, bit: u32) -> bool {
    // SAFETY: `filter_bit` is below 1024, so the index is below 16; the shift in the index shows it to the verifier.
    let word = unsafe { *control.filter.as_ptr().add((bit >> 6) as usize) };
    word >> (bit & 63) & 1 != 0
}

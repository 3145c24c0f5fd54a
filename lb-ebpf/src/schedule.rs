//! The scheduler: a ring of backend ids, and an index into it.

use lb_common::{
    addr::Ipv4,
    service::{Scheduler, Service},
};

use crate::{
    atomic,
    maps::{CURSORS, RINGS},
};

/// The id of the backend for a new conn of `client`; `None` if no backend takes new conns.
#[inline(always)]
pub(crate) fn pick(service: &Service, client: Ipv4) -> Option<u16> {
    if service.ring_len == 0 {
        return None;
    }
    let index = match service.scheduler {
        Scheduler::Sh | Scheduler::Mh => u64::from(client.word().wrapping_mul(0x9e37_79b1) >> 8),
        // lc and wlc are refused by the agent until the packet path counts active conns.
        Scheduler::Rr | Scheduler::Wrr | Scheduler::Lc | Scheduler::Wlc => {
            let cursor = CURSORS.get_ptr_mut(u32::from(service.id))?;
            // SAFETY: an aligned word of an array element.
            unsafe { atomic::fetch_add(&raw mut (*cursor).next, 1) }
        }
    };
    let slot = service.ring_start + (index % u64::from(service.ring_len)) as u32;
    RINGS.get(slot).map(|slot| slot.backend as u16)
}

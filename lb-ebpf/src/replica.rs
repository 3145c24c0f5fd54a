//! Writes the conns that connection sync brings. See [`lb_common::replica`].

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    MapType as _,
    addr::Ipv4,
    conn::{Conn, Direction, FlowKey, Origin, Proto, once},
    replica::{BATCH, Op, Outcome, Request},
    seq,
    tcp::State,
    word,
};

use crate::{atomic, load, maps::CONNS};

const BPF_NOEXIST: u64 = 1;
/// The word of an entry that holds its flags.
const SEEN_WORD: usize = offset_of!(Conn, seen) & !7;
const SEEN_SHIFT: usize = 8 * (offset_of!(Conn, seen) & 7);

/// Carries out the requests that lie in the frame, and writes into each what became of it.
///
/// Nothing is counted: to the verifier of Linux 6.1, each way to a number would be one to look at.
#[inline(always)]
pub(crate) fn batch(ctx: *mut xdp_md, nth: extern "C" fn(*mut xdp_md, u32) -> u32) {
    for index in 0..BATCH as u32 {
        if nth(ctx, index) == BEYOND {
            break;
        }
    }
}

/// There is no such request in the frame.
const BEYOND: u32 = 0;

/// Carries out the request of this number; answers [`BEYOND`], or something else.
#[inline(always)]
pub(crate) fn nth(ctx: *mut xdp_md, index: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let index = index as usize;
    if index >= BATCH {
        return BEYOND;
    }
    let at = ctx.data() + index * Request::SIZE;
    if at + Request::SIZE > ctx.data_end() {
        return BEYOND;
    }
    let at = at as *mut u8;
    // SAFETY: the bound was checked.
    let outcome = unsafe { one(at) };
    // SAFETY: within the request.
    unsafe { word::store(at.add(offset_of!(Request, outcome)), outcome as u8) };
    BEYOND + 1
}

/// A field of the request at `at`.
macro_rules! field {
    ($at:expr, $field:ident: $type:ty) => {
        read::<$type>($at, offset_of!(Request, $field))
    };
}

/// A number of the request at `at`, where everyone here says that one lies.
#[inline(always)]
fn read<T: Copy>(at: *const u8, offset: usize) -> T {
    // SAFETY: within the request, and any bits are a number.
    unsafe { word::load::<T>(at.add(offset)) }
}

/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn one(at: *const u8) -> Outcome {
    let mut key = MaybeUninit::<FlowKey>::uninit();
    for word in 0..FlowKey::SIZE / 4 {
        // SAFETY: within both.
        unsafe { key.as_mut_ptr().cast::<u32>().add(word).write(word::load(at.add(4 * word))) };
    }
    // SAFETY: every byte was written. The protocol's byte is only compared by the map, never read as the enum.
    let key = unsafe { key.assume_init_ref() };
    let op = field!(at, op: u8);
    let proto = read::<u8>(at, offset_of!(Request, key) + offset_of!(FlowKey, proto));
    if op > Op::Retire as u8 || proto != Proto::Tcp as u8 {
        return Outcome::Nothing;
    }
    let own = atomic::opaque(CONNS.get_ptr_mut(key).unwrap_or(core::ptr::null_mut()));
    if op == Op::Update as u8 {
        // SAFETY: an element, if it is there at all.
        return if own.is_null() { Outcome::Nothing } else { unsafe { update(at, &mut *own) } };
    }
    if !own.is_null() {
        // SAFETY: as above.
        let other_key = unsafe { (*own).other_key() };
        // SAFETY: as above.
        if !unsafe { may_go(at, op, &*own, &other_key) } {
            return Outcome::Kept;
        }
        // SAFETY: the forward entry of this conn.
        unsafe { load::uncount(own) };
        let _ = (CONNS.remove(key), CONNS.remove(&other_key));
    }
    if op == Op::Create as u8 {
        // SAFETY: upheld by the caller.
        return unsafe { create(at, key) };
    }
    if own.is_null() { Outcome::Nothing } else { Outcome::Done }
}

/// The agent knows all there is to know about the conn; or it is over, which is enough for all but [`Op::Retire`].
///
/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn may_go(at: *const u8, op: u8, own: &Conn, other_key: &FlowKey) -> bool {
    let (mut peer_seen, mut last) = (0, own.last_seen);
    if let Some(other) = CONNS.get_ptr(other_key) {
        // SAFETY: the other entry is only read.
        let (seen, other_last) = unsafe { ((*other).seen, (*other).last_seen) };
        peer_seen = seen;
        if seq::after(other_last, last) {
            last = other_last;
        }
    }
    if field!(at, knows: u16) == 0 {
        return false;
    }
    let over = op != Op::Retire as u8 && matches!(State::of(own.seen, peer_seen), State::TimeWait | State::Close);
    over || !seq::after(last, field!(at, known: u32))
}

/// Writes both entries.
///
/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn create(at: *const u8, key: &FlowKey) -> Outcome {
    let (forward_seen, reverse_seen) = (field!(at, forward_seen: u8), field!(at, reverse_seen: u8));
    let active = State::of(forward_seen, reverse_seen).is_active();
    let backend = Ipv4::from_word(field!(at, backend_addr: u32));
    let (backend_port, client_port) = (field!(at, backend_port: u16), field!(at, client_port: u16));
    let id = field!(at, backend: u16);
    let mut entry = MaybeUninit::<Conn>::uninit();
    let conn = entry.as_mut_ptr();
    // SAFETY: each field is written once. Zeros are volatile: otherwise they become a call to memset.
    unsafe {
        (&raw mut (*conn).src).write(key.dst);
        (&raw mut (*conn).dst).write(key.src);
        (&raw mut (*conn).sport).write(key.dport);
        (&raw mut (*conn).dport).write(key.sport);
        (&raw mut (*conn).backend).write(id);
        (&raw mut (*conn).dir).write(Direction::Reverse);
        (&raw mut (*conn).seen).write(reverse_seen);
        let macs = (&raw mut (*conn).macs).cast::<u32>();
        macs.write_volatile(0);
        macs.add(1).write_volatile(0);
        macs.add(2).write_volatile(0);
        (&raw mut (*conn).ifindex).write_volatile(0);
        // The first packet looks for its way.
        (&raw mut (*conn).hop_gen).write_volatile(0);
        (&raw mut (*conn).last_seen).write(field!(at, reverse_last: u32));
        (&raw mut (*conn).ack).write(field!(at, reverse_ack: u32));
        (&raw mut (*conn).seq).write(field!(at, reverse_seq: u32));
        (&raw mut (*conn).created).write(field!(at, created: u32));
        (&raw mut (*conn).origin).write(Origin::Peer);
        (&raw mut (*conn).once).write(if active { 0 } else { once::UNCOUNTED });
        (&raw mut (*conn).mtu).write_volatile(0);
        (&raw mut (*conn).bytes).write_volatile(0);
    }
    let other_key = FlowKey::tcp(backend, backend_port, key.src, client_port);
    // SAFETY: every field was written.
    if CONNS.insert(&other_key, unsafe { entry.assume_init_ref() }, BPF_NOEXIST).is_err() {
        return Outcome::Full;
    }
    // SAFETY: as above; the same fields once more.
    unsafe {
        (&raw mut (*conn).src).write(key.src);
        (&raw mut (*conn).dst).write(backend);
        (&raw mut (*conn).sport).write(client_port);
        (&raw mut (*conn).dport).write(backend_port);
        (&raw mut (*conn).dir).write(Direction::Forward);
        (&raw mut (*conn).seen).write(forward_seen);
        (&raw mut (*conn).last_seen).write(field!(at, forward_last: u32));
        (&raw mut (*conn).ack).write(field!(at, forward_ack: u32));
        (&raw mut (*conn).seq).write(field!(at, forward_seq: u32));
    }
    // SAFETY: as above.
    if CONNS.insert(key, unsafe { entry.assume_init_ref() }, BPF_NOEXIST).is_err() {
        let _ = CONNS.remove(&other_key);
        return Outcome::Full;
    }
    if active {
        load::count(id);
    }
    Outcome::Done
}

/// Adds what the other director has seen of a conn that is here.
///
/// # Safety
///
/// A request lies at `at`.
#[inline(always)]
unsafe fn update(at: *const u8, own: &mut Conn) -> Outcome {
    let same = own.dst.word() == field!(at, backend_addr: u32)
        && own.dport == field!(at, backend_port: u16)
        && own.sport == field!(at, client_port: u16)
        && is_near(own.created, field!(at, created: u32), field!(at, known: u32));
    if !same {
        return Outcome::Nothing;
    }
    let Some(other) = CONNS.get_ptr_mut(&own.other_key()) else { return Outcome::Nothing };
    // SAFETY: an element; its flags are added atomically, the rest is explained at `advance`.
    let other = unsafe { &mut *other };
    let before = State::of(own.seen, other.seen);
    // SAFETY: both are elements.
    unsafe {
        add_flags(own, field!(at, forward_seen: u8));
        add_flags(other, field!(at, reverse_seen: u8));
    }
    advance(own, field!(at, forward_last: u32), field!(at, forward_ack: u32), field!(at, forward_seq: u32));
    advance(other, field!(at, reverse_last: u32), field!(at, reverse_ack: u32), field!(at, reverse_seq: u32));
    if before.is_active() && !State::of(own.seen, other.seen).is_active() {
        // SAFETY: the forward entry.
        unsafe { load::uncount(own) };
    }
    Outcome::Done
}

/// Two moments are no further apart than that.
#[inline(always)]
fn is_near(a: u32, b: u32, slack: u32) -> bool {
    a.wrapping_sub(b).wrapping_add(slack) <= slack.wrapping_mul(2)
}

/// # Safety
///
/// `entry` is an element of `conns`.
#[inline(always)]
unsafe fn add_flags(entry: *mut Conn, seen: u8) {
    // SAFETY: an aligned word within the element.
    unsafe { atomic::fetch_or(entry.cast::<u8>().add(SEEN_WORD).cast(), u64::from(seen) << SEEN_SHIFT) };
}

/// Lets the numbers and times of an entry go forward, unless its own packets are ahead of them: then they are its own.
///
/// Its packets go by the other director, and what is told of them comes late. So the first one that comes here looks for
/// its way anew, and is believed whatever its numbers are (see `forward::catch_up`).
#[inline(always)]
fn advance(entry: &mut Conn, last: u32, ack: u32, seq: u32) {
    if !seq::after(last, entry.last_seen) {
        return;
    }
    entry.last_seen = last;
    entry.hop_gen = 0;
    entry.origin = Origin::Peer;
    if ack != seq::UNKNOWN {
        entry.ack = ack;
    }
    if seq != seq::UNKNOWN {
        entry.seq = seq;
    }
}

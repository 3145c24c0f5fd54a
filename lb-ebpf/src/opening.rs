//! Packets without an established conn: those of a service open one, complete its handshake or are refused.
//! Each function ends with the entry that the packet goes on with, or early with the packet's verdict.
//!
//! A conn is half-open until the client acknowledges the backend's SYN. Half-open conns live in a bounded LRU table of
//! their own, so that a SYN flood can neither evict nor block an established one.

use lb_common::{
    backend::{Backend, BackendState},
    conn::{Conn, Direction, FlowKey, Origin, once},
    control::Control,
    counter::Counter,
    event::EventKind,
    parse::Tcp,
    service::{Refusal, Service, ServiceKey},
    tcp::{State, flag},
};

use crate::{
    Verdict, clock, closing, count,
    events::{self, Progress},
    forward,
    hook::Hook,
    hop, load,
    maps::{BACKENDS, CONNS, HALF_OPEN, SERVICES},
    schedule::{self, Pick},
};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
/// Source ports tried towards a backend before a conn is refused.
const PORT_TRIES: u16 = 4;
const SYN_ACK: u8 = flag::SYN | flag::ACK;

/// The entry of a packet that no established conn claims.
#[inline(always)]
pub(crate) fn find<H: Hook>(packet: &Tcp, control: &Control, key: &FlowKey) -> Result<*mut Conn, Verdict> {
    // SAFETY: the service is only read.
    match unsafe { SERVICES.get(&ServiceKey::tcp(key.dst, key.dport)) } {
        Some(service) => {
            forward::check::<H>(packet, Direction::Forward)?;
            for_service(packet, control, key, service)
        }
        None => {
            let conn = HALF_OPEN.get_ptr_mut(key).ok_or(Verdict::Pass)?;
            forward::check::<H>(packet, Direction::Reverse)?;
            // SAFETY: the entry is this direction's.
            if unsafe { (*conn).once } & once::REFUSED != 0 {
                let told = packet.flags & flag::RST == 0;
                return Err(if told { Verdict::Reset(Counter::ResetFull) } else { Verdict::Drop(Counter::ResetFull) });
            }
            // SAFETY: the entry is this direction's.
            from_backend(packet, unsafe { &mut *conn });
            Ok(conn)
        }
    }
}

/// Notes a backend's packet during the handshake.
#[inline(always)]
fn from_backend(packet: &Tcp, conn: &mut Conn) {
    if packet.flags & SYN_ACK == SYN_ACK {
        // Where the backend's numbers start: the client's ACK must name exactly the next one.
        conn.seq = packet.seq_end();
        conn.seen |= SYN_ACK;
    }
    conn.seen |= packet.flags & flag::RST;
}

/// A packet for a service.
#[inline(always)]
fn for_service(packet: &Tcp, control: &Control, key: &FlowKey, service: &Service) -> Result<*mut Conn, Verdict> {
    if let Some(conn) = HALF_OPEN.get_ptr_mut(key) {
        // SAFETY: the entry is this direction's.
        let conn = unsafe { &mut *conn };
        let other_key = conn.other_key();
        match HALF_OPEN.get_ptr(&other_key) {
            // SAFETY: the other entry is only read.
            Some(other) => match unsafe { step(packet, control, conn, &*other) } {
                Step::Forward => return Ok(conn),
                Step::Complete => return complete(packet, key, service, conn, &other_key),
                Step::Refuse => return Err(Verdict::Drop(Counter::BadHandshake)),
                Step::Restart => {
                    let _ = (HALF_OPEN.remove(key), HALF_OPEN.remove(&other_key));
                }
            },
            // The other entry was evicted: the backend's answers could not find their way.
            None => {
                let _ = HALF_OPEN.remove(key);
            }
        }
    }
    if packet.flags & (SYN_ACK | flag::RST | flag::FIN) == flag::SYN {
        return open(packet, key, service);
    }
    events::refused(EventKind::Miss, key, service, Counter::NoConn);
    Err(match service.no_conn {
        Refusal::Rst if packet.flags & flag::RST == 0 => Verdict::Reset(Counter::ResetNoConn),
        _ => Verdict::Drop(Counter::NoConn),
    })
}

/// What a client's packet means for its half-open conn.
enum Step {
    /// It goes on to the backend.
    Forward,
    /// It completes the handshake.
    Complete,
    /// It acknowledges something the backend never sent.
    Refuse,
    /// The conn is dead; whatever this packet is, it starts from nothing.
    Restart,
}

#[inline(always)]
fn step(packet: &Tcp, control: &Control, conn: &Conn, other: &Conn) -> Step {
    if clock::now().wrapping_sub(conn.last_seen) > control.syn_recv_jiffies {
        return Step::Restart;
    }
    if packet.flags & flag::RST != 0 {
        return Step::Forward;
    }
    if packet.flags & SYN_ACK == flag::SYN {
        // The same SYN again, or another attempt on the same port. A backend that has died meanwhile gets neither.
        if packet.seq_end() == conn.seq && other.seen & flag::RST == 0 && !is_down(conn.backend) {
            count::one(Counter::SynAgain);
            return Step::Forward;
        }
        return Step::Restart;
    }
    if packet.flags & SYN_ACK == flag::ACK && other.seen & SYN_ACK == SYN_ACK && packet.ack() == other.seq {
        return Step::Complete;
    }
    Step::Refuse
}

#[inline(always)]
fn is_down(backend: u16) -> bool {
    BACKENDS.get(u32::from(backend)).is_some_and(|backend| matches!(backend.state, BackendState::Down))
}

/// Moves a conn from the half-open to the established table.
#[inline(always)]
fn complete(
    packet: &Tcp,
    key: &FlowKey,
    service: &Service,
    conn: &mut Conn,
    other_key: &FlowKey,
) -> Result<*mut Conn, Verdict> {
    let other = HALF_OPEN.get_ptr(other_key).ok_or(Verdict::Drop(Counter::NoConn))?;
    // SAFETY: the other entry is only read.
    let peer = unsafe { Progress::of(&*other) };
    // The backend may have reset the conn meanwhile: then it is closed from the start, and no load.
    let active = State::of(flag::SYN | flag::ACK, peer.seen).is_active();
    conn.seen = flag::SYN | flag::ACK;
    if active && !load::admit(conn.backend) {
        // The backend has not heard of the client's ACK, so to its server the conn never was. It will ask again.
        if let Some(other) = HALF_OPEN.get_ptr_mut(other_key) {
            // SAFETY: a byte of an element that no other packet writes during the handshake.
            unsafe { (*other).once |= once::REFUSED };
        }
        let _ = HALF_OPEN.remove(key);
        events::refused(EventKind::Refused, key, service, Counter::ResetFull);
        return Err(Verdict::Reset(Counter::ResetFull));
    }
    conn.once = if active { 0 } else { once::UNCOUNTED };
    forward::learn(packet, conn);
    conn.last_seen = clock::now();
    // The values go from table to table without a copy on the stack.
    // SAFETY: both are elements of `half_open`, which are not removed before the end of the copy.
    let moved = unsafe { CONNS.insert(other_key, &*other, BPF_NOEXIST) };
    if moved.is_err() || CONNS.insert(key, &*conn, BPF_NOEXIST).is_err() {
        if moved.is_ok() {
            let _ = CONNS.remove(other_key);
        }
        conn.seen = flag::SYN;
        if active {
            load::dismiss(conn.backend);
        }
        events::refused(EventKind::Refused, key, service, Counter::TableFull);
        return Err(Verdict::Drop(Counter::TableFull));
    }
    count::one(Counter::Established);
    events::conn(EventKind::Established, key, conn, &peer);
    let _ = (HALF_OPEN.remove(key), HALF_OPEN.remove(other_key));
    let conn = CONNS.get_ptr_mut(key).ok_or(Verdict::Drop(Counter::NoConn))?;
    if packet.flags & flag::STATE != 0 {
        // A client may close with the packet that completes the handshake.
        // SAFETY: the entry is this direction's.
        closing::note(packet, key, unsafe { &mut *conn });
    }
    Ok(conn)
}

/// Opens a conn to a backend of the scheduler's choice, or refuses it.
#[inline(always)]
fn open(packet: &Tcp, key: &FlowKey, service: &Service) -> Result<*mut Conn, Verdict> {
    let (reason, refusal) = match schedule::pick(service, key.src) {
        Pick::Backend(id) => match BACKENDS.get(u32::from(id)) {
            Some(backend) => return open_to(packet, key, service, id, backend),
            None => (Counter::NoBackend, service.no_backend),
        },
        Pick::Nobody => (Counter::NoBackend, service.no_backend),
        // Who waits for a place would wait in vain.
        Pick::Full => (Counter::ResetFull, Refusal::Rst),
    };
    events::refused(EventKind::Refused, key, service, reason);
    Err(match refusal {
        Refusal::Rst => Verdict::Reset(reason),
        Refusal::Drop => Verdict::Drop(reason),
    })
}

/// Opens a conn: writes both half-open entries.
#[inline(always)]
fn open_to(packet: &Tcp, key: &FlowKey, service: &Service, id: u16, backend: &Backend) -> Result<*mut Conn, Verdict> {
    let now = clock::now();
    let mut entry = Conn {
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
        backend: id,
        dir: Direction::Reverse,
        seen: 0,
        macs: hop::unset(packet),
        ifindex: 0,
        hop_gen: 0,
        last_seen: now,
        ack: packet.seq_end(),
        seq: 0,
        created: now,
        origin: Origin::Local,
        once: 0,
        // As `macs`: no run of zeros.
        mtu: packet.ip_len,
        bytes: 0,
    };
    // Two services may share a backend: then the same client port would make one key of two conns.
    let mut other_key = FlowKey::tcp(backend.addr, backend.port, key.src, key.sport);
    let mut attempt = 0;
    while CONNS.get_ptr(&other_key).is_some() || HALF_OPEN.insert(&other_key, &entry, BPF_NOEXIST).is_err() {
        attempt += 1;
        if attempt == PORT_TRIES {
            events::refused(EventKind::Refused, key, service, Counter::PortCollision);
            return Err(Verdict::Drop(Counter::PortCollision));
        }
        other_key.dport = (key.sport ^ attempt.wrapping_mul(0x3a5b)) | 0x0400;
    }
    if attempt != 0 {
        count::one(Counter::PortRemapped);
    }
    entry.src = key.src;
    entry.dst = backend.addr;
    entry.sport = other_key.dport;
    entry.dport = backend.port;
    entry.dir = Direction::Forward;
    entry.seen = flag::SYN;
    entry.ack = 0;
    entry.seq = packet.seq_end();
    if HALF_OPEN.insert(key, &entry, BPF_ANY).is_err() {
        let _ = HALF_OPEN.remove(&other_key);
        return Err(Verdict::Drop(Counter::HalfOpenFull));
    }
    count::opened(id);
    HALF_OPEN.get_ptr_mut(key).ok_or(Verdict::Drop(Counter::HalfOpenFull))
}

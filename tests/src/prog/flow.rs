//! One conn, as a test sees it: its ends, what each side has sent, its packets and its two entries in the tables.
//!
//! This is the expected state, written from the design; nothing here asks the program how it would do it.

use std::net::SocketAddrV4;

use lb_common::{
    addr::{Ipv4, MacPair},
    conn::{Conn, Direction, FlowKey, Origin, once},
    event::{Event, EventKind},
    tcp::State,
};

use super::{
    network::{EXT_MAC, INT_MAC, Port, VIP, mac_of},
    site::Site,
};
use crate::packet::{Icmp, Packet, Tcp, ToEnd, flag, icmp_error, tcp};

/// The client's initial sequence number.
pub const CLIENT_ISN: u32 = 1000;
/// The backend's initial sequence number.
pub const BACKEND_ISN: u32 = 500_000;

/// What one side of a conn has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The flags.
    pub seen: u8,
    /// The sequence number of its next byte.
    pub seq: u32,
    /// Its last acknowledgement number.
    pub ack: u32,
    /// Bytes of its IP packets.
    pub bytes: u64,
    /// The entry holds a valid next hop.
    pub hop: bool,
}

/// A conn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub client: SocketAddrV4,
    /// The service.
    pub service: SocketAddrV4,
    /// The backend.
    pub backend: SocketAddrV4,
    /// The client's port as the backend sees it.
    pub client_port: u16,
    /// The backend's id.
    pub backend_id: u16,
    /// The service's id.
    pub service_id: u16,
    /// What the client has sent.
    pub forward: Side,
    /// What the backend has sent.
    pub reverse: Side,
    /// The handshake is not complete.
    pub half_open: bool,
    /// Jiffies since its last packet, when a test puts it into the tables.
    pub age: u32,
    /// The longest packet that the links on its way take.
    pub mtu: u16,
}

impl Flow {
    /// A conn of `site` that the client has just opened: its SYN is through, nothing came back.
    #[must_use]
    #[track_caller]
    pub fn opened(site: &Site, client: &str, service: &str, backend: &str) -> Self {
        let (client, service, backend) = (client.to_end(), service.to_end(), backend.to_end());
        let service_id = site.service_id(service);
        let nothing = Side { seen: 0, seq: 0, ack: 0, bytes: 0, hop: false };
        let flow = Self {
            client,
            service,
            backend,
            client_port: client.port(),
            backend_id: site.backend_id(service_id, backend),
            service_id,
            forward: nothing,
            reverse: nothing,
            half_open: true,
            age: 1000,
            mtu: 1500,
        };
        flow.opened_by(&flow.client_syn())
    }

    /// The same conn at its start, when this SYN is through.
    #[must_use]
    pub fn opened_by(&self, syn: &Packet<Tcp>) -> Self {
        let nothing = Side { seen: 0, seq: 0, ack: 0, bytes: 0, hop: false };
        let reverse = Side { ack: syn.seq_end(), ..nothing };
        Self { forward: nothing, reverse, half_open: true, ..self.clone() }.after(syn)
    }

    /// A conn of the classic setup, from `client` to `backend` through the VIP.
    #[must_use]
    #[track_caller]
    pub fn mysql(client: &str, backend: &str) -> Self {
        Self::opened(&Site::mysql(), client, &format!("{VIP}:3306"), &format!("{backend}:3306"))
    }

    /// The backend has answered with SYN+ACK.
    #[must_use]
    pub fn answered(&self) -> Self {
        self.after(&self.backend_syn_ack())
    }

    /// The handshake is complete.
    #[must_use]
    pub fn established(&self) -> Self {
        let flow = self.answered();
        flow.after(&flow.client_ack())
    }

    /// An established conn that has come to `state`, each side having acknowledged all it has got.
    #[must_use]
    pub fn in_state(&self, state: State) -> Self {
        let flow = self.established();
        let client_closes = |flow: &Self| flow.after(&flow.client_ack().fin());
        let backend_closes = |flow: &Self| flow.after(&flow.backend_ack().fin());
        match state {
            State::SynRecv | State::Established => flow,
            State::FinWait => {
                let flow = backend_closes(&flow);
                flow.after(&flow.client_ack())
            }
            State::CloseWait => {
                let flow = client_closes(&flow);
                flow.after(&flow.backend_ack())
            }
            State::TimeWait => {
                let flow = backend_closes(&client_closes(&flow));
                flow.after(&flow.client_ack())
            }
            State::Close => flow.after(&flow.client_ack().rst()).client_sent(flag::RST),
        }
    }

    /// The same conn with another client port towards the backend.
    #[must_use]
    pub fn remapped_to(&self, client_port: u16) -> Self {
        Self { client_port, ..self.clone() }
    }

    /// Its next hops are those of an older generation.
    #[must_use]
    pub fn without_hops(&self) -> Self {
        let mut flow = self.clone();
        (flow.forward.hop, flow.reverse.hop) = (false, false);
        flow
    }

    /// The last packet is `jiffies` ago when the test starts.
    #[must_use]
    pub fn aged(&self, jiffies: u32) -> Self {
        Self { age: jiffies, ..self.clone() }
    }

    /// Its way takes packets of another length than the test network's.
    #[must_use]
    pub fn over(&self, mtu: u16) -> Self {
        Self { mtu, ..self.clone() }
    }

    /// With these flags added to what the client has sent.
    #[must_use]
    pub fn client_sent(&self, flags: u8) -> Self {
        let mut flow = self.clone();
        flow.forward.seen |= flags;
        flow
    }

    /// With these flags added to what the backend has sent.
    #[must_use]
    pub fn backend_sent(&self, flags: u8) -> Self {
        let mut flow = self.clone();
        flow.reverse.seen |= flags;
        flow
    }

    /// After `packet` of its own went through: numbers, bytes and flags of the packet's side. What a RST means is for
    /// the row to say.
    #[must_use]
    pub fn after(&self, packet: &Packet<Tcp>) -> Self {
        let mut flow = self.clone();
        let forward = self.direction_of(packet) == Direction::Forward;
        let (side, peer) =
            if forward { (&mut flow.forward, &flow.reverse) } else { (&mut flow.reverse, &flow.forward) };
        let flags = packet.flag_bits();
        let syn_ack = flags & flag::SYN != 0 && flags & flag::ACK != 0;
        side.bytes += u64::from(packet.claimed_len());
        side.hop = true;
        // A backend's SYN+ACK says where its numbers start, whatever was known before; so does the first packet.
        let starts = side.bytes == u64::from(packet.claimed_len()) || (self.half_open && !forward && syn_ack);
        side.seq = if starts { packet.seq_end() } else { later(side.seq, packet.seq_end()) };
        side.ack = packet.acknowledges().map_or(side.ack, |ack| later(side.ack, ack));
        // Before the handshake is through, a backend's other packets (an ACK of another life) say nothing.
        if flags & flag::RST == 0 && (forward || !self.half_open || syn_ack) {
            side.seen |= flags & (flag::SYN | flag::ACK | flag::FIN);
        }
        // The client's ACK of the backend's SYN completes the handshake.
        if forward && flags & (flag::SYN | flag::RST | flag::ACK) == flag::ACK && peer.seen & flag::SYN != 0 {
            flow.half_open = false;
        }
        flow
    }

    /// After `packet` of its own went through, which tells nothing new or nothing credible: only the packet's side's
    /// bytes have changed.
    #[must_use]
    pub fn after_stale(&self, packet: &Packet<Tcp>) -> Self {
        let (mut flow, before) = (self.after(packet), self);
        let bytes = (flow.forward.bytes, flow.reverse.bytes);
        (flow.forward, flow.reverse) = (before.forward, before.reverse);
        (flow.forward.bytes, flow.reverse.bytes) = bytes;
        flow
    }

    /// A packet from the client with its next sequence number, without flags.
    #[must_use]
    pub fn client(&self) -> Packet<Tcp> {
        tcp()
            .from(self.client)
            .to(self.service)
            .macs(mac_of(&self.client.ip().to_string()), EXT_MAC)
            .seq(self.forward.seq)
    }

    /// The client's SYN.
    #[must_use]
    pub fn client_syn(&self) -> Packet<Tcp> {
        self.client().syn().seq(CLIENT_ISN)
    }

    /// A packet from the client that acknowledges all the backend has sent.
    #[must_use]
    pub fn client_ack(&self) -> Packet<Tcp> {
        self.client().ack(self.reverse.seq)
    }

    /// A packet from the backend with its next sequence number, without flags.
    #[must_use]
    pub fn backend(&self) -> Packet<Tcp> {
        let (host, port) = self.way(self.backend);
        tcp()
            .from(self.backend)
            .to((*self.client.ip(), self.client_port))
            .macs(host, port_mac(port))
            .seq(self.reverse.seq)
    }

    /// The backend's answer to the SYN.
    #[must_use]
    pub fn backend_syn_ack(&self) -> Packet<Tcp> {
        self.backend().syn().seq(BACKEND_ISN).ack(self.forward.seq)
    }

    /// A packet from the backend that acknowledges all the client has sent.
    #[must_use]
    pub fn backend_ack(&self) -> Packet<Tcp> {
        self.backend().ack(self.forward.seq)
    }

    /// Which way a packet of this conn goes.
    ///
    /// # Panics
    ///
    /// If it is no packet of this conn.
    #[must_use]
    #[track_caller]
    pub fn direction_of(&self, packet: &Packet<Tcp>) -> Direction {
        match packet.ends() {
            ends if ends == (self.client, self.service) => Direction::Forward,
            ends if ends == (self.backend, self.seen_client()) => Direction::Reverse,
            (src, dst) => panic!("{src} > {dst} is no packet of {self:?}"),
        }
    }

    /// The packet as it leaves: NAT, one hop less, the next hop's link-layer addresses, no VLAN tags.
    #[must_use]
    #[track_caller]
    pub fn translated(&self, packet: &Packet<Tcp>) -> Packet<Tcp> {
        let error = packet.checksum_error();
        let (src, dst) = match self.direction_of(packet) {
            Direction::Forward => (self.seen_client(), self.backend),
            Direction::Reverse => (self.service, self.client),
        };
        let (next, port) = self.way(dst);
        packet.clone().from(src).to(dst).one_hop_on().macs(port_mac(port), next).untagged().checksum_off_by(error)
    }

    /// The director's own ICMP error about a packet of this conn, from the VIP, quoting as little as RFC 792 asks for.
    /// `error` is its type and code, `mtu` that of the next hop or 0.
    #[must_use]
    pub fn error_about(&self, packet: &Packet<Tcp>, error: (u8, u8), mtu: u16) -> Packet<Icmp> {
        let (to, _) = packet.ends();
        let (mac_src, mac_dst) = packet.link();
        let quote = packet.transport_offset() - 14 + 8;
        icmp_error(error.0, error.1, mtu, &packet.ip_bytes())
            .quotes(quote)
            .from(*self.service.ip())
            .to(*to.ip())
            .tos(0xc0)
            .id(0)
            .macs(mac_dst, mac_src)
    }

    /// The port by which its packets leave.
    #[must_use]
    pub fn egress(&self, dir: Direction) -> Port {
        match dir {
            Direction::Forward => self.way(self.backend).1,
            Direction::Reverse => self.way(self.client).1,
        }
    }

    /// The client as the backend sees it.
    fn seen_client(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.client.ip(), self.client_port)
    }

    /// The next hop towards one end of the conn.
    fn way(&self, end: SocketAddrV4) -> ([u8; 6], Port) {
        let port = if end.ip().octets()[0] != 192 { Port::Ext } else { Port::Int };
        (mac_of(&end.ip().to_string()), port)
    }

    /// The keys of its forward and its reverse entry.
    #[must_use]
    pub fn keys(&self) -> [FlowKey; 2] {
        let key =
            |a: SocketAddrV4, b: SocketAddrV4| FlowKey::tcp((*a.ip()).into(), a.port(), (*b.ip()).into(), b.port());
        [key(self.client, self.service), key(self.backend, self.seen_client())]
    }

    /// Its entries. `last_seen` and `created` are 0, and so is all that hangs on a next hop which is not valid.
    #[must_use]
    pub fn entries(&self) -> [(FlowKey, Conn); 2] {
        let entry = |side: Side, dir: Direction, src: SocketAddrV4, dst: SocketAddrV4| {
            let (next, port) = self.way(dst);
            let (macs, ifindex, hop_gen, mtu) = match side.hop {
                true => (MacPair { dst: next, src: port_mac(port) }, port.ifindex(), 1, self.mtu),
                false => (MacPair::default(), 0, 0, 0),
            };
            Conn {
                src: Ipv4::from(*src.ip()),
                dst: Ipv4::from(*dst.ip()),
                sport: src.port(),
                dport: dst.port(),
                backend: self.backend_id,
                dir,
                seen: side.seen,
                macs,
                ifindex,
                hop_gen,
                last_seen: 0,
                ack: side.ack,
                seq: side.seq,
                created: 0,
                origin: Origin::Local,
                once: if dir == Direction::Forward && self.is_closing() { once::UNCOUNTED } else { 0 },
                mtu,
                bytes: side.bytes,
            }
        };
        let [forward, reverse] = self.keys();
        [
            (forward, entry(self.forward, Direction::Forward, self.seen_client(), self.backend)),
            (reverse, entry(self.reverse, Direction::Reverse, self.service, self.client)),
        ]
    }

    /// The state that both sides' flags make.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.forward.seen, self.reverse.seen)
    }

    /// Was established and is no longer.
    fn is_closing(&self) -> bool {
        !self.half_open && !self.state().is_active()
    }

    /// Counts in its backend's load.
    #[must_use]
    pub fn is_load(&self) -> bool {
        !self.half_open && self.state().is_active()
    }

    /// The event about it; its times are 0.
    #[must_use]
    pub fn event(&self, kind: EventKind) -> Event {
        Event {
            jiffies: 0,
            key: self.keys()[0],
            backend_addr: Ipv4::from(*self.backend.ip()),
            backend_port: self.backend.port(),
            client_port: self.client_port,
            forward_ack: self.forward.ack,
            reverse_ack: self.reverse.ack,
            forward_seq: self.forward.seq,
            reverse_seq: self.reverse.seq,
            created: 0,
            backend: self.backend_id,
            service: self.service_id,
            kind,
            reason: 0,
            forward_seen: self.forward.seen,
            reverse_seen: self.reverse.seen,
            reserved: 0,
        }
    }
}

/// The later of two sequence numbers (RFC 9293 §3.4); 0 stands for "none yet".
fn later(a: u32, b: u32) -> u32 {
    if a == 0 || (b.wrapping_sub(a) as i32) > 0 { b } else { a }
}

fn port_mac(port: Port) -> [u8; 6] {
    match port {
        Port::Ext => EXT_MAC,
        Port::Int => INT_MAC,
    }
}

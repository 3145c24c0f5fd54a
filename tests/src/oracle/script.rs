//! Scripts: the packets of one conversation, each with what is to become of it.

use std::net::SocketAddrV4;

use super::site::{CLIENT, SERVER, VIP, addressed};
use crate::lab::Frame;
use crate::packet::{Packet, Tcp, Transport, tcp};

/// An end of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client, and whoever is behind it.
    Client,
    /// The server, and whoever is behind it.
    Server,
}

impl End {
    /// The opposite end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, translated, at the other end.
    Crosses,
    /// The director answers it.
    IsAnswered,
    /// Nobody hears of it.
    Nowhere,
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is, for messages.
    pub what: String,
    /// Who sends it.
    pub from: End,
    /// The frame.
    pub frame: Frame,
    /// What becomes of it.
    pub fate: Fate,
    /// What comes out is a packet of the director's kernel, which numbers its packets as it likes.
    pub own_ident: bool,
    /// The packet carries a wrong checksum on purpose.
    pub spoiled: bool,
}

/// A conversation. The sequence numbers of both sides are kept, so that steps read as a story.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, for messages.
    pub name: String,
    /// Its packets.
    pub steps: Vec<Step>,
    client: SocketAddrV4,
    client_next: u32,
    server_next: u32,
}

impl Script {
    /// Nothing has been said yet. Every script needs a client port of its own.
    #[must_use]
    pub fn new(name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            steps: Vec::new(),
            client: SocketAddrV4::new(CLIENT, port),
            client_next: 0x1000_0000 + u32::from(port),
            server_next: 0xfff0_0000 + u32::from(port),
        }
    }

    /// Sets the initial sequence numbers of the client and the server.
    #[must_use]
    pub const fn numbers(mut self, client: u32, server: u32) -> Self {
        (self.client_next, self.server_next) = (client, server);
        self
    }

    /// The next packet of the client, without flags, as it leaves the client.
    #[must_use]
    pub fn client(&self) -> Packet<Tcp> {
        addressed(tcp().from(self.client).to(VIP).seq(self.client_next).id(0x4321), End::Client)
    }

    /// The next packet of the server, without flags, as it leaves the server.
    #[must_use]
    pub fn server(&self) -> Packet<Tcp> {
        addressed(tcp().from(SERVER).to(self.client).seq(self.server_next).id(0x8765), End::Server)
    }

    /// A packet of the client as the server sees it.
    #[must_use]
    pub fn as_server_sees(&self, packet: Packet<Tcp>) -> Packet<Tcp> {
        packet.to(SERVER).one_hop_on()
    }

    /// A packet of the server as the client sees it.
    #[must_use]
    pub fn as_client_sees(&self, packet: Packet<Tcp>) -> Packet<Tcp> {
        packet.from(VIP).one_hop_on()
    }

    /// The client sends `change` of its next packet, which acknowledges all that the server sent.
    #[must_use]
    pub fn says(self, what: &str, change: impl FnOnce(Packet<Tcp>) -> Packet<Tcp>) -> Self {
        let packet = change(self.client().ack(self.server_next));
        self.sends(End::Client, what, packet)
    }

    /// The server sends `change` of its next packet, which acknowledges all that the client sent.
    #[must_use]
    pub fn answers(self, what: &str, change: impl FnOnce(Packet<Tcp>) -> Packet<Tcp>) -> Self {
        let packet = change(self.server().ack(self.client_next));
        self.sends(End::Server, what, packet)
    }

    /// An end sends a segment of this conversation, which crosses; it counts for the sequence numbers.
    #[must_use]
    pub fn sends(mut self, from: End, what: &str, packet: Packet<Tcp>) -> Self {
        let next = match from {
            End::Client => &mut self.client_next,
            End::Server => &mut self.server_next,
        };
        let end = packet.seq_end();
        // A packet that was sent before does not count again.
        if end.wrapping_sub(*next).cast_signed() > 0 {
            *next = end;
        }
        self.step(from, what, packet.build().into(), Fate::Crosses)
    }

    /// An end, or a router behind it, sends any packet at all to the director.
    #[must_use]
    pub fn other<T: Transport>(self, from: End, what: &str, packet: Packet<T>, fate: Fate) -> Self {
        let packet = addressed(packet, from);
        self.step(from, what, packet.build().into(), fate)
    }

    /// An end sends this frame.
    #[must_use]
    pub fn step(mut self, from: End, what: &str, frame: Frame, fate: Fate) -> Self {
        let step = Step { what: what.to_owned(), from, frame, fate, own_ident: false, spoiled: false };
        self.steps.push(step);
        self
    }

    /// Changes how the last step is judged.
    #[must_use]
    pub fn but(mut self, change: impl FnOnce(&mut Step)) -> Self {
        if let Some(step) = self.steps.last_mut() {
            change(step);
        }
        self
    }

    /// Leaves the checksum of the last step's TCP segment to the device; it is to hold the pseudo-header's sum.
    #[must_use]
    pub fn unfinished(self) -> Self {
        self.but(|step| step.frame = step.frame.clone().unfinished())
    }

    /// The handshake, with the options of a Linux client.
    #[must_use]
    pub fn handshake(self) -> Self {
        // MSS 1460, SACK permitted, timestamps, window scale 7.
        let options = |time: u8, echo: u8| [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, time, 0, 0, 0, echo, 1, 3, 3, 7];
        let syn = self.client().syn().tcp_options(&options(1, 0));
        self.sends(End::Client, "SYN", syn)
            .answers("SYN+ACK", |packet| packet.syn().tcp_options(&options(9, 1)))
            .says("ACK", |packet| packet)
    }
}

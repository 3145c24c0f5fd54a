//! Who answers ARP for an address: a question from a host, past its own neighbour table, and all answers to it
//! (RFC 826). More than one answer is what a fenced director must not give.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use super::client::Client;
use super::host::Host;
use super::mariadb::Server;
use super::tap::{Frame, Tap};
use super::wait::now;
use super::{Lab, addr};
use crate::packet::{Mac, arp_request, ether};

const REPLY: [u8; 2] = [0, 2];

/// The interface of clients and servers.
const INTERFACE: &str = "eth0";

/// A host that asks for an address by ARP, again and again.
#[derive(Debug)]
pub struct Asker {
    tap: Tap,
    own: Ipv4Addr,
    vip: Ipv4Addr,
    name: String,
}

impl Asker {
    fn new(host: &Host, own: Ipv4Addr, vip: Ipv4Addr) -> Result<Self> {
        let tap = Tap::open_for(host, INTERFACE, ether::ARP)?;
        Ok(Self { tap, own, vip, name: host.name().to_owned() })
    }

    /// Asks once and collects the answers of the next `window`.
    ///
    /// # Errors
    /// When the question cannot be sent.
    pub fn ask(&self, window: Duration) -> Result<Vec<Mac>> {
        self.tap.drain()?;
        let question = arp_request(addr::link(self.own), &self.own.to_string(), &self.vip.to_string());
        self.tap.send(&Frame::from(question.build()))?;
        let end = now() + window;
        let mut answers = Vec::new();
        while let Some(frame) = self.tap.receive(end.saturating_duration_since(now()))? {
            answers.extend(answer(&frame.bytes, self.vip, self.own));
        }
        Ok(answers)
    }

    /// The host that asks.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it asks for.
    #[must_use]
    pub fn vip(&self) -> Ipv4Addr {
        self.vip
    }
}

impl Client {
    /// Asks for the VIP from here.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn asker(&self) -> Result<Asker> {
        Asker::new(self.host(), self.address(), addr::VIP)
    }
}

impl Server {
    /// Asks for the internal VIP from here.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn asker(&self) -> Result<Asker> {
        Asker::new(self.host(), self.address(), addr::INTERNAL_VIP)
    }
}

impl Lab {
    /// Every client asks for the VIP, every server for the internal one.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn askers(&self) -> Result<Vec<Asker>> {
        let clients = self.clients.iter().map(Client::asker);
        clients.chain(self.servers.iter().map(Server::asker)).collect()
    }
}

/// The link-layer address that `frame` answers with, when it tells `own` about `vip`.
fn answer(frame: &[u8], vip: Ipv4Addr, own: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(14..14 + 28)?;
    let matches = arp[6..8] == REPLY && arp[14..18] == vip.octets() && arp[24..28] == own.octets();
    matches.then(|| arp[8..14].try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::arp_reply;

    #[test]
    fn only_an_answer_to_us_about_the_address_counts() {
        let (vip, own) = (addr::VIP, addr::client(0));
        let mac = [2, 0, 0, 0, 0, 9];
        let reply = |sender: &str, target: &str| arp_reply(mac, sender, [2; 6], target).build();
        assert_eq!(answer(&reply("10.80.1.243", "10.80.1.1"), vip, own), Some(mac));
        assert_eq!(answer(&reply("10.80.1.242", "10.80.1.1"), vip, own), None);
        assert_eq!(answer(&reply("10.80.1.243", "10.80.1.243"), vip, own), None, "gratuitous");
        assert_eq!(answer(&arp_request(mac, "10.80.1.243", "10.80.1.1").build(), vip, own), None);
        assert_eq!(answer(&[0; 41], vip, own), None);
    }
}

//! One of the two sites: a client, a director and a server. The hosts' own protocols are deaf; the test plays them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};

use lb_userspace::datapath::{self, Tables};

use super::script::{End, Fate, Step};
use crate::lab::{Frame, Lab, LabOptions, Offload, Tap, addr};
use crate::packet::{Mac, Packet, Transport};

/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 1);
/// Where it sends to.
pub const VIP: SocketAddrV4 = addr::SERVICE;
/// The only backend.
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 80, 167), addr::MYSQL_PORT);
/// A router on the client's side; its packets come from the client's interface.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 77);
/// A router on the server's side, likewise.
pub const SERVER_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 77);

/// How long a packet that is to arrive may take: the first one waits for ARP.
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long nothing must come where nothing is to come.
const SILENCE: Duration = Duration::from_millis(60);

/// A lab with packet sockets at both ends.
#[derive(Debug)]
pub struct Site {
    client: Tap,
    server: Tap,
    lab: Lab,
}

impl Site {
    /// The director runs our agent.
    ///
    /// # Errors
    /// When the lab or the agent does not start.
    pub fn ours(mode: &str, offload: Offload) -> Result<Self> {
        let site = Self::bare(offload)?;
        site.lab.d1().start_agent(&site.lab.agent_options().mode(mode))?;
        Ok(site)
    }

    /// The director routes, and nftables translates.
    ///
    /// # Errors
    /// When the lab does not start, or the kernel has no NAT.
    pub fn kernel(offload: Offload) -> Result<Self> {
        let site = Self::bare(offload)?;
        let director = site.lab.d1();
        director.enable_forwarding()?;
        let rules = format!(
            "table ip nat {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat; policy accept;
                    ip daddr {} tcp dport {} dnat to {}:{}
                }}
            }}
            ",
            VIP.ip(),
            VIP.port(),
            SERVER.ip(),
            SERVER.port()
        );
        director.host().check_with_input(&["nft", "-f", "-"], &rules).context("the kernel's NAT")?;
        // It would leave packets untranslated that are outside the receiver's window; nobody else would.
        director.host().sysctl("netfilter/nf_conntrack_tcp_be_liberal", "1")?;
        Ok(site)
    }

    fn bare(offload: Offload) -> Result<Self> {
        let options = LabOptions { servers: 1, offload, mariadb: None, ..LabOptions::default() };
        let lab = options.up()?;
        lab.take_vips(lab.d1())?;
        let (client, server) = (lab.client().host(), lab.servers()[0].host());
        client.deafen()?;
        server.deafen()?;
        Ok(Self { client: Tap::open(client, "eth0")?, server: Tap::open(server, "eth0")?, lab })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What our packet path has counted, as text; of our site only.
    pub(super) fn counters(&self) -> Result<String> {
        let tables = Tables::open(&datapath::versioned(&self.lab.d1().pin_directory()))?;
        let counted = tables.counters()?.into_iter().filter(|(_, count)| *count != 0);
        Ok(counted.map(|(counter, count)| format!("{counter} {count}")).collect::<Vec<_>>().join(", "))
    }

    pub(super) fn tap(&self, end: End) -> &Tap {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    /// Sends the packet of a step and answers what became of it.
    pub(super) fn play(&self, step: &Step) -> Result<Option<Frame>> {
        self.tap(step.from).send(&step.frame)?;
        match step.fate {
            Fate::Crosses => self.arrival(step.from.other()).map(Some),
            Fate::IsAnswered => self.arrival(step.from).map(Some),
            Fate::Nowhere => Ok(self.anything(SILENCE)?.map(|(_, frame)| frame)),
        }
    }

    fn arrival(&self, end: End) -> Result<Frame> {
        self.tap(end).receive(ARRIVAL)?.with_context(|| format!("nothing came to the {end:?}"))
    }

    /// A frame that comes to either end within `limit`.
    pub(super) fn anything(&self, limit: Duration) -> Result<Option<(End, Frame)>> {
        if let Some(frame) = self.client.receive(limit)? {
            return Ok(Some((End::Client, frame)));
        }
        Ok(self.server.receive(Duration::ZERO)?.map(|frame| (End::Server, frame)))
    }
}

/// The link-layer addresses of a packet as an end sends it to the director.
pub(super) fn addressed<T: Transport>(packet: Packet<T>, from: End) -> Packet<T> {
    let (sender, director): (Mac, Mac) = match from {
        End::Client => (addr::link(CLIENT), addr::link(Ipv4Addr::new(10, 80, 1, 241))),
        End::Server => (addr::link(*SERVER.ip()), addr::link(Ipv4Addr::new(192, 168, 80, 101))),
    };
    packet.macs(sender, director)
}

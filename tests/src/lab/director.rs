//! A director of the lab: a host with a leg in both segments, its host firewall, the VIPs while no election moves
//! them, and the agent or keepalived that runs on it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Result, bail};

use super::addr;
use super::agent::{Agent, agent_socket};
use super::cleanup::BPFFS;
use super::count;
use super::host::Host;
use super::process::Process;
use super::segment::{Link, Segment, port};

/// A director. Its interfaces are `ext0` (clients), `int0` (servers) and, in a pair, `sync0`.
#[derive(Debug)]
pub struct Director {
    host: Host,
    switch: Host,
    lab: String,
    index: usize,
    links: Vec<Link>,
    /// See the methods in `agent`.
    pub(crate) agent: Mutex<Option<Agent>>,
    /// See the methods in `keepalived`.
    pub(crate) keepalived: Mutex<Option<Process>>,
    /// See the methods in `rival`.
    pub(crate) conntrackd: Mutex<Option<Process>>,
}

impl Director {
    pub(crate) fn new(host: Host, switch: Host, lab: &str, index: usize, links: Vec<Link>) -> Self {
        let (agent, keepalived, conntrackd) = (Mutex::new(None), Mutex::new(None), Mutex::new(None));
        Self { host, switch, lab: lab.to_owned(), index, links, agent, keepalived, conntrackd }
    }

    pub(crate) fn switch(&self) -> &Host {
        &self.switch
    }

    /// The switch's ports that it is plugged into.
    pub(crate) fn ports(&self) -> impl Iterator<Item = String> {
        self.links.iter().map(|link| port(self.host.name(), link.interface))
    }

    /// 0 for d1, 1 for d2.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The host that it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its own address on a segment, None when it is not connected to it.
    pub fn address(&self, segment: Segment) -> Option<Ipv4Addr> {
        self.links.iter().find(|link| link.segment == segment).map(|link| link.address)
    }

    /// Directory that its agent pins into; no other agent of this kernel uses it.
    pub fn pin_directory(&self) -> PathBuf {
        PathBuf::from(format!("{BPFFS}/lb-{}-{}", self.lab, self.host.name()))
    }

    /// Socket that its agent is controlled over.
    pub fn control_socket(&self) -> PathBuf {
        agent_socket(&self.host)
    }

    /// Lets the kernel route between the segments. The agent does it too; this is for a lab without one.
    ///
    /// # Errors
    /// When the setting cannot be written.
    pub fn enable_forwarding(&self) -> Result<()> {
        self.host.sysctl("ipv4/ip_forward", "1")
    }

    /// Switches the host firewall on: nothing may come in or through, but for the loopback interface, ICMP to the
    /// director itself, and connection sync on its own interface. What the firewall refused is counted, see [`Director::firewall_drops`].
    ///
    /// # Errors
    /// When nft refuses the rules.
    pub fn firewall_default_drop(&self) -> Result<()> {
        self.firewall_off()?;
        let rules = "
            table inet lab {
                counter refused { }
                chain input {
                    type filter hook input priority filter; policy drop;
                    iif lo accept
                    meta l4proto icmp accept
                    iifname sync0 udp dport 8848 accept
                    counter name refused drop
                }
                chain forward {
                    type filter hook forward priority filter; policy drop;
                    counter name refused drop
                }
            }";
        self.host.check_with_input(&["nft", "-f", "-"], rules).map(drop)
    }

    /// Switches the host firewall off.
    ///
    /// # Errors
    /// When nft fails.
    pub fn firewall_off(&self) -> Result<()> {
        // Declared first, so that deleting works whether it was there or not.
        self.host.check_with_input(&["nft", "-f", "-"], "table inet lab\ndelete table inet lab\n").map(drop)
    }

    /// Packets that the firewall refused since it was switched on.
    ///
    /// # Errors
    /// When the firewall is off.
    pub fn firewall_drops(&self) -> Result<u64> {
        Ok(count::read(&self.host, &["inet", "lab", "refused"])?.packets)
    }

    pub(crate) fn add_vips(&self) -> Result<()> {
        self.vips("replace")
    }

    pub(crate) fn drop_vips(&self) -> Result<()> {
        for (vip, interface) in vips() {
            let shown = self.host.check(&["ip", "-o", "-4", "addr", "show", "dev", interface])?;
            // With whatever prefix: an election may have put it there.
            let mut words = shown.split_ascii_whitespace();
            if let Some(held) = words.find(|word| word.starts_with(&format!("{vip}/"))) {
                self.host.ip_batch(&format!("addr del {held} dev {interface}\n"))?;
            }
        }
        Ok(())
    }

    fn vips(&self, verb: &str) -> Result<()> {
        let lines: String =
            vips().iter().map(|(vip, interface)| format!("addr {verb} {vip}/32 dev {interface}\n")).collect();
        self.host.ip_batch(&lines)
    }

    /// Whether it holds both VIPs.
    ///
    /// # Errors
    /// When it holds one of them only: the classic setup breaks then.
    pub fn holds_vips(&self) -> Result<bool> {
        let shown = self.host.check(&["ip", "-o", "-4", "addr", "show"])?;
        let held = vips().iter().filter(|(vip, _)| shown.contains(&format!(" {vip}/"))).count();
        if held == 1 {
            bail!("{} holds one of the two VIPs:\n{shown}", self.host.name());
        }
        Ok(held == 2)
    }
}

fn vips() -> [(Ipv4Addr, &'static str); 2] {
    [(addr::VIP, "ext0"), (addr::INTERNAL_VIP, "int0")]
}

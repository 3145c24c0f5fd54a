//! VLAN devices (IEEE 802.1Q, 802.1ad) on the hosts of a lab: the kernel's own, or where it has none, a veth pair and
//! two small programs that put the tags on and take them off.

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use super::Offload;
use super::host::Host;
use super::passing::pass_everything;
use super::program::{EXIT, Instruction, Kind, call, copy, set, with_pinned};

const VLAN_PUSH: u32 = 18;
const VLAN_POP: u32 = 19;
const REDIRECT: u32 = 23;

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// EtherType of the tag.
    pub protocol: u16,
    /// The VLAN.
    pub id: u16,
}

impl VlanTag {
    /// A tag of IEEE 802.1Q.
    #[must_use]
    pub const fn vlan(id: u16) -> Self {
        Self { protocol: 0x8100, id }
    }

    /// A provider's outer tag of IEEE 802.1ad.
    #[must_use]
    pub const fn provider(id: u16) -> Self {
        Self { protocol: 0x88a8, id }
    }
}

impl Host {
    /// Moves `addresses` from an interface to a VLAN device on it with these tags, outermost first. Answers the
    /// device's name, and whether it is the kernel's own.
    ///
    /// # Errors
    /// When the device can neither be made nor replaced.
    pub fn tag(
        &self,
        interface: &str,
        tags: &[VlanTag],
        addresses: &[String],
        offload: Offload,
    ) -> Result<(String, bool)> {
        let ids: Vec<String> = tags.iter().map(|tag| tag.id.to_string()).collect();
        let device = format!("{interface}.{}", ids.join("."));
        self.ip_batch(&format!("addr flush dev {interface}\n"))?;
        let own = self.tag_by_kernel(interface, tags)?;
        if !own {
            self.tag_by_programs(interface, tags, &device)?;
        }
        // An Ethernet interface has room for one tag above its MTU.
        let mut batch = if tags.len() > 1 { format!("link set {device} mtu 1496\n") } else { String::new() };
        batch += &format!("link set {device} up\n");
        for address in addresses {
            batch += &format!("addr add {address} dev {device}\n");
        }
        self.ip_batch(&batch)?;
        if offload == Offload::Off {
            self.check(&["ethtool", "-K", &device, "tx", "off"])?;
        }
        Ok((device, own))
    }

    /// `false`: this kernel has no VLAN devices.
    fn tag_by_kernel(&self, interface: &str, tags: &[VlanTag]) -> Result<bool> {
        let mut lower = interface.to_owned();
        for (depth, tag) in tags.iter().enumerate() {
            let upper = format!("{lower}.{}", tag.id);
            let (protocol, id) = (if tag.protocol == 0x8100 { "802.1Q" } else { "802.1ad" }, tag.id.to_string());
            let made = self.run(&[
                "ip", "link", "add", "link", &lower, "name", &upper, "type", "vlan", "proto", protocol, "id", &id,
            ])?;
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            if depth == 0 && said.contains("Unknown device type") {
                return Ok(false);
            }
            anyhow::ensure!(made.status.success(), "{}: make {upper}: {said}", self.name());
            self.ip_batch(&format!("link set {upper} up\n"))?;
            lower = upper;
        }
        Ok(true)
    }

    /// A veth pair whose far end is `device` with a tag on everything, by two programs.
    fn tag_by_programs(&self, interface: &str, tags: &[VlanTag], device: &str) -> Result<()> {
        let trunk = format!("{device}t");
        let mac = self.check(&["ip", "-j", "link", "show", "dev", interface])?;
        let mac: serde_json::Value = serde_json::from_str(&mac)?;
        let mac = mac[0]["address"].as_str().context("an interface without a link-layer address")?;
        self.ip_batch(&format!(
            "link add {device} address {mac} type veth peer name {trunk}\nlink set {trunk} up promisc on\n"
        ))?;
        // Whoever redirects frames into the device natively finds somebody there to take them.
        pass_everything(self, std::iter::once(trunk.clone()))?;
        let index = |name: &str| self.enter(|| if_nametoindex(name).with_context(|| format!("no interface {name}")));
        let (below, above) = (index(interface)?, index(&trunk)?);

        let mut push = vec![copy(6, 1)];
        for tag in tags.iter().rev() {
            let protocol = u32::from(tag.protocol.to_be());
            push.extend([copy(1, 6), set(2, protocol), set(3, u32::from(tag.id)), call(VLAN_PUSH)]);
        }
        push.extend(send_to(below));
        let mut pop = vec![copy(6, 1)];
        tags.iter().for_each(|_| pop.extend([copy(1, 6), call(VLAN_POP)]));
        pop.extend(send_to(above));
        self.filter(&trunk, &push)?;
        self.filter(interface, &pop)
    }

    /// Runs a program on everything that comes in and that no other program has taken before.
    fn filter(&self, interface: &str, program: &[Instruction]) -> Result<()> {
        with_pinned(self, Kind::Classifier, program, |path| {
            self.check(&["tc", "qdisc", "add", "dev", interface, "clsact"])?;
            let filter = ["tc", "filter", "add", "dev", interface, "ingress", "bpf", "direct-action", "pinned", path];
            self.check(&filter).map(drop)
        })
    }
}

fn send_to(index: u32) -> [Instruction; 4] {
    [set(1, index), set(2, 0), call(REDIRECT), EXIT]
}

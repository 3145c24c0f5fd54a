//! How the directors of a pair speak VRRP, written once and rendered for either side: the agent's TOML and
//! keepalived.conf(5). The identifiers and addresses are those of the classic setup.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::addr;

/// Both VIPs: address, interface, VRID.
pub const VIPS: [(std::net::Ipv4Addr, &str, u8); 2] = [(addr::INTERNAL_VIP, "int0", 51), (addr::VIP, "ext0", 52)];

/// What the agent sends as checksum of VRRP version 3 over IPv4. It accepts both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Without pseudo-header: RFC 9568 §5.2.8.
    Rfc9568,
    /// With pseudo-header: keepalived's.
    PseudoHeader,
}

/// How a pair speaks VRRP.
#[derive(Clone, Debug)]
pub struct VrrpOptions {
    /// Version of the protocol, 2 or 3.
    pub version: u8,
    /// Pause between two adverts; version 2 knows whole seconds only.
    pub advert: Duration,
    /// Version 2: the password.
    pub auth: Option<String>,
    /// Version 3: the agent's checksum.
    pub checksum: Checksum,
    /// The higher priority takes the VIPs back when it returns.
    pub preempt: bool,
    /// Priorities of d1 and d2.
    pub priorities: [u8; 2],
    /// The agent trusts nothing but adverts: the other side is keepalived.
    pub strict: bool,
    /// More lines for the agent's `[vrrp]`.
    pub extra: String,
}

impl VrrpOptions {
    /// The classic setup: version 2, one second, password 1111, priorities 101 and 100, nopreempt.
    #[must_use]
    pub fn classic() -> Self {
        Self {
            version: 2,
            advert: Duration::from_secs(1),
            auth: Some("1111".to_owned()),
            checksum: Checksum::Rfc9568,
            preempt: false,
            priorities: [101, 100],
            strict: false,
            extra: String::new(),
        }
    }

    /// Version 3 with ten adverts a second, the rest as in the classic setup.
    #[must_use]
    pub fn fast() -> Self {
        Self { version: 3, advert: Duration::from_millis(100), auth: None, ..Self::classic() }
    }

    /// Sets the priorities of d1 and d2.
    #[must_use]
    pub fn priorities(mut self, d1: u8, d2: u8) -> Self {
        self.priorities = [d1, d2];
        self
    }

    /// Makes the higher priority take the VIPs back.
    #[must_use]
    pub fn preempt(mut self) -> Self {
        self.preempt = true;
        self
    }

    /// Sets the agent's checksum of version 3.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// Tells the agent that its peer is another implementation.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// How long a Backup of priority `own` waits for adverts: RFC 9568 §6.1, three intervals and the skew.
    #[must_use]
    pub fn down_after(&self, own: u8) -> Duration {
        3 * self.advert + self.skew(own)
    }

    /// How long a Backup waits when the Active has given up.
    #[must_use]
    pub fn skew(&self, own: u8) -> Duration {
        self.advert * (256 - u32::from(own)) / 256
    }

    /// The agent's part: `[vrrp]`, the VIPs and the directors.
    #[must_use]
    pub fn toml(&self) -> String {
        let seconds = self.version == 2;
        let advert =
            if seconds { format!("{}s", self.advert.as_secs()) } else { format!("{}ms", self.advert.as_millis()) };
        let mut text = format!("[vrrp]\nversion = {}\nadvert = \"{advert}\"\n", self.version);
        if let Some(auth) = &self.auth {
            let _ = writeln!(text, "auth = {auth:?}");
        }
        if self.version == 3 {
            let checksum = if self.checksum == Checksum::Rfc9568 { "rfc9568" } else { "pseudo-header" };
            let _ = writeln!(text, "checksum = \"{checksum}\"");
        }
        let _ = writeln!(text, "preempt = {}\nstrict = {}", self.preempt, self.strict);
        if !self.extra.is_empty() {
            let _ = writeln!(text, "{}", self.extra.trim());
        }
        for (vip, interface, vrid) in VIPS {
            let _ = write!(text, "\n[[vip]]\naddress = \"{vip}/24\"\ninterface = {interface:?}\nvrid = {vrid}\n");
        }
        for (index, priority) in self.priorities.iter().enumerate() {
            let _ = write!(
                text,
                "\n[director.d{}]\npriority = {priority}\naddresses = {{ ext0 = \"{}\", int0 = \"{}\", sync0 = \"{}\" }}\n",
                index + 1,
                addr::director_external(index),
                addr::director_internal(index),
                addr::director_sync(index)
            );
        }
        text
    }

    /// keepalived's configuration for a director, 0 or 1: an instance per VIP, in a group, so that keepalived too moves
    /// both or none. `notify` is run as `notify GROUP pair MASTER|BACKUP|FAULT PRIORITY`.
    #[must_use]
    pub fn keepalived(&self, director: usize, notify: Option<&Path>) -> String {
        let priority = self.priorities.get(director).copied().unwrap_or(100);
        let mut text = format!(
            "global_defs {{\n    router_id d{}\n    vrrp_version {}\n    script_user root\n    enable_script_security\n}}\n\
             vrrp_sync_group pair {{\n    group {{\n        vrid51\n        vrid52\n    }}\n",
            director + 1,
            self.version
        );
        if let Some(notify) = notify {
            let _ = writeln!(text, "    notify {}", notify.display());
        }
        text.push_str("}\n");
        for (vip, interface, vrid) in VIPS {
            let advert = self.advert.as_secs_f64();
            let _ = write!(
                text,
                "vrrp_instance vrid{vrid} {{\n    state BACKUP\n    interface {interface}\n    virtual_router_id {vrid}\n    \
                 priority {priority}\n    advert_int {advert}\n"
            );
            if !self.preempt {
                text.push_str("    nopreempt\n");
            }
            if let Some(auth) = &self.auth {
                let _ =
                    write!(text, "    authentication {{\n        auth_type PASS\n        auth_pass {auth}\n    }}\n");
            }
            let _ = write!(text, "    virtual_ipaddress {{\n        {vip}/24 dev {interface}\n    }}\n}}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_told_the_same() {
        let options = VrrpOptions::classic();
        let (toml, conf) = (options.toml(), options.keepalived(1, None));
        for text in ["advert = \"1s\"", "auth = \"1111\"", "version = 2", "preempt = false", "vrid = 52"] {
            assert!(toml.contains(text), "{text} is not in\n{toml}");
        }
        assert!(!toml.contains("checksum"), "version 2 has one only");
        for text in ["advert_int 1\n", "auth_pass 1111", "vrrp_version 2", "nopreempt", "priority 100", "router_id d2"]
        {
            assert!(conf.contains(text), "{text} is not in\n{conf}");
        }
        let fast = VrrpOptions::fast().preempt().checksum(Checksum::PseudoHeader);
        assert!(fast.toml().contains("advert = \"100ms\"\nchecksum = \"pseudo-header\"\npreempt = true"));
        assert!(fast.keepalived(0, None).contains("advert_int 0.1\n"));
        assert!(!fast.keepalived(0, None).contains("nopreempt"));
    }

    #[test]
    fn the_timers_are_those_of_the_rfc() {
        let classic = VrrpOptions::classic();
        assert_eq!(classic.down_after(100).as_millis(), 3609);
        assert_eq!(classic.skew(100).as_millis(), 609);
        assert_eq!(VrrpOptions::fast().down_after(254).as_micros(), 300_781);
    }
}

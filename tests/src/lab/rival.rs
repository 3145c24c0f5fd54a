//! The packet path of the alternative that the benchmark compares with: destination NAT by nftables in the careful
//! form, so that connection tracking never takes a packet in the middle of a connection for a new one.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::addr;
use super::director::Director;

impl Director {
    /// Balances the classic service with nftables, round robin, and routes.
    ///
    /// # Errors
    /// When nft refuses the rules.
    pub fn start_nft(&self, backends: &[Ipv4Addr]) -> Result<()> {
        self.enable_forwarding()?;
        let map: Vec<_> =
            backends.iter().enumerate().map(|(number, backend)| format!("{number} : {backend}")).collect();
        let (vip, port, count) = (addr::VIP, addr::MYSQL_PORT, backends.len());
        let rules = format!(
            "table ip balance {{
                chain in {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {vip} tcp dport {port} dnat to numgen inc mod {count} map {{ {} }}
                }}
                chain through {{
                    type filter hook forward priority filter;
                    ct state invalid drop
                }}
            }}",
            map.join(", ")
        );
        self.stop_nft()?;
        self.host().check_with_input(&["nft", "-f", "-"], &rules)?;
        // Known once the rules have brought connection tracking in.
        self.host().sysctl("netfilter/nf_conntrack_tcp_loose", "0")
    }

    /// Takes the rules off.
    ///
    /// # Errors
    /// When nft fails.
    pub fn stop_nft(&self) -> Result<()> {
        self.host().check_with_input(&["nft", "-f", "-"], "table ip balance\ndelete table ip balance\n").map(drop)
    }
}

//! Packet counters on a host, by nftables: what really went in or out, counted by somebody else than the agent.

use anyhow::{Context, Result};

use super::host::Host;

/// A counter of the packets that match a rule. It counts until the lab ends.
#[derive(Clone, Debug)]
pub struct PacketCounter {
    host: Host,
    table: String,
}

/// What a counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

impl Host {
    /// Counts packets at an nftables hook (`input`, `output`, …) of this host that match `rule`: `tcp dport 3306`.
    ///
    /// # Errors
    /// When nft refuses the rule.
    pub fn count_packets(&self, name: &str, hook: &str, rule: &str) -> Result<PacketCounter> {
        let table = format!("count_{name}");
        let rules = format!(
            "table ip {table} {{
                counter seen {{ }}
                chain watch {{
                    type filter hook {hook} priority filter;
                    {rule} counter name seen
                }}
            }}"
        );
        self.check_with_input(&["nft", "-f", "-"], &rules)?;
        Ok(PacketCounter { host: self.clone(), table })
    }
}

impl PacketCounter {
    /// What it has seen so far.
    ///
    /// # Errors
    /// When nft fails.
    pub fn read(&self) -> Result<Seen> {
        read(&self.host, &["ip", &self.table, "seen"])
    }
}

/// Reads a named counter: family, table, name.
pub(crate) fn read(host: &Host, counter: &[&str; 3]) -> Result<Seen> {
    let text = host.check(&[&["nft", "list", "counter"], &counter[..]].concat())?;
    let number = |label: &str| {
        let mut words = text.split_ascii_whitespace().skip_while(|word| *word != label).skip(1);
        let word = words.next().with_context(|| format!("no {label} in `{text}`"))?;
        word.parse::<u64>().with_context(|| format!("no number of {label} in `{text}`"))
    };
    Ok(Seen { packets: number("packets")?, bytes: number("bytes")? })
}

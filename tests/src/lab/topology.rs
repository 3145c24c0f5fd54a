//! Builds the network of a lab from its plan: namespaces, bridges, veth pairs, addresses, offloads. One `ip -batch`
//! per namespace; returns when every port forwards.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::host::{Host, namespace_of};
use super::process::Lifetime;
use super::record::Record;
use super::segment::{self, Plan};
use super::wait::wait_for;
use super::{LabOptions, addr};

/// Name of the host that holds the bridges.
pub(crate) const SWITCH: &str = "sw";

/// The hosts of a lab, in the order of the plan.
pub(crate) struct Network {
    pub(crate) switch: Host,
    pub(crate) hosts: Vec<(Plan, Host)>,
}

/// Builds it all. What exists when an error is returned is in the record.
pub(crate) fn build(
    options: &LabOptions,
    id: &str,
    directory: &Path,
    lifetime: Lifetime,
    record: &Arc<Record>,
) -> Result<Network> {
    for (what, count) in [("clients", options.clients), ("servers", options.servers), ("directors", options.directors)]
    {
        if count > addr::MAX_HOSTS || (what == "directors" && count > 2) {
            bail!("a lab of {count} {what} is larger than its address plan");
        }
    }
    let plans = segment::plan(options);
    let switch = Host::create(id, SWITCH, directory, lifetime, record)?;
    let mut hosts = Vec::with_capacity(plans.len());
    for plan in plans {
        let host = Host::create(id, &plan.name, directory, lifetime, record)?;
        hosts.push((plan, host));
    }
    let plans: Vec<_> = hosts.iter().map(|(plan, _)| plan.clone()).collect();

    switch.ip_batch(&segment::switch_batch(&plans, |host| namespace_of(id, host))).context("build the switch")?;
    for (plan, host) in &hosts {
        host.ip_batch(&plan.batch())?;
        let script = segment::host_ethtool(plan, options.offload);
        if !script.is_empty() {
            host.check(&["sh", "-ec", &script])?;
        }
    }
    switch.check(&["sh", "-ec", &segment::switch_ethtool(&plans)])?;

    let ports: usize = plans.iter().map(|plan| plan.links.len()).sum();
    wait_for("forwarding on all ports of the switch", Duration::from_secs(10), || {
        let forwarding = switch.check(&["bridge", "link", "show"])?.matches("state forwarding").count();
        Ok((forwarding == ports).then_some(()))
    })?;
    Ok(Network { switch, hosts })
}

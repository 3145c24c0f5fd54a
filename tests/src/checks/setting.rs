//! The setting of a check: the classic setup with an agent on d1 that holds the VIPs, alone or elected.

use std::time::Duration;

use anyhow::Result;

use super::spread::Share;
use crate::lab::{AgentOptions, Lab, LabOptions, Offload, VipWatch, VrrpOptions};

/// For an election, on a busy machine.
const ELECTED: Duration = Duration::from_secs(20);

/// How the lab is to be built and the agent to be run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Hook of both interfaces of a director: auto, xdp, xdp-generic or tc.
    pub mode: String,
    /// Checksum offload of the senders.
    pub offload: Offload,
    /// Host firewall of d1 with policy drop.
    pub firewall: bool,
    /// Scheduler of the service.
    pub scheduler: String,
    /// Weights of the backends, in the order of [`Lab::servers`]; there is a server for each.
    pub weights: Vec<u16>,
    /// Directors. A single one is given the VIPs; two elect one of them, and d1 is started first.
    pub directors: usize,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            mode: "tc".to_owned(),
            offload: Offload::On,
            firewall: false,
            scheduler: "rr".to_owned(),
            weights: vec![1, 1],
            directors: 1,
        }
    }
}

impl Setting {
    /// Two equal backends behind a director with the packet path at this hook.
    pub fn of(mode: &str, offload: Offload) -> Self {
        Self { mode: mode.to_owned(), offload, ..Self::default() }
    }

    /// Builds the lab, puts the VIPs on d1 if it is alone, and the firewall up if it is wanted. No agent runs yet.
    ///
    /// # Errors
    /// As [`LabOptions::up`].
    pub fn lab(&self) -> Result<Lab> {
        let options = LabOptions {
            directors: self.directors,
            servers: self.weights.len(),
            offload: self.offload,
            ..LabOptions::default()
        };
        let lab = options.up()?;
        if self.directors == 1 {
            lab.take_vips(lab.d1())?;
        }
        if self.firewall {
            lab.d1().firewall_default_drop()?;
        }
        Ok(lab)
    }

    /// What the agent is told.
    pub fn agent(&self, lab: &Lab) -> AgentOptions {
        let alone = lab.agent_options().mode(&self.mode).weights(&self.scheduler, &self.weights);
        if self.directors == 1 { alone } else { alone.vrrp(&VrrpOptions::fast()) }
    }

    /// Starts the agents, d1's first; it holds the VIPs then. Two tell each other of their conns.
    ///
    /// # Errors
    /// When one does not start, or d1 does not become Active.
    pub fn start(&self, lab: &Lab) -> Result<()> {
        let watch = VipWatch::start(lab)?;
        let agent = self.agent(lab);
        let agent = if self.directors == 1 { agent } else { agent.sync(lab.sync_options()?) };
        for director in lab.directors() {
            director.start_agent(&agent)?;
            watch.wait_for(0, ELECTED)?;
        }
        Ok(())
    }

    /// Builds the lab and starts the agents.
    ///
    /// # Errors
    /// As [`LabOptions::up`] and [`Setting::start`].
    pub fn up(&self) -> Result<Lab> {
        let lab = self.lab()?;
        self.start(&lab)?;
        Ok(lab)
    }

    /// The backends with the weights that the agent starts with.
    pub fn shares(&self, lab: &Lab) -> Vec<Share> {
        lab.servers().iter().zip(&self.weights).map(|(server, weight)| Share::new(server, *weight)).collect()
    }
}

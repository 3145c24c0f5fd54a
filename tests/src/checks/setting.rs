//! The setting of a check: the classic setup with an agent on d1 that holds the VIPs.

use anyhow::Result;

use super::spread::Share;
use crate::lab::{AgentOptions, Lab, LabOptions, Offload};

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
    /// Directors; the agent runs on the first.
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

    /// Builds the lab, puts the VIPs on d1 and the firewall up if it is wanted. No agent runs yet.
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
        lab.take_vips(lab.d1())?;
        if self.firewall {
            lab.d1().firewall_default_drop()?;
        }
        Ok(lab)
    }

    /// What the agent is told.
    pub fn agent(&self, lab: &Lab) -> AgentOptions {
        lab.agent_options().mode(&self.mode).weights(&self.scheduler, &self.weights)
    }

    /// Builds the lab and starts the agent.
    ///
    /// # Errors
    /// As [`LabOptions::up`], and when the agent does not start.
    pub fn up(&self) -> Result<Lab> {
        let lab = self.lab()?;
        lab.d1().start_agent(&self.agent(&lab))?;
        Ok(lab)
    }

    /// The backends with the weights that the agent starts with.
    pub fn shares(&self, lab: &Lab) -> Vec<Share> {
        lab.servers().iter().zip(&self.weights).map(|(server, weight)| Share::new(server, *weight)).collect()
    }
}

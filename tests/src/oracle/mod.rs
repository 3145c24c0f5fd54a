//! The kernel's own NAT as an oracle: two labs with the same addresses, one with our agent on the director, the other
//! with one nftables rule. Scripts of crafted packets are played through both, and what comes out is compared byte by
//! byte, link-layer addresses and offload state included.

mod script;
mod site;

pub use script::{End, Fate, Script, Step};
pub use site::{CLIENT, ROUTER, SERVER, SERVER_ROUTER, Site, VIP};

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Frame;
use crate::packet::{describe, difference, verify};

/// Both sites of one comparison.
#[derive(Debug)]
pub struct Oracle {
    kernel: Site,
    ours: Site,
}

impl Oracle {
    /// Builds both sites; ours runs its packet path at the hook `mode`.
    ///
    /// # Errors
    /// When a lab or the agent does not start.
    pub fn up(mode: &str, offload: crate::lab::Offload) -> Result<Self> {
        Ok(Self { kernel: Site::kernel(offload)?, ours: Site::ours(mode, offload)? })
    }

    /// Our site.
    pub fn ours(&self) -> &Site {
        &self.ours
    }

    /// Plays a script through both sites, step by step; answers the number of packets that came out and were equal.
    ///
    /// # Errors
    /// At the first step that one of the sites does not let through as the script says, or where they differ.
    pub fn compare(&self, script: &Script) -> Result<usize> {
        for site in [&self.kernel, &self.ours] {
            // What an earlier script that failed has left.
            site.tap(End::Client).drain()?;
            site.tap(End::Server).drain()?;
        }
        let mut equal = 0;
        for (number, step) in script.steps.iter().enumerate() {
            self.step(step).with_context(|| {
                let counters = self.ours.counters().unwrap_or_else(|error| format!("{error:#}"));
                format!("{}, step {number}: {} (counters so far: {counters})", script.name, step.what)
            })?;
            equal += usize::from(step.fate != Fate::Nowhere);
        }
        for (name, site) in [("the kernel", &self.kernel), ("ours", &self.ours)] {
            if let Some((end, frame)) = site.anything(Duration::from_millis(100))? {
                bail!("{}: {name} also sent to the {end:?}: {}", script.name, describe(&frame.bytes));
            }
        }
        Ok(equal)
    }

    fn step(&self, step: &Step) -> Result<()> {
        let expected = self.kernel.play(step).context("the kernel")?;
        let found = self.ours.play(step).context("ours")?;
        match (expected, found) {
            (None, None) => Ok(()),
            (Some(expected), Some(found)) => same(step, &expected, &found),
            (expected, found) => {
                let show = |frame: Option<Frame>| frame.map_or("nothing".to_owned(), |frame| describe(&frame.bytes));
                bail!("the kernel sent {}, ours {}", show(expected), show(found))
            }
        }
    }

    /// Sends frames at full speed from the client through both sites, `window` at a time, and compares them in order.
    ///
    /// # Errors
    /// At the first that is lost or differs.
    pub fn compare_stream(&self, frames: impl Iterator<Item = Frame>, window: usize) -> Result<usize> {
        let mut frames = frames.peekable();
        let mut equal = 0;
        while frames.peek().is_some() {
            let sent: Vec<Frame> = frames.by_ref().take(window).collect();
            for site in [&self.kernel, &self.ours] {
                sent.iter().try_for_each(|frame| site.tap(End::Client).send(frame))?;
            }
            for original in &sent {
                let arrived = |site: &Site| {
                    let frame = site.tap(End::Server).receive(Duration::from_secs(2))?;
                    frame.with_context(|| format!("lost: {}", describe(&original.bytes)))
                };
                let expected = arrived(&self.kernel).context("the kernel")?;
                let found = arrived(&self.ours).context("ours")?;
                if expected != found {
                    bail!("{}", shown(original, &expected, &found));
                }
                equal += 1;
            }
        }
        Ok(equal)
    }
}

/// Byte by byte, and fit for its receiver.
fn same(step: &Step, expected: &Frame, found: &Frame) -> Result<()> {
    let mask = |frame: &Frame| {
        let mut bytes = frame.bytes.clone();
        if step.own_ident {
            // Identification and header checksum of a packet that the director's kernel made.
            bytes[18..20].fill(0);
            bytes[24..26].fill(0);
        }
        bytes
    };
    if mask(expected) != mask(found) || expected.offloads != found.offloads {
        bail!("{}", shown(&step.frame, expected, found));
    }
    if found.offloads.checksum.is_none() && !step.spoiled {
        verify(&found.bytes).with_context(|| describe(&found.bytes))?;
    }
    Ok(())
}

fn shown(sent: &Frame, expected: &Frame, found: &Frame) -> String {
    let bytes = difference(&expected.bytes, &found.bytes).unwrap_or_else(|| "the same bytes".to_owned());
    let hex = |frame: &Frame| {
        let text: Vec<_> = frame.bytes.iter().take(120).map(|byte| format!("{byte:02x}")).collect();
        text.join(" ")
    };
    format!(
        "sent     {}\n{bytes}\nthe kernel's offloads {:?}, ours {:?}\nsent   {}\nkernel {}\nours   {}",
        describe(&sent.bytes),
        expected.offloads,
        found.offloads,
        hex(sent),
        hex(expected),
        hex(found)
    )
}

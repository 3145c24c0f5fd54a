//! Big data arrives intact, both ways. The digests are checked in the lab's `transfer`.

use anyhow::Result;

use crate::lab::{Lab, Transfer};

/// Reads a result set of `mib` MiB and loads as many, both through the service.
///
/// # Errors
/// When one is not byte for byte what was sent.
pub fn both_ways(lab: &Lab, mib: u64) -> Result<[Transfer; 2]> {
    Ok([lab.client().download(mib)?, lab.client().upload(mib)?])
}

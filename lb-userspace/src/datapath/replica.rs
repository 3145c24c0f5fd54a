//! Writing conns of the other director: see [`lb_common::replica`].

use lb_common::{
    Invalid, MapType as _, abi,
    replica::{BATCH, Outcome, Request},
};

use super::{
    Datapath,
    error::{Error, Result},
};

impl Datapath {
    /// Writes conns of the other director; answers what became of each.
    ///
    /// # Errors
    ///
    /// The kernel refuses to run `lb_replica`.
    pub fn replicate(&self, requests: &[Request]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut frame = Vec::with_capacity(BATCH * Request::SIZE);
        let mut back = vec![0; BATCH * Request::SIZE];
        for batch in requests.chunks(BATCH) {
            frame.clear();
            batch.iter().for_each(|request| frame.extend_from_slice(request.bytes()));
            let back = &mut back[..frame.len()];
            self.run(abi::PROG_REPLICA, &frame, Some(&mut *back))?;
            for bytes in back.chunks_exact(Request::SIZE) {
                let unreadable = |error: Invalid| Error::object("run lb_replica".to_owned(), &error);
                outcomes.push(Request::decode(bytes).map_err(unreadable)?.outcome);
            }
        }
        Ok(outcomes)
    }
}

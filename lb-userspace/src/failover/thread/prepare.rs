//! What the thread needs before it starts: the gate shut, VIPs in order, sockets open, links known.

use std::{os::fd::AsRawFd, sync::Arc, time::Duration};

use tokio::sync::mpsc::Sender;

use super::{
    super::{
        Error, Event, Fence, Granted, Settings, Shared, Witness,
        addresses::{self, Addresses, Place},
        inbox::Inbox,
        links::Links,
        place,
        vmac::VirtualMac,
        wire::Wire,
    },
    Thread, WORKS, now,
};
use crate::ha::{self, Election, Role};

impl Thread {
    /// Opens everything and brings the VIPs in order; tells what it found.
    pub(in crate::failover) fn prepare(
        settings: Settings,
        fence: impl Fence,
        witness: Option<Box<dyn Witness>>,
        inbox: Inbox,
        events: Sender<Event>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Vec<String>), Error> {
        let Settings { election: mut config, transports } = settings;
        let sites = place::find(&transports)?;
        config.transports = transports
            .iter()
            .zip(&sites)
            .map(|(transport, site)| ha::Transport {
                name: transport.interface.clone(),
                version: transport.router.version,
                address: site.address,
                interval: transport.router.interval,
            })
            .collect();
        let election = Election::new(config).map_err(Error::Config)?;
        // Whatever a killed agent left: from here on nobody is told that the VIPs are here.
        fence.close().map_err(Error::Gate)?;
        for site in &sites {
            let name = &site.interface.name;
            addresses::keep_secondaries(name).map_err(Error::io(format!("set promote_secondaries on {name}")))?;
        }
        let mut above = Vec::with_capacity(sites.len());
        for (transport, site) in transports.iter().zip(&sites) {
            let make = || VirtualMac::create(&site.interface, transport.router.vrid);
            above.push(transport.virtual_mac.then(make).transpose()?);
        }
        let places = transports.iter().zip(&sites).zip(&above).flat_map(|((transport, site), above)| {
            transport.vips.iter().map(|vip| Place {
                address: vip.address,
                prefix: vip.prefix,
                interface: transport.interface.clone(),
                ifindex: above.as_ref().map_or(site.interface.index, |above| above.index),
                plain: above.is_none(),
            })
        });
        let addresses = Addresses::new(places.collect()).map_err(Error::io("open an rtnetlink socket"))?;
        let notes = addresses.reconcile()?;
        let open = |((transport, site), above)| Wire::open(transport, site, above, election.config());
        let wires = transports.iter().zip(&sites).zip(above).map(open).collect::<Result<Vec<_>, _>>()?;
        let links = Links::open().map_err(Error::io("watch the links"))?;
        let waited = wires.iter().map(|wire| wire.socket.as_fd()).chain([links.as_fd(), inbox.as_fd()]);
        let fds = waited.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
        let next_witness = witness.as_ref().map(|_| now());
        let mut thread = Self {
            election,
            wires,
            addresses,
            links,
            fence: Box::new(fence),
            witness,
            next_witness,
            inbox,
            events,
            shared,
            granted: Granted::default(),
            fds,
            role: Role::Backup,
            gate_open: false,
            next_beat: now(),
            settles: None,
            refused: false,
            again: None,
            heard: None,
            gave_up: None,
            told: [false; WORKS.len()],
            late: 0,
            worst_delay: Duration::ZERO,
            stopped: false,
        };
        thread.look_at_links(now());
        Ok((thread, notes))
    }
}

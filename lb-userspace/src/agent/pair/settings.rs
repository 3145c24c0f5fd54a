//! From the config to the parameters of the election, and the packet path's side of the ARP gate.

use std::{fmt, sync::Arc, time::Duration};

use lb_common::{addr::Ipv4, control::ArpGate};

use crate::{
    config::{Config, Director, Tracked, Vrrp},
    datapath::Datapath,
    failover::{CHECKS, Fence, Settings, Transport, Vip, virtual_mac},
    ha::{self, ArpSchedule, Mode},
    vrrp::packet::VirtualRouter,
};

/// The shortest and the longest silence of the agent after which the gate closes.
const STALE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_secs(1));
/// Beats within that silence: some may come late.
const BEATS: u32 = 5;

/// Which director this is: the given name, else the host's, with or without its domain.
pub(in crate::agent) fn node_name(config: &Config, given: Option<&str>) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let short = host.split('.').next().unwrap_or_default();
    let known = |name: &str| config.directors.iter().any(|director| director.name == name);
    if !known(&host) && known(short) { short.to_owned() } else { host }
}

/// The parameters of the running election.
pub(super) fn settings(config: &Config, vrrp: &Vrrp, director: &Director) -> Settings {
    let mut checks: Vec<String> = CHECKS.map(str::to_owned).into();
    checks.extend(vrrp.tracks.iter().map(|track| match &track.what {
        Tracked::Script(path) => path.display().to_string(),
        Tracked::Process(name) => format!("process {name}"),
    }));
    let election = ha::Config {
        mode: if vrrp.strict { Mode::Strict } else { Mode::Pair },
        priority: director.priority,
        preempt: vrrp.preempt,
        transports: Vec::new(),
        checks,
        heartbeat: None,
        arp: ArpSchedule::default(),
        hold_max: None,
    };
    Settings { election, transports: transports(config, vrrp, director) }
}

/// One transport for each VRID of an interface, in the order of the config.
fn transports(config: &Config, vrrp: &Vrrp, director: &Director) -> Vec<Transport> {
    let mut transports: Vec<Transport> = Vec::new();
    for vip in &vrrp.vips {
        let place = Vip { address: vip.address, prefix: vip.prefix };
        let same = |t: &&mut Transport| t.interface == vip.interface && t.router.vrid == vip.vrid;
        if let Some(transport) = transports.iter_mut().find(same) {
            transport.vips.push(place);
            transport.router.addresses.push(vip.address);
            continue;
        }
        let others = config.directors.iter().filter(|other| other.name != director.name);
        let peers = others.filter_map(|other| other.addresses.get(&vip.interface).copied());
        transports.push(Transport {
            interface: vip.interface.clone(),
            router: VirtualRouter {
                version: vrrp.version,
                vrid: vip.vrid,
                auth: vrrp.auth,
                interval: vrrp.advert,
                addresses: vec![vip.address],
                checksum: vrrp.checksum,
            },
            vips: vec![place],
            address: director.addresses.get(&vip.interface).copied(),
            peers: if vrrp.unicast { peers.collect() } else { Vec::new() },
            unicast: vrrp.unicast,
            virtual_mac: vrrp.virtual_mac,
        });
    }
    transports
}

/// The ARP gate of this director's packet path.
pub(super) struct Gate {
    datapath: Arc<Datapath>,
    vips: Vec<Ipv4>,
    /// Interfaces with a virtual MAC, by index.
    macs: Vec<(u32, [u8; 6])>,
    stale: Duration,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("vips", &self.vips).field("stale", &self.stale).finish_non_exhaustive()
    }
}

impl Gate {
    /// The gate must be shut before a peer can have taken over: it waits three intervals at least, of which one may
    /// have passed, and half of one if it has a heartbeat besides.
    pub(super) fn new(datapath: Arc<Datapath>, vrrp: &Vrrp) -> Self {
        let vips = vrrp.vips.iter().map(|vip| vip.address.into()).collect();
        let with_mac = vrrp.vips.iter().filter(|_| vrrp.virtual_mac);
        let macs = with_mac.filter_map(|vip| {
            let interfaces = &datapath.report().interfaces;
            let interface = interfaces.iter().find(|interface| interface.name == vip.interface)?;
            Some((interface.ifindex, virtual_mac(vip.vrid)))
        });
        let macs = macs.collect();
        Self { datapath, vips, macs, stale: vrrp.advert.duration().clamp(STALE.0, STALE.1) }
    }

    fn set(&self, gate: ArpGate) -> Result<(), String> {
        self.datapath.guard(&self.vips, gate, self.stale).map_err(|error| error.to_string())
    }
}

impl Fence for Gate {
    fn open(&self) -> Result<(), String> {
        self.datapath.set_virtual_macs(&self.macs).map_err(|error| error.to_string())?;
        self.set(ArpGate::Open)
    }

    fn close(&self) -> Result<(), String> {
        self.set(ArpGate::Closed)
    }

    fn beat(&self) -> Result<(), String> {
        self.datapath.heartbeat().map_err(|error| error.to_string())
    }

    fn settle(&self) {
        if let Err(error) = self.datapath.set_virtual_macs(&[]) {
            tracing::warn!(%error, "frames for the virtual MAC are still translated here");
        }
    }

    fn every(&self) -> Duration {
        self.stale / BEATS
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn pair(edit: impl Fn(String) -> String) -> Config {
        let text = edit(include_str!("../../../config/pair.toml").to_owned());
        Config::parse("pair.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn transports_of(config: &Config, node: &str) -> Vec<Transport> {
        let director = config.director(node).unwrap();
        settings(config, config.vrrp.as_ref().unwrap(), director).transports
    }

    #[test]
    fn every_vrid_is_a_transport_and_vips_of_one_vrid_share_it() {
        let more = "[[vip]]\naddress = \"10.80.1.244/24\"\ninterface = \"eth0\"\nvrid = 52\n";
        let config = pair(|text| text + more);
        let transports = transports_of(&config, "d1");
        let found: Vec<_> =
            transports.iter().map(|t| (t.interface.as_str(), t.router.vrid, t.router.addresses.len())).collect();
        assert_eq!(found, [("eth0", 52, 2), ("eth1", 51, 1)]);
        assert_eq!(transports[0].address, Some(Ipv4Addr::new(10, 80, 1, 241)));
        assert!(transports.iter().all(|t| t.peers.is_empty() && !t.unicast), "anybody's adverts count");
    }

    #[test]
    fn unicast_speaks_to_the_others_and_listens_to_nobody_else() {
        let config = pair(|text| text.replace("# unicast = false", "unicast = true"));
        let peers: Vec<_> = transports_of(&config, "d2").into_iter().map(|t| t.peers).collect();
        assert_eq!(peers, [[Ipv4Addr::new(10, 80, 1, 241)], [Ipv4Addr::new(192, 168, 80, 101)]]);
    }

    #[test]
    fn a_node_is_named_by_the_operator_or_by_the_host() {
        let config = pair(|text| text);
        assert_eq!(node_name(&config, Some("d2")), "d2");
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(node_name(&config, None), host);
        let short = host.split('.').next().unwrap().to_owned();
        let config = pair(|text| text.replace("[director.d1]", &format!("[director.\"{short}\"]")));
        assert_eq!(node_name(&config, None), short);
    }
}

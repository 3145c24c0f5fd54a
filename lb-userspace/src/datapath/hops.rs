//! Next hops: raise the generation when cached ones may be wrong, and keep the backends' link-layer addresses fresh.
//!
//! Owns one rtnetlink subscription (RFC 3549). The packet path caches a next hop per conn and asks nobody; so every
//! change of links, addresses, routes and rules, and every changed address of a neighbour, must reach it from here.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures_util::StreamExt;
use lb_common::backend::BackendState;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};
use tokio::time::{self, MissedTickBehavior};

use super::{
    Datapath,
    error::{Error, Result},
};

/// At most one new generation in this time: a burst of changes costs two lookups per conn, not hundreds.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the neighbours of the backends are looked at.
const WARM: Duration = Duration::from_secs(5);
/// Neighbours remembered; beyond that, all are forgotten and every hop is looked up again.
const REMEMBERED: usize = 65_536;

/// Watches until the subscription ends, which it does not unless something is broken; the caller may start it again.
///
/// # Errors
///
/// The subscription cannot be made or has ended.
pub async fn watch(datapath: &Datapath) -> Result<Infallible> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
    ];
    let what = "watch links, routes and neighbours";
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups).map_err(Error::io(what))?;
    let _connection = Abort(tokio::spawn(connection));
    let mut known = Known::default();
    for neighbour in neighbours(&handle).await? {
        known.learn(&neighbour);
    }
    // What changed before the subscription.
    datapath.new_hops()?;
    let react = async {
        let (mut pausing, mut again) = (false, false);
        let pause = time::sleep(PAUSE);
        tokio::pin!(pause);
        loop {
            let now = tokio::select! {
                message = messages.next() => {
                    let Some((message, _from)) = message else {
                        let source = std::io::ErrorKind::UnexpectedEof.into();
                        return Err(Error::Io { what: what.to_owned(), source });
                    };
                    let relevant = match message.payload {
                        NetlinkPayload::InnerMessage(message) => known.is_relevant(&message),
                        // Lost messages, or unknown ones: anything may have changed.
                        _ => true,
                    };
                    again |= relevant && pausing;
                    relevant && !pausing
                }
                () = &mut pause, if pausing => {
                    pausing = false;
                    std::mem::take(&mut again)
                }
            };
            if now {
                datapath.new_hops()?;
                pause.as_mut().reset(time::Instant::now() + PAUSE);
                pausing = true;
            }
        }
    };
    tokio::select! {
        ended = react => ended,
        never = warm(datapath, &handle) => match never {},
    }
}

async fn warm(datapath: &Datapath, handle: &Handle) -> Infallible {
    let mut timer = time::interval(WARM);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if let Err(error) = keep_warm(datapath, handle).await {
            // An optimisation: the TC program resolves, too.
            tracing::debug!(%error, "cannot refresh the backends' neighbours");
        }
    }
}

/// Ends the task of the connection together with the watch.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The link-layer addresses of neighbours, to tell a change from the comings and goings of their states.
#[derive(Debug, Default)]
struct Known(HashMap<(u32, Ipv4Addr), Vec<u8>>);

impl Known {
    /// Notes a neighbour; `true`: its link-layer address was another one before.
    fn learn(&mut self, message: &NeighbourMessage) -> bool {
        let Some(neighbour) = Neighbour::of(message) else { return false };
        // Without an address it is unresolved; the one it had may come back.
        let Some(lladdr) = neighbour.lladdr else { return false };
        if self.0.len() >= REMEMBERED {
            self.0.clear();
            return true;
        }
        let before = self.0.insert((neighbour.ifindex, neighbour.addr), lladdr.to_vec());
        before.is_some_and(|before| before != lladdr)
    }

    /// Tells whether cached next hops may be wrong after this message.
    fn is_relevant(&mut self, message: &RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.learn(neighbour),
            // Its address is remembered: only another one matters.
            RouteNetlinkMessage::DelNeighbour(_) => false,
            // Links, addresses, routes, rules, and whatever else the groups bring.
            _ => true,
        }
    }
}

/// An IPv4 neighbour.
#[derive(Debug, PartialEq, Eq)]
struct Neighbour<'a> {
    ifindex: u32,
    addr: Ipv4Addr,
    lladdr: Option<&'a [u8]>,
    state: NeighbourState,
}

impl<'a> Neighbour<'a> {
    fn of(message: &'a NeighbourMessage) -> Option<Self> {
        let mut addr = None;
        let mut lladdr = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => addr = Some(*found),
                NeighbourAttribute::LinkLayerAddress(found) => lladdr = Some(found.as_slice()),
                _ => {}
            }
        }
        Some(Self { ifindex: message.header.ifindex, addr: addr?, lladdr, state: message.header.state })
    }

    /// The kernel has confirmed it lately, or is about to, or need not.
    fn is_fresh(&self) -> bool {
        !matches!(self.state, NeighbourState::Stale | NeighbourState::Failed | NeighbourState::None)
    }
}

async fn neighbours(handle: &Handle) -> Result<Vec<NeighbourMessage>> {
    let mut found = Vec::new();
    let mut answers = handle.neighbours().get().set_address_family(AddressFamily::Inet).execute();
    while let Some(answer) = answers.next().await {
        found.push(answer.map_err(failed("list the neighbours"))?);
    }
    Ok(found)
}

fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |error| Error::Io { what: what.to_owned(), source: std::io::Error::other(error) }
}

/// Has the kernel ask for the next hops of the backends that it has not heard of lately. Redirected packets do not
/// pass the neighbour layer, so that their neighbours go stale although they are in use.
async fn keep_warm(datapath: &Datapath, handle: &Handle) -> Result<()> {
    let mut backends: Vec<Ipv4Addr> = datapath
        .tables()
        .backends
        .all()?
        .into_iter()
        .filter(|backend| !matches!(backend.state, BackendState::Unused | BackendState::Removed))
        .map(|backend| backend.addr.into())
        .collect();
    backends.sort_unstable();
    backends.dedup();
    let mut hops = Vec::new();
    for backend in backends {
        if let Some(hop) = next_hop(handle, backend).await {
            hops.push(hop);
        }
    }
    hops.sort_unstable();
    hops.dedup();
    let messages = neighbours(handle).await?;
    let fresh = |(ifindex, addr): &(u32, Ipv4Addr)| {
        let mut neighbours = messages.iter().filter_map(Neighbour::of);
        neighbours.any(|n| (n.ifindex, n.addr) == (*ifindex, *addr) && n.is_fresh())
    };
    for (ifindex, addr) in hops.into_iter().filter(|hop| !fresh(hop)) {
        // NTF_USE: as if a packet went there.
        let ask = handle.neighbours().add(ifindex, IpAddr::V4(addr)).replace();
        let asked = ask.state(NeighbourState::None).flags(NeighbourFlags::Use).execute().await;
        asked.map_err(failed("ask for a neighbour"))?;
    }
    Ok(())
}

/// The neighbour that packets to `addr` go to; `None`: there is no way, or none through a neighbour.
async fn next_hop(handle: &Handle, addr: Ipv4Addr) -> Option<(u32, Ipv4Addr)> {
    let request = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(addr, 32).build();
    let route = handle.route().get(request).execute().next().await?.ok()?;
    hop_of(&route, addr)
}

fn hop_of(route: &RouteMessage, addr: Ipv4Addr) -> Option<(u32, Ipv4Addr)> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    let mut gateway = addr;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = *address,
            _ => {}
        }
    }
    interface.map(|interface| (interface, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(last: u8, lladdr: Option<u8>, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        let addr = NeighbourAddress::Inet(Ipv4Addr::new(192, 168, 80, last));
        message.attributes.push(NeighbourAttribute::Destination(addr));
        message.attributes.extend(lladdr.map(|byte| NeighbourAttribute::LinkLayerAddress(vec![byte; 6])));
        message
    }

    #[test]
    fn only_another_link_layer_address_is_news_of_a_neighbour() {
        let mut known = Known::default();
        let mut is_news = |message| known.is_relevant(&message);
        let new = RouteNetlinkMessage::NewNeighbour;
        assert!(!is_news(new(neighbour(1, None, NeighbourState::Incomplete))));
        assert!(!is_news(new(neighbour(1, Some(1), NeighbourState::Reachable))), "nobody cached it before");
        assert!(!is_news(new(neighbour(1, Some(1), NeighbourState::Stale))));
        assert!(!is_news(RouteNetlinkMessage::DelNeighbour(neighbour(1, Some(1), NeighbourState::Stale))));
        assert!(!is_news(new(neighbour(1, Some(1), NeighbourState::Reachable))));
        assert!(!is_news(new(neighbour(1, None, NeighbourState::Failed))));
        assert!(is_news(new(neighbour(1, Some(2), NeighbourState::Reachable))), "the host has another card");
        assert!(!is_news(new(neighbour(2, Some(7), NeighbourState::Reachable))), "another host");
    }

    #[test]
    fn routes_and_links_are_always_news() {
        let mut known = Known::default();
        assert!(known.is_relevant(&RouteNetlinkMessage::NewRoute(RouteMessage::default())));
        assert!(known.is_relevant(&RouteNetlinkMessage::DelRoute(RouteMessage::default())));
        assert!(known.is_relevant(&RouteNetlinkMessage::NewLink(Default::default())));
        assert!(known.is_relevant(&RouteNetlinkMessage::DelAddress(Default::default())));
    }

    #[test]
    fn the_next_hop_is_the_gateway_or_the_host_itself() {
        let addr = Ipv4Addr::new(192, 168, 80, 167);
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.attributes.push(RouteAttribute::Oif(3));
        assert_eq!(hop_of(&route, addr), Some((3, addr)));
        let gateway = Ipv4Addr::new(192, 168, 80, 1);
        route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        assert_eq!(hop_of(&route, addr), Some((3, gateway)));
        route.header.kind = RouteType::Local;
        assert_eq!(hop_of(&route, addr), None);
    }

    #[test]
    fn stale_failed_and_unknown_neighbours_are_asked_for() {
        let fresh = |state| Neighbour::of(&neighbour(1, None, state)).unwrap().is_fresh();
        assert!(fresh(NeighbourState::Reachable) && fresh(NeighbourState::Permanent) && fresh(NeighbourState::Probe));
        assert!(!fresh(NeighbourState::Stale) && !fresh(NeighbourState::Failed) && !fresh(NeighbourState::None));
    }
}

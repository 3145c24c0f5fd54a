//! Routes, neighbours and links change under a conn on which a packet travels every millisecond. Whatever still works
//! loses nothing; what a change breaks is found again within 100 ms.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::counter::Counter;
use lb_tests::lab::{Ends, Host, Lab, LabOptions, Offload, Pulse, PulseRecord, Segment, Tap, addr, now, wait_for};
use lb_userspace::datapath::{self, Tables};

/// How long a change may go unnoticed.
const FOLLOWED: Duration = Duration::from_millis(100);
/// Steady traffic before an event, and long enough after it to see all that it does.
const STEADY: Duration = Duration::from_millis(500);
/// After which Linux repeats an ARP request (`retrans_time_ms` in arp(7)).
const RETRANS: Duration = Duration::from_secs(1);
const MODES: [(&str, Offload); 2] = [("tc", Offload::On), ("xdp", Offload::Off)];

struct Scene {
    mode: &'static str,
    lab: Lab,
}

impl Scene {
    fn up(mode: &'static str, offload: Offload) -> Self {
        let lab = LabOptions { servers: 1, offload, mariadb: None, ..LabOptions::default() }.up().unwrap();
        lab.take_vips(lab.d1()).unwrap();
        lab.d1().start_agent(&lab.agent_options().mode(mode)).unwrap();
        for host in [lab.client().host(), lab.servers()[0].host()] {
            // A host whose link-layer address changes says so, as bonding and VRRP do (ip-sysctl, arp_notify).
            host.sysctl("ipv4/conf/eth0/arp_notify", "1").unwrap();
        }
        Self { mode, lab }
    }

    fn d1(&self) -> &Host {
        self.lab.d1().host()
    }

    fn client(&self) -> &Host {
        self.lab.client().host()
    }

    fn server(&self) -> &Host {
        self.lab.servers()[0].host()
    }

    fn pulse(&self) -> Pulse {
        let ends = Ends {
            client: SocketAddrV4::new(self.lab.client().address(), 40000),
            vip: addr::SERVICE,
            server: SocketAddrV4::new(self.lab.servers()[0].address(), addr::MYSQL_PORT),
        };
        Pulse::start(self.client(), self.server(), ends).unwrap()
    }

    /// Runs `event` in the middle of a steady pulse; answers when it began, and what became of every ping.
    fn during(&self, what: &str, event: impl FnOnce()) -> (Instant, PulseRecord) {
        let pulse = self.pulse();
        let begin = pulse.after(STEADY);
        event();
        let took = begin.elapsed();
        thread::sleep(STEADY);
        let record = pulse.stop().unwrap();
        let before = record.between(begin - STEADY, begin);
        assert_eq!(before.lost(), 0, "{}: {what}: lost without any event, of {}", self.mode, before.pings.len());
        println!(
            "{:<4} {what}: {} pings, {} lost, whole again {:.1?} after the event began (the event itself took {took:.1?})",
            self.mode,
            record.pings.len(),
            record.lost(),
            record.outage(begin)
        );
        (begin, record)
    }

    fn hop_lookups(&self) -> u64 {
        let tables = Tables::open(&datapath::versioned(&self.lab.d1().pin_directory())).unwrap();
        tables.counter(Counter::HopLookup).unwrap()
    }
}

#[test]
fn another_link_layer_address_of_the_server_or_the_client_is_followed() {
    for (mode, offload) in MODES {
        let scene = Scene::up(mode, offload);
        for (what, host) in [("server's address", scene.server()), ("client's address", scene.client())] {
            let (begin, record) = scene.during(what, || {
                host.ip_batch("link set eth0 address 02:00:00:00:be:ef\n").unwrap();
            });
            // What was on its way to the old address is gone: that is the time until the director was told.
            assert!(record.outage(begin) <= FOLLOWED, "{mode}: {what}: {:?}", record.outage(begin));
            host.ip_batch("link set eth0 address 02:00:00:00:be:01\n").unwrap();
        }
    }
}

#[test]
fn another_route_to_the_client_is_followed_without_a_loss() {
    for (mode, offload) in MODES {
        let scene = Scene::up(mode, offload);
        let (near, far) = scene.lab.put_behind_narrow_link(scene.client(), Segment::Client, 1500).unwrap();
        let client = scene.lab.client().address();
        let second = Ipv4Addr::new(10, 80, 1, 202);
        let near2 = second_router(&scene.lab, &far, client, second);
        // Resolved before it is needed, as for any router that speaks a routing protocol.
        scene.d1().check(&["ping", "-c1", "-W2", &second.to_string()]).unwrap();
        let ways = [(&near2, second), (&near, Ipv4Addr::new(10, 80, 1, 200))];
        for (router, address) in ways {
            let tap = Tap::open(router, "eth0").unwrap();
            let mut first = None;
            let (begin, record) = scene.during(&format!("route via {address}"), || {
                tap.drain().unwrap();
                let begin = now();
                scene.d1().ip_batch(&format!("route replace {client}/32 via {address}\n")).unwrap();
                // The pulse's answers come here now; the pings of the client may, too.
                let arrived = wait_for("an answer that takes the new way", Duration::from_secs(2), || {
                    let frame = tap.receive(Duration::from_millis(5))?;
                    Ok(frame.filter(|frame| frame.bytes[30..34] == client.octets()))
                });
                arrived.unwrap();
                first = Some(begin.elapsed());
            });
            let first = first.unwrap();
            println!("{mode:<4} the first answer took the new way {first:.1?} after the command was started");
            assert!(first <= FOLLOWED, "{mode}: via {address}: {first:?}");
            // Both ways worked all the time.
            assert!(record.lost() <= 1 && record.outage(begin) <= FOLLOWED, "{mode}: {} lost", record.lost());
        }
    }
}

/// A second way from the segment to the host behind `far`.
fn second_router(lab: &Lab, far: &Host, client: Ipv4Addr, address: Ipv4Addr) -> Host {
    let router = lab.add_host("near2").unwrap();
    lab.plug(&router, "eth0", Segment::Client, address).unwrap();
    router
        .ip_batch(&format!(
            "link add wide type veth peer name wide netns {}\naddr add 10.99.81.1/30 dev wide\nlink set wide up\n",
            far.namespace()
        ))
        .unwrap();
    far.ip_batch("addr add 10.99.81.2/30 dev wide\nlink set wide up\n").unwrap();
    router.ip_batch(&format!("route add {client}/32 via 10.99.81.2\n")).unwrap();
    router.sysctl("ipv4/ip_forward", "1").unwrap();
    router
}

#[test]
fn forgotten_neighbours_cost_nothing() {
    for (mode, offload) in MODES {
        let scene = Scene::up(mode, offload);
        let (_, record) = scene.during("20 flushes of all neighbours", || {
            for _ in 0..20 {
                scene.d1().check(&["ip", "neigh", "flush", "all"]).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
        });
        // A flush alone is no news: the addresses are cached.
        assert_eq!(record.lost(), 0, "{mode}");

        let (_, record) = scene.during("20 flushes, each with a change of routes", || {
            for round in 0..20 {
                let verb = if round % 2 == 0 { "add" } else { "del" };
                scene.d1().check(&["ip", "neigh", "flush", "all"]).unwrap();
                scene.d1().ip_batch(&format!("route {verb} blackhole 10.255.0.0/16\n")).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
        });
        // Every cached hop is void, and no neighbour known: the kernel asks while packets wait.
        assert!(record.lost() <= 20, "{mode}: more than one packet for each of 20 flushes: {}", record.lost());
    }
}

#[test]
fn a_neighbour_that_flaps_is_followed() {
    let (server, int0) = ("192.168.80.167", "int0");
    for (mode, offload) in MODES {
        let scene = Scene::up(mode, offload);
        let lookups = scene.hop_lookups();
        let (begin, record) = scene.during("neighbour deleted, wrong, right again", || {
            let d1 = scene.d1();
            d1.ip_batch(&format!("neigh del {server} dev {int0}\n")).unwrap();
            thread::sleep(Duration::from_millis(50));
            d1.ip_batch(&format!("neigh replace {server} lladdr 02:00:00:00:00:99 nud permanent dev {int0}\n"))
                .unwrap();
            thread::sleep(Duration::from_millis(50));
            d1.ip_batch(&format!("neigh replace {server} lladdr 02:00:c0:a8:50:a7 nud reachable dev {int0}\n"))
                .unwrap();
        });
        assert!(scene.hop_lookups() > lookups);
        // Lost: what went to the wrong address while the entry said so. Nothing before, nothing later.
        assert!(record.lost() > 0, "{mode}: the wrong address was never used, so nothing was followed");
        assert!(record.outage(begin) <= 3 * FOLLOWED, "{mode}: {:?}", record.outage(begin));
    }
}

#[test]
fn a_link_that_flaps_is_followed() {
    for (mode, offload) in MODES {
        let scene = Scene::up(mode, offload);
        for interface in ["int0", "ext0"] {
            let mut up = None;
            let (begin, record) = scene.during(&format!("{interface} down for 100 ms"), || {
                scene.d1().ip_batch(&format!("link set {interface} down\n")).unwrap();
                thread::sleep(Duration::from_millis(100));
                up = Some(now());
                scene.d1().ip_batch(&format!("link set {interface} up\n")).unwrap();
                thread::sleep(RETRANS);
            });
            let up = up.unwrap();
            println!("{mode:<4} whole again {:.1?} after it was told to come up", record.outage(up));
            assert!(record.lost() >= 50, "{mode}: {interface} was never down: {} lost", record.lost());
            // Link up, ARP from nothing, both directions; a question that came before the other side's port was ready
            // is asked again by the kernel, not by us.
            assert!(record.outage(up) <= RETRANS + 2 * FOLLOWED, "{mode}: {interface}: {:?}", record.outage(up));
            assert!(record.outage(begin) <= RETRANS + 5 * FOLLOWED);
        }
    }
}

//! Clients on a VLAN (IEEE 802.1Q) or on a VLAN of a provider (802.1ad): a trunk leads to the director, the servers'
//! side is untagged. The agent sits on the VLAN device or on the trunk below it.

use lb_tests::lab::{Lab, LabOptions, Offload, VlanTag, addr};

const VLAN: &[VlanTag] = &[VlanTag::vlan(10)];
const PROVIDER: &[VlanTag] = &[VlanTag::provider(10), VlanTag::vlan(20)];

/// Where the agent's packet path sits.
#[derive(Clone, Copy)]
enum Place {
    Device,
    Trunk,
}

fn works(mode: &str, offload: Offload, tags: &[VlanTag], place: Place) {
    let lab = LabOptions { offload, ..LabOptions::default() }.up().unwrap();
    lab.take_vips(lab.d1()).unwrap();
    let (client, d1) = (lab.client(), lab.d1());
    client.host().tag("eth0", tags, &[format!("{}/24", client.address())], offload).unwrap();
    let addresses = ["10.80.1.241/24".to_owned(), format!("{}/32", addr::VIP)];
    let (device, own) = d1.host().tag("ext0", tags, &addresses, Offload::On).unwrap();
    if !own {
        println!("this kernel has no VLAN devices: small programs put the tags on and take them off");
    }
    let mut options = lab.agent_options().mode(mode);
    options.external = match place {
        Place::Device => device,
        Place::Trunk => "ext0".to_owned(),
    };
    d1.start_agent(&options).unwrap();
    sql(&lab, &format!("{mode} on {}", options.external));
}

/// Short sessions and big transfers, both ways.
fn sql(lab: &Lab, what: &str) {
    let work = lab.client().many_connections(40, 5, 4).unwrap();
    let seen = (work.connections, work.queries, work.failed_connections, work.failed_queries);
    assert_eq!(seen, (40, 200, 0, 0), "{what}: {:?}", work.errors);
    assert_eq!(work.by_backend.values().copied().collect::<Vec<_>>(), [20, 20], "{what}");
    let down = lab.client().download(8).unwrap();
    let up = lab.client().upload(8).unwrap();
    println!(
        "{what}: 40 sessions in {:.0?}, 8 MiB down in {:.0?}, up in {:.0?}",
        work.elapsed, down.elapsed, up.elapsed
    );
}

#[test]
fn a_service_on_a_vlan_device_works() {
    works("auto", Offload::On, VLAN, Place::Device);
    works("auto", Offload::Off, VLAN, Place::Device);
}

#[test]
fn a_service_behind_two_tags_works() {
    works("auto", Offload::On, PROVIDER, Place::Device);
}

#[test]
fn the_packet_path_may_sit_on_the_trunk_tc() {
    works("tc", Offload::On, VLAN, Place::Trunk);
    works("tc", Offload::Off, VLAN, Place::Trunk);
}

#[test]
fn the_packet_path_may_sit_on_the_trunk_behind_two_tags_tc() {
    works("tc", Offload::On, PROVIDER, Place::Trunk);
}

#[test]
fn the_packet_path_may_sit_on_the_trunk_xdp() {
    works("xdp", Offload::Off, VLAN, Place::Trunk);
}

#[test]
fn the_packet_path_may_sit_on_the_trunk_behind_two_tags_xdp() {
    works("xdp", Offload::Off, PROVIDER, Place::Trunk);
}

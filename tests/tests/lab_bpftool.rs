//! bpftool on the pinned maps of a working agent prints names: fields, enum variants, readable addresses. Typed dumps
//! are a supported interface.

use std::net::Ipv4Addr;

use lb_common::counter::Counter;
use lb_tests::checks::{Sessions, Setting};
use lb_tests::lab::{Lab, addr};
use serde_json::{Value, json};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 80, 1, 1);
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 80, 136), Ipv4Addr::new(192, 168, 80, 167)];

fn lab() -> (Lab, Sessions) {
    let lab = Setting::default().up().unwrap();
    let sessions = Sessions::open(&lab, 4).unwrap();
    (lab, sessions)
}

/// An address is a struct with one field, its four numbers.
fn address(value: &Value) -> Ipv4Addr {
    let numbers = value["octets"].clone();
    let octets: [u8; 4] = serde_json::from_value(numbers).unwrap_or_else(|_| panic!("not four numbers: {value}"));
    octets.into()
}

#[test]
fn bpftool_prints_services_backends_and_conns_with_the_names_of_fields_and_variants() {
    let (lab, sessions) = lab();
    let d1 = lab.d1();

    let services = d1.map_dump("services").unwrap();
    let [service] = services.as_slice() else { panic!("{services:?}") };
    println!("{service:#}");
    assert_eq!(address(&service["key"]["vip"]), addr::VIP);
    assert_eq!(service["key"]["port"], json!(addr::MYSQL_PORT));
    assert_eq!(service["key"]["proto"], json!("Tcp"));
    assert_eq!(service["value"]["scheduler"], json!("Rr"));
    assert_eq!(service["value"]["no_conn"], json!("Drop"));

    // An array: the entries not used are of state Unused.
    let backends = d1.map_dump("backends").unwrap();
    let used: Vec<_> =
        backends.iter().map(|entry| &entry["value"]).filter(|value| value["state"] != "Unused").collect();
    println!("{used:#?}");
    let mut addresses: Vec<_> = used.iter().map(|value| address(&value["addr"])).collect();
    addresses.sort();
    assert_eq!(addresses, SERVERS);
    for value in used {
        assert_eq!((&value["state"], &value["port"], &value["weight"]), (&json!("Up"), &json!(3306), &json!(1)));
        assert!(value["on_down"].is_string(), "{value}");
    }

    let conns = d1.map_dump("conns").unwrap();
    assert_eq!(conns.len(), 2 * sessions.len(), "an entry per direction");
    println!("{:#}", conns[0]);
    let of = |dir: &str| conns.iter().filter(|entry| entry["value"]["dir"] == dir).count();
    assert_eq!((of("Forward"), of("Reverse")), (sessions.len(), sessions.len()));
    for entry in &conns {
        let (key, value) = (&entry["key"], &entry["value"]);
        assert_eq!((&key["proto"], &value["origin"]), (&json!("Tcp"), &json!("Local")));
        if value["dir"] == "Forward" {
            assert_eq!((address(&key["src"]), address(&key["dst"])), (CLIENT, addr::VIP));
            assert_eq!(key["dport"], json!(addr::MYSQL_PORT));
            assert!(SERVERS.contains(&address(&value["dst"])), "{value}");
        } else {
            assert_eq!((address(&value["src"]), address(&value["dst"])), (addr::VIP, CLIENT));
        }
    }

    let counters = d1.map_dump("counters").unwrap();
    let [all] = counters.as_slice() else { panic!("{counters:?}") };
    println!("{all:#}");
    let sum = |name: &str| -> u64 {
        let cpus = all["values"].as_array().unwrap();
        cpus.iter().map(|cpu| cpu["value"][name].as_u64().unwrap_or_else(|| panic!("no field {name} in {cpu}"))).sum()
    };
    assert_eq!((sum("conns_opened"), sum("conns_established"), sum("no_backend")), (4, 4, 0));
    for counter in Counter::ALL {
        sum(counter.name());
    }
}

/// What people see, as opposed to programs: the plain form.
#[test]
fn the_plain_dump_reads_like_a_struct() {
    let (lab, _sessions) = lab();
    let path = lab.d1().pins().join("conns").display().to_string();
    let text = lab.d1().host().check(&["bpftool", "map", "dump", "pinned", &path]).unwrap();
    for words in [
        "\"octets\": [10,80,1,1\n",
        "\"dport\": 3306",
        "\"proto\": \"Tcp\"",
        "\"dir\": \"Forward\"",
        "\"dir\": \"Reverse\"",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}

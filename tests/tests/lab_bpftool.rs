//! bpftool on the pinned maps of a working agent prints names: fields, enum variants, readable addresses. Typed dumps
//! are a supported interface.

use lb_tests::checks::{Sessions, Setting};
use lb_tests::lab::{Lab, addr};
use serde_json::{Value, json};

fn lab() -> (Lab, Sessions) {
    let lab = Setting::default().up().unwrap();
    let sessions = Sessions::open(&lab, 4).unwrap();
    (lab, sessions)
}

/// Four numbers, or what holds them.
fn address(value: &Value) -> String {
    let bytes = value.as_array().unwrap_or_else(|| panic!("an address is four numbers, not {value}"));
    bytes
        .iter()
        .map(|byte| byte.as_u64().map_or_else(|| byte.to_string(), |byte| byte.to_string()))
        .collect::<Vec<_>>()
        .join(".")
}

#[test]
fn bpftool_prints_services_backends_and_conns_with_the_names_of_fields_and_variants() {
    let (lab, sessions) = lab();
    let d1 = lab.d1();

    let services = d1.map_dump("services").unwrap();
    let [service] = services.as_slice() else { panic!("{services:?}") };
    println!("{service:#}");
    assert_eq!(address(&service["key"]["vip"]), addr::VIP.to_string());
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
    assert_eq!(addresses, ["192.168.80.136", "192.168.80.167"]);
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
            assert_eq!((address(&key["src"]), address(&key["dst"])), ("10.80.1.1".to_owned(), addr::VIP.to_string()));
            assert_eq!(key["dport"], json!(addr::MYSQL_PORT));
            assert!(address(&value["dst"]).starts_with("192.168.80."));
        } else {
            assert_eq!(address(&value["src"]), addr::VIP.to_string());
            assert_eq!(value["dst"], json!([10, 80, 1, 1]));
        }
    }
}

/// What people see, as opposed to programs: the plain form.
#[test]
fn the_plain_dump_reads_like_a_struct() {
    let (lab, _sessions) = lab();
    let path = lab.d1().pins().join("conns").display().to_string();
    let text = lab.d1().host().check(&["bpftool", "map", "dump", "pinned", &path]).unwrap();
    for words in
        ["\"src\": [10,80,1,1", "\"dport\": 3306", "\"proto\": \"Tcp\"", "\"dir\": \"Forward\"", "\"dir\": \"Reverse\""]
    {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}

use super::*;
use crate::control::protocol::{AddrFilter, ErrorCode::*};
use lb_common::{backend::BackendState, conn::Proto, service::Scheduler, tcp::State};
use proptest::prelude::*;

fn decode(text: &str) -> Result<Request, ApiError> {
    Request::decode(text.as_bytes())
}

#[test]
fn the_wire_form_of_every_request_is_fixed() {
    let backend = |action, service: Option<&str>| {
        Request::Backend(BackendCommand {
            action,
            service: service.map(str::to_owned),
            address: "192.168.80.167:3306".parse().unwrap(),
        })
    };
    let filter = ConnFilter {
        client: Some("10.80.1.0/24".parse::<AddrFilter>().unwrap()),
        backend: Some("192.168.80.167".parse().unwrap()),
        service: Some("mysql".to_owned()),
        state: Some(State::Established),
        idle_gt: Some(60),
        limit: Some(10),
    };
    for (request, line) in [
        (Request::Status, r#"{"version":1,"verb":"status"}"#),
        (Request::Services, r#"{"version":1,"verb":"services"}"#),
        (Request::Conns(ConnFilter::default()), r#"{"version":1,"verb":"conns"}"#),
        (
            Request::Conns(filter),
            r#"{"version":1,"verb":"conns","client":"10.80.1.0/24","backend":"192.168.80.167","service":"mysql","state":"ESTABLISHED","idle_gt":60,"limit":10}"#,
        ),
        (Request::Stats, r#"{"version":1,"verb":"stats"}"#),
        (Request::Rate { interval_ms: 500 }, r#"{"version":1,"verb":"rate","interval_ms":500}"#),
        (Request::Drops, r#"{"version":1,"verb":"drops"}"#),
        (
            backend(BackendAction::Drain { deadline_seconds: None }, None),
            r#"{"version":1,"verb":"backend","action":"drain","address":"192.168.80.167:3306"}"#,
        ),
        (
            backend(BackendAction::Undrain, Some("mysql")),
            r#"{"version":1,"verb":"backend","action":"undrain","service":"mysql","address":"192.168.80.167:3306"}"#,
        ),
        (
            backend(BackendAction::Weight { weight: 3 }, None),
            r#"{"version":1,"verb":"backend","action":"weight","weight":3,"address":"192.168.80.167:3306"}"#,
        ),
        (Request::Failover { drill: false, force: false }, r#"{"version":1,"verb":"failover","drill":false}"#),
        (
            Request::Failover { drill: true, force: true },
            r#"{"version":1,"verb":"failover","drill":true,"force":true}"#,
        ),
        (Request::Peer, r#"{"version":1,"verb":"peer"}"#),
        (Request::Diff { limit: 7 }, r#"{"version":1,"verb":"diff","limit":7}"#),
    ] {
        assert_eq!(String::from_utf8(request.encode().unwrap()).unwrap(), line);
        assert_eq!(decode(line), Ok(request), "{line}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    for (line, code, message) in [
        ("", BadRequest, "EOF while parsing"),
        ("{", BadRequest, "EOF while parsing"),
        ("[]", BadRequest, "one JSON object"),
        ("{\"version\":1}{}", BadRequest, "trailing"),
        ("\u{fffd}", BadRequest, "one JSON object"),
        (r#"{"verb":"status"}"#, BadRequest, "no version"),
        (r#"{"version":1}"#, BadRequest, "no verb"),
        (r#"{"version":1,"verb":7}"#, BadRequest, "no verb"),
        (r#"{"version":2,"verb":"later"}"#, Version, "protocol version 2, this agent speaks version 1"),
        (r#"{"version":"1","verb":"status"}"#, Version, "protocol version \"1\""),
        (r#"{"version":1,"verb":"reboot"}"#, UnknownVerb, "'reboot'; it knows status, services"),
        (r#"{"version":1,"verb":"status","x":1}"#, BadArgument, "status: unknown field `x`"),
        (r#"{"version":1,"verb":"conns","state":"OPEN"}"#, BadArgument, "expected one of SYN_RECV, ESTABLISHED"),
        (r#"{"version":1,"verb":"conns","client":"db1"}"#, BadArgument, "'db1' is no IPv4 address"),
        (r#"{"version":1,"verb":"conns","limit":-1}"#, BadArgument, "invalid value"),
        (r#"{"version":1,"verb":"rate","interval_ms":99}"#, BadArgument, "must be 100 to 60000"),
        (r#"{"version":1,"verb":"backend","address":"1.2.3.4:5"}"#, BadArgument, "missing field `action`"),
        (
            r#"{"version":1,"verb":"backend","action":"weight","address":"1.2.3.4:5"}"#,
            BadArgument,
            "needs the argument",
        ),
        (
            r#"{"version":1,"verb":"backend","action":"drain","weight":1,"address":"1.2.3.4:5"}"#,
            BadArgument,
            "only the action weight",
        ),
        (
            r#"{"version":1,"verb":"backend","action":"weight","weight":65536,"address":"1.2.3.4:5"}"#,
            BadArgument,
            "65536",
        ),
    ] {
        let error = decode(line).unwrap_err();
        assert_eq!(error.code, code, "{line}: {error}");
        assert!(error.message.contains(message), "{line}: {error}");
    }
    assert_eq!(decode(r#"{"verb":"rate","version":1}"#), Ok(Request::Rate { interval_ms: 1000 }));
}

#[test]
fn json_as_deep_as_a_line_allows_is_refused() {
    let line = format!("{{\"version\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(decode(&line).unwrap_err().code, BadRequest);
}

fn service(name: &str, backends: &[&str]) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        listen: "10.80.1.243:3306".parse().unwrap(),
        protocol: Proto::Tcp,
        scheduler: Scheduler::Rr,
        backends: backends
            .iter()
            .map(|address| BackendView {
                address: address.parse().unwrap(),
                forward: "Masq".to_owned(),
                weight: 1,
                state: BackendState::Up,
                word: String::new(),
                active: 0,
                inactive: 0,
                left: None,
                disagreement: None,
            })
            .collect(),
        active: 0,
        inactive: 0,
    }
}

#[test]
fn a_backend_is_found_by_its_address_and_if_needed_by_its_service() {
    let services = [service("rw", &["10.0.0.1:3306"]), service("ro", &["10.0.0.1:3306", "10.0.0.2:3306"])];
    for (name, address, expected) in [
        (None, "10.0.0.2:3306", Ok("ro")),
        (Some("rw"), "10.0.0.1:3306", Ok("rw")),
        (Some("ro"), "10.0.0.1:3306", Ok("ro")),
        (None, "10.0.0.1:3306", Err((Ambiguous, "name one: rw, ro"))),
        (None, "10.0.0.2:3307", Err((UnknownBackend, "no service has a backend 10.0.0.2:3307"))),
        (Some("rw"), "10.0.0.2:3306", Err((UnknownBackend, "the service 'rw' has no backend"))),
        (Some("rx"), "10.0.0.1:3306", Err((UnknownService, "'rx'; there are: rw, ro"))),
    ] {
        let command = BackendCommand {
            action: BackendAction::Drain { deadline_seconds: None },
            service: name.map(str::to_owned),
            address: address.parse().unwrap(),
        };
        match (command.find(&services), expected) {
            (Ok((service, backend)), Ok(name)) => {
                assert_eq!((service.name.as_str(), backend.address), (name, command.address));
            }
            (Err(error), Err((code, message))) => {
                assert_eq!(error.code, code, "{error}");
                assert!(error.message.contains(message), "{error}");
            }
            (found, expected) => panic!("{command:?}: {found:?}, expected {expected:?}"),
        }
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let name = || proptest::option::of("\\PC{0,20}");
    let filter = || {
        let filter = (any::<u32>(), 0..=32_u8, proptest::option::of(any::<u16>()));
        proptest::option::of(filter.prop_map(|(addr, prefix, port)| {
            let addr = std::net::Ipv4Addr::from_bits(addr);
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("{addr}/{prefix}{port}").parse::<AddrFilter>().unwrap()
        }))
    };
    let state = proptest::option::of(proptest::sample::select(State::ALL));
    let number = || proptest::option::of(any::<u64>());
    let conns = (filter(), filter(), name(), state, number(), number()).prop_map(
        |(client, backend, service, state, idle_gt, limit)| {
            Request::Conns(ConnFilter { client, backend, service, state, idle_gt, limit })
        },
    );
    let action = prop_oneof![
        any::<Option<u64>>().prop_map(|deadline_seconds| BackendAction::Drain { deadline_seconds }),
        Just(BackendAction::Disable),
        Just(BackendAction::Enable),
        Just(BackendAction::Kill),
        Just(BackendAction::Undrain),
        any::<u16>().prop_map(|weight| BackendAction::Weight { weight }),
    ];
    let backend = (action, name(), any::<(u32, u16)>()).prop_map(|(action, service, (ip, port))| {
        let address = SocketAddrV4::new(ip.into(), port);
        Request::Backend(BackendCommand { action, service, address })
    });
    prop_oneof![conns, backend, Request::INTERVAL_MS.prop_map(|interval_ms| Request::Rate { interval_ms })]
}

proptest! {
    #[test]
    fn every_request_survives_the_wire(request in any_request()) {
        let line = request.encode().unwrap();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(Request::decode(&line), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes);
    }

    #[test]
    fn a_damaged_request_is_refused_or_still_a_request(
        request in any_request(), at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut line = request.encode().unwrap();
        let at = at.index(line.len());
        line[at] = byte;
        let _ = Request::decode(&line);
        let _ = Request::decode(&line[..at]);
    }
}

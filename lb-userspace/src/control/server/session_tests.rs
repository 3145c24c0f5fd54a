use super::*;
use crate::control::{
    protocol::{BackendAnswer, BackendCommand, DiffView, FailoverAnswer, ServiceView, StatsView, Status, SyncView},
    server::Reply,
};
use lb_common::counter::Counter;
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::AsyncReadExt;

/// An agent without services, whose status fails.
struct Idle;

impl Handler for Idle {
    fn status(&self) -> Reply<'_, Status> {
        Box::pin(async { Err(ApiError::internal("the maps cannot be read")) })
    }
    fn services(&self) -> Reply<'_, Vec<ServiceView>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn conns(&self, _: &ConnFilter, _: &mut ConnSink) -> Result<(), ApiError> {
        Ok(())
    }
    fn stats(&self) -> Reply<'_, Vec<StatsView>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn counters(&self) -> Reply<'_, Vec<(Counter, u64)>> {
        Box::pin(async { Ok(vec![(Counter::NoConn, 7)]) })
    }
    fn backend(&self, command: BackendCommand) -> Reply<'_, BackendAnswer> {
        Box::pin(async move { Err(command.find(&[]).err().unwrap_or_else(|| ApiError::internal("found"))) })
    }
    fn failover(&self, _: bool, _: bool) -> Reply<'_, FailoverAnswer> {
        Box::pin(async { Err(ApiError::new(ErrorCode::WrongRole, "nobody is there")) })
    }
    fn peer(&self) -> Reply<'_, SyncView> {
        Box::pin(async { Err(ApiError::new(ErrorCode::NoSync, "nobody is there")) })
    }
    fn diff(&self, _: u64) -> Reply<'_, Vec<DiffView>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

const LIMITS: Limits = Limits { clients: 1, line: 300, idle: Duration::from_secs(5), stall: Duration::from_secs(5) };

/// Sends everything, closes the sending side, and returns what came back until the server closed.
fn exchange(input: &[u8], limits: Limits) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut read, mut write) = ours.into_split();
        let mut answer = Vec::new();
        let ((), (), ran) = tokio::join!(
            async {
                // The server may close before it has read everything.
                let _ = write.write_all(input).await;
                let _ = write.shutdown().await;
            },
            async {
                let _ = read.read_to_end(&mut answer).await;
            },
            timeout(Duration::from_secs(20), run(theirs, Arc::new(Idle), limits)),
        );
        ran.expect("the session ends when the client does").ok();
        answer
    });
    assert!(answer.is_empty() || answer.ends_with(b"\n"));
    answer.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn codes(answers: &[Value]) -> Vec<&str> {
    answers.iter().map(|a| a["error"]["code"].as_str().unwrap_or("-")).collect()
}

#[test]
fn requests_are_answered_in_order_and_refusals_keep_the_stream_open() {
    let input = "{\"version\":1,\"verb\":\"services\"}\n{\"version\":1,\"verb\":\"dance\"}\n\
                 {\"version\":9,\"verb\":\"status\"}\n{\"version\":1,\"verb\":\"status\"}\n\
                 {\"version\":1,\"verb\":\"backend\",\"action\":\"drain\",\"address\":\"1.2.3.4:5\"}\n\
                 {\"version\":1,\"verb\":\"drops\"}";
    let answers = exchange(input.as_bytes(), LIMITS);
    let expected = ["-", "unknown_verb", "version", "internal", "unknown_backend", "-", "-"];
    assert_eq!(codes(&answers), expected);
    assert_eq!(answers[0], serde_json::json!({"end": true, "count": 0}));
    assert_eq!(answers[2]["version"], 1);
    assert_eq!(answers[5]["item"]["reason"], "no_conn");
    assert_eq!(answers[6], serde_json::json!({"end": true, "count": 1}));
}

#[test]
fn what_is_no_request_is_answered_once_and_ends_the_stream() {
    let good = "{\"version\":1,\"verb\":\"services\"}\n";
    for bad in ["\n", "hello\n", "{}\n", "GET / HTTP/1.1\r\n\r\n", "\u{0}\u{ff}\n"] {
        let answers = exchange(format!("{good}{bad}{good}").as_bytes(), LIMITS);
        assert_eq!(codes(&answers), ["-", "bad_request"], "{bad:?}");
    }
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    let padded = |len: usize| {
        let line = "{\"version\":1,\"verb\":\"services\"";
        format!("{line}{}}}\n", " ".repeat(len - line.len() - 1))
    };
    assert_eq!(codes(&exchange(padded(300).as_bytes(), LIMITS)), ["-"]);
    assert_eq!(codes(&exchange(padded(301).as_bytes(), LIMITS)), ["bad_request"]);
    // Neither a missing newline nor the amount of it makes the server read on.
    assert_eq!(codes(&exchange(&vec![b'x'; 4 << 20], LIMITS)), ["bad_request"]);
    assert_eq!(codes(&exchange(&vec![b'x'; (64 << 10) + 1], Limits::default())), ["bad_request"]);
}

#[test]
fn a_client_that_sends_nothing_or_half_a_request_is_left() {
    let limits = Limits { idle: Duration::from_millis(50), ..LIMITS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for half in ["", "{\"version\":1,"] {
        runtime.block_on(async {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(half.as_bytes()).await.unwrap();
            let ran = timeout(Duration::from_secs(5), run(theirs, Arc::new(Idle), limits)).await;
            assert!(ran.expect("within the idle limit").is_ok());
            assert_eq!(ours.read(&mut [0; 16]).await.unwrap_or(0), 0);
        });
    }
}

/// Bytes that resemble requests more or less.
fn any_input() -> impl Strategy<Value = Vec<u8>> {
    const VERBS: [&str; 8] = ["status", "services", "conns", "stats", "drops", "backend", "rate", "x"];
    let request = (proptest::sample::select(&VERBS[..]), "(,\"[a-z_]{1,8}\":[0-9a-z\"\\[{]{0,6}){0,3}")
        .prop_map(|(verb, rest)| format!("{{\"version\":1,\"verb\":\"{verb}\"{rest}}}").into_bytes());
    let line = prop_oneof![
        3 => request,
        1 => proptest::collection::vec(any::<u8>(), 0..400),
        1 => "\\PC{0,80}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A panic in the session fails the test, and so does a session that neither answers nor closes.
    #[test]
    fn any_bytes_are_answered_or_closed(input in any_input()) {
        // A valid `rate` sleeps; everything else about it is covered.
        prop_assume!(!String::from_utf8_lossy(&input).contains("\"rate\"}"));
        let answers = exchange(&input, LIMITS);
        prop_assert_eq!(answers.is_empty(), input.is_empty());
        for answer in &answers {
            let is_answer = answer["end"] == true || answer.get("item").is_some() || answer["error"]["code"].is_string();
            prop_assert!(is_answer, "{answer}");
        }
    }
}

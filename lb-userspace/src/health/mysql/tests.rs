//! Conversations with a server that is played here, packet by packet. Real servers are in the lab's tests.

use std::{fs, path::Path, sync::Arc};

use super::*;
use crate::health::{
    outcome::{Fault, Outcome, Phase},
    plan::Tls,
    secret::Secret,
};

const PASSWORD: &[u8] = b"geheim-7-und-mehr";
const SSL: u32 = 0x0800;

fn login(tls: Tls) -> Login {
    Login { user: "lb_check".into(), secret: Some(Arc::new(Secret::new(PASSWORD))), tls }
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    [&[a, b, c, sequence], payload].concat()
}

fn greeting(version: &str, plugin: &str, more: u32) -> Vec<u8> {
    let capabilities: u32 = 0x0008_8000 | 0x0200 | 1 | more;
    let [a, b, c, d] = capabilities.to_le_bytes();
    let mut payload = vec![10];
    payload.extend(version.as_bytes());
    payload.extend([0, 7, 0, 0, 0]);
    payload.extend([0x41; 8]);
    payload.extend([0, a, b, 45, 2, 0, c, d, 21]);
    payload.extend([0; 10]);
    payload.extend([0x42; 12]);
    payload.push(0);
    payload.extend(plugin.as_bytes());
    payload.push(0);
    packet(0, &payload)
}

fn error(sequence: u8, code: u16, text: &str) -> Vec<u8> {
    let [a, b] = code.to_le_bytes();
    packet(sequence, &[&[0xff, a, b][..], b"#28000", text.as_bytes()].concat())
}

const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];

fn sent(session: &mut Session) -> Vec<u8> {
    session.take_output().to_vec()
}

/// A session that is logged in.
fn ready() -> Session {
    let mut session = Session::new(login(Tls::Off));
    assert_eq!(session.receive(&greeting("9.7.1", "caching_sha2_password", 0)), Ok(None));
    assert_eq!(session.receive(&packet(2, &[1, 3])), Ok(None));
    assert_eq!(session.receive(&packet(3, &OK)), Ok(Some(Reply::LoggedIn)));
    assert_eq!(session.wants(), Wants::Command);
    sent(&mut session);
    session
}

fn garbage(result: Result<Option<Reply>, Outcome>) -> &'static str {
    match result {
        Err(Outcome::Fail(Fault::Garbage { what, .. })) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_by_the_fast_path_then_ping_query_and_quit() {
    let mut session = Session::new(login(Tls::Prefer));
    assert_eq!((session.phase(), session.wants()), (Phase::Greeting, Wants::Input));
    assert_eq!(session.receive(&greeting("9.7.1", "caching_sha2_password", 0)), Ok(None));
    let response = sent(&mut session);
    assert_eq!(response[3], 1, "the second packet of the exchange");
    let has = |what: &[u8]| response.windows(what.len()).any(|window| window == what);
    assert!(has(b"lb_check\0") && has(b"caching_sha2_password\0") && !has(PASSWORD));
    assert_eq!(session.phase(), Phase::Login);
    assert_eq!(session.receive(&packet(2, &[1, 3])), Ok(None));
    assert_eq!(session.receive(&packet(3, &OK)), Ok(Some(Reply::LoggedIn)));
    assert_eq!(session.version(), "9.7.1");

    session.ask(&Command::Ping);
    assert_eq!(sent(&mut session), [1, 0, 0, 0, 0x0e]);
    assert_eq!(session.receive(&packet(1, &OK)), Ok(Some(Reply::Pong)));

    session.ask(&Command::Query("SELECT a, b".into()));
    assert_eq!(sent(&mut session), packet(0, b"\x03SELECT a, b"));
    let column = |name: &str| [b"\x03def\0\0\0", &[name.len() as u8][..], name.as_bytes(), &[0; 14]].concat();
    let end = [0xfe, 0, 0, 2, 0];
    let answer = [
        packet(1, &[2]),
        packet(2, &column("a")),
        packet(3, &column("b")),
        packet(4, &end),
        packet(5, b"\x03one\xfb"),
        packet(6, b"\0\x03two"),
        packet(7, &end),
    ]
    .concat();
    let (first, last) = answer.split_at(30);
    assert_eq!(session.receive(first), Ok(None));
    let Ok(Some(Reply::Rows(rows))) = session.receive(last) else { panic!("no rows") };
    assert_eq!(rows.columns, ["a", "b"]);
    assert_eq!(rows.rows, [[Some(b"one".to_vec()), None], [Some(vec![]), Some(b"two".to_vec())]]);

    session.ask(&Command::Quit);
    assert_eq!(sent(&mut session), [1, 0, 0, 0, 1]);
    assert_eq!(session.wants(), Wants::End);
}

#[test]
fn an_error_to_a_statement_leaves_the_connection_good() {
    let mut session = ready();
    session.ask(&Command::Query("SELECT".into()));
    assert_eq!(session.receive(&error(1, 1064, "syntax")), Err(Outcome::CheckUser("ERROR 1064: syntax".into())));
    assert_eq!(session.wants(), Wants::Command);
    session.ask(&Command::Query("SELECT".into()));
    let answer = session.receive(&error(1, 1047, "WSREP has not yet prepared node for application use"));
    let Err(Outcome::Fail(fault)) = answer else { panic!("{answer:?}") };
    assert!(fault.to_string().contains("Galera"), "{fault}");
}

#[test]
fn with_tls_the_login_waits_for_it_and_the_password_leaves_only_behind_it() {
    let mut session = Session::new(login(Tls::Prefer));
    session.receive(&greeting("9.7.1", "caching_sha2_password", SSL)).unwrap();
    let request = sent(&mut session);
    assert_eq!((request.len(), request[3]), (36, 1), "the short form that asks for TLS");
    assert_eq!((session.phase(), session.wants()), (Phase::Tls, Wants::Tls));
    session.tls_ready().unwrap();
    assert_eq!(sent(&mut session)[3], 2);
    // The server does not know the scramble: it asks for the password.
    assert_eq!(session.receive(&packet(3, &[1, 4])), Ok(None));
    assert_eq!(sent(&mut session), packet(4, &[PASSWORD, &[0]].concat()));
    assert_eq!(session.receive(&packet(5, &OK)), Ok(Some(Reply::LoggedIn)));
}

#[test]
fn what_is_said_before_tls_in_the_clear_is_not_believed() {
    let mut session = Session::new(login(Tls::Prefer));
    let early = [greeting("9.7.1", "caching_sha2_password", SSL), packet(3, &OK)].concat();
    assert_eq!(session.receive(&early), Ok(None));
    assert!(session.tls_ready().is_err());
}

#[test]
fn without_tls_the_password_is_encrypted_with_the_servers_key() {
    let mut session = Session::new(login(Tls::Off));
    session.receive(&greeting("9.7.1", "caching_sha2_password", SSL)).unwrap();
    sent(&mut session);
    assert_eq!(session.receive(&packet(2, &[1, 4])), Ok(None));
    assert_eq!(sent(&mut session), packet(3, &[2]), "asks for the key");
    let key = [&[1], include_bytes!("testdata/rsa1024.pub.pem").as_slice()].concat();
    assert_eq!(session.receive(&packet(4, &key)), Ok(None));
    let encrypted = sent(&mut session);
    assert_eq!((encrypted.len(), encrypted[3]), (4 + 128, 5));
    assert_eq!(session.receive(&packet(6, &OK)), Ok(Some(Reply::LoggedIn)));

    let mut session = Session::new(login(Tls::Off));
    session.receive(&greeting("9.7.1", "caching_sha2_password", 0)).unwrap();
    session.receive(&packet(2, &[1, 4])).unwrap();
    assert_eq!(garbage(session.receive(&packet(4, b"\x01no key"))), "a public key that is none");
}

#[test]
fn a_password_that_must_not_leave_in_the_clear_does_not_leave() {
    for tls in [Tls::Require, Tls::Verify] {
        let mut session = Session::new(login(tls));
        session.receive(&greeting("5.7.44", "mysql_native_password", 0)).unwrap();
        let response = sent(&mut session);
        let anonymous = {
            let mut other = Session::new(Login { secret: None, ..login(Tls::Off) });
            other.receive(&greeting("5.7.44", "mysql_native_password", 0)).unwrap();
            sent(&mut other)
        };
        assert_eq!(response, anonymous, "no proof in it");
        // The login is completed all the same, and the verdict is about TLS.
        assert_eq!(
            session.receive(&error(2, 1045, "Access denied")),
            Err(Outcome::Fail(Fault::Tls("the server offers none".into())))
        );
    }
}

#[test]
fn the_server_may_ask_for_another_plugin() {
    for (plugin, nonce, length) in
        [("mysql_native_password", 20, 20), ("caching_sha2_password", 20, 32), ("client_ed25519", 32, 64)]
    {
        let mut session = Session::new(login(Tls::Off));
        session.receive(&greeting("10.11.19-MariaDB", "dialog", 0)).unwrap();
        sent(&mut session);
        let request = [&[0xfe], plugin.as_bytes(), &[0], &vec![3; nonce][..]].concat();
        assert_eq!(session.receive(&packet(2, &request)), Ok(None));
        assert_eq!(sent(&mut session).len(), 4 + length, "{plugin}");
        assert_eq!(session.receive(&packet(4, &OK)), Ok(Some(Reply::LoggedIn)));
    }
}

#[test]
fn a_plugin_that_we_do_not_know_is_the_check_users_problem_and_the_login_ends_in_order() {
    for request in [&b"\xfeauth_gssapi_client\0x"[..], b"\xfe", b"\xfemysql_clear_password\0"] {
        let mut session = Session::new(login(Tls::Off));
        session.receive(&greeting("10.11.19-MariaDB", "mysql_native_password", 0)).unwrap();
        sent(&mut session);
        assert_eq!(session.receive(&packet(2, request)), Ok(None));
        assert_eq!(sent(&mut session), packet(3, &[]), "an empty proof");
        let answer = session.receive(&error(4, 1045, "Access denied"));
        let Err(Outcome::CheckUser(text)) = answer else { panic!("{answer:?}") };
        assert!(text.contains("does not know"), "{text}");
    }
}

#[test]
fn errors_instead_of_a_greeting_have_their_verdict_with_and_without_sql_state() {
    let bare = |code: u16, text: &str| {
        let [a, b] = code.to_le_bytes();
        packet(0, &[&[0xff, a, b], text.as_bytes()].concat())
    };
    for (code, word) in [(1040, "full"), (1129, "blocked"), (1130, "check-user"), (1053, "fail")] {
        for bytes in [bare(code, "text"), error(0, code, "text")] {
            let outcome = Session::new(login(Tls::Off)).receive(&bytes).unwrap_err();
            assert_eq!(outcome.word(), word);
            assert!(code == 1040 || outcome.text().contains("text"), "{outcome:?}");
            assert!(!outcome.text().contains("28000"), "{outcome:?}");
        }
    }
}

#[test]
fn a_server_that_repeats_the_password_is_not_quoted() {
    let mut session = Session::new(login(Tls::Off));
    session.receive(&greeting("9.7.1", "mysql_native_password", 0)).unwrap();
    let told = format!("you are {}, are you not", String::from_utf8_lossy(PASSWORD));
    let outcome = session.receive(&error(2, 1045, &told)).unwrap_err();
    assert_eq!(outcome.text(), "ERROR 1045: you are …, are you not");
    let mut session = ready();
    session.ask(&Command::Ping);
    assert!(!session.receive(&error(1, 1053, &told)).unwrap_err().text().contains("geheim"));
    assert!(!format!("{:?} {:?}", session, login(Tls::Off)).contains("geheim"));
}

#[test]
fn a_server_that_stops_says_so_unasked() {
    let mut session = ready();
    let outcome = session.receive(&error(0, 1053, "Server shutdown in progress")).unwrap_err();
    assert_eq!(outcome.text(), "ERROR 1053: Server shutdown in progress");
    assert_eq!(garbage(ready().receive(&packet(0, &OK))), "a packet that was not asked for");
}

#[test]
fn what_is_not_mysql_is_garbage() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"220 mail.example.org ESMTP\r\n",
        &[0xff, 0xff, 0xff, 0x00],
        &[0, 0, 0, 0],
        &[1, 0, 0, 0, 9],
        &[1, 0, 0, 0, 10],
        &[5, 0, 0, 1, 10, 0, 0, 0, 0],
    ] {
        garbage(Session::new(login(Tls::Prefer)).receive(bytes));
    }
    let mut session = ready();
    session.ask(&Command::Ping);
    assert_eq!(garbage(session.receive(&[packet(1, &OK), packet(2, &OK)].concat())), "more than was asked for");
    let mut session = ready();
    session.ask(&Command::Query("SELECT 1".into()));
    assert_eq!(garbage(session.receive(&packet(1, &[0xfb]))), "the server asks for a file");
}

#[test]
fn an_endless_answer_ends() {
    let mut session = ready();
    session.ask(&Command::Query("SELECT 1".into()));
    let column = b"\x03def\0\0\0\x011\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let head = [packet(1, &[1]), packet(2, column), packet(3, &[0xfe, 0, 0, 2, 0])].concat();
    assert_eq!(session.receive(&head), Ok(None));
    let mut sequence = 3_u8;
    let what = (0..5000).find_map(|_| {
        sequence = sequence.wrapping_add(1);
        session.receive(&packet(sequence, b"\x011")).err()
    });
    assert_eq!(what, Some(Outcome::Fail(Fault::Garbage { phase: Phase::Query, what: "an endless answer" })));

    // A login that goes round and round.
    let mut session = Session::new(login(Tls::Off));
    session.receive(&greeting("9.7.1", "caching_sha2_password", 0)).unwrap();
    let what = (1..100).find_map(|turn: u8| session.receive(&packet(2 * turn, &[1, 4])).err());
    assert_eq!(what, Some(Outcome::Fail(Fault::Garbage { phase: Phase::Login, what: "an endless login" })));
}

/// The server's side of a conversation: one line of hex per turn.
fn turns(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|line| line.trim().as_bytes().chunks(2).map(byte).collect()).collect()
}

fn corpus() -> Vec<(String, Vec<Vec<u8>>)> {
    let mut files: Vec<_> =
        fs::read_dir("src/health/mysql/testdata/corpus").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), turns(path))).collect()
}

/// Plays turns, in pieces, and asks whenever the session wants a command: what the next turn looks like an answer to. Returns the replies, and the outcome that
/// ended it.
fn play(turns: &[Vec<u8>], tls: Tls, piece: usize) -> (Vec<Reply>, Option<Outcome>) {
    let mut session = Session::new(login(tls));
    let mut replies = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        for part in turn.chunks(piece.max(1)) {
            match session.receive(part) {
                Ok(reply) => replies.extend(reply),
                Err(outcome) if session.wants() == Wants::Command => drop(outcome),
                Err(outcome) => return (replies, Some(outcome)),
            }
            // What a hostile server can make us send is small.
            assert!(session.take_output().len() < 4096);
            if session.wants() == Wants::Tls
                && let Err(outcome) = session.tls_ready()
            {
                return (replies, Some(outcome));
            }
        }
        if session.wants() == Wants::Command {
            let is_ok = turns.get(at + 1).and_then(|next| next.get(4)) == Some(&0);
            session.ask(&if is_ok { Command::Ping } else { Command::Query("SELECT 1".into()) });
        }
    }
    (replies, None)
}

#[test]
fn recorded_conversations_come_to_their_end_in_pieces_of_any_size() {
    let corpus = corpus();
    assert!(corpus.len() >= 6, "only {} recordings", corpus.len());
    for (name, turns) in &corpus {
        let tls = if name.contains("-tls-") { Tls::Prefer } else { Tls::Off };
        let whole = play(turns, tls, usize::MAX);
        if !name.starts_with("bad-") {
            assert_eq!(whole.1, None, "{name}");
            assert_eq!(whole.0.first(), Some(&Reply::LoggedIn), "{name}");
            assert!(whole.0.len() >= 3, "{name}: {:?}", whole.0);
        }
        for piece in [1, 2, 3, 5, 64] {
            assert_eq!(play(turns, tls, piece), whole, "{name} in pieces of {piece}");
        }
    }
}

/// Hostile servers: recordings with bytes changed, cut, doubled, swapped. Nothing may panic or grow without bound.
#[test]
fn mutated_conversations_harm_nobody() {
    let mut state = 0x5eed_u64;
    let mut draw = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let corpus = corpus();
    for _ in 0..60_000 {
        let mut turns = corpus[draw(corpus.len())].1.clone();
        for _ in 0..=draw(4) {
            let at = draw(turns.len());
            let other = turns[draw(turns.len())].clone();
            let turn = &mut turns[at];
            let place = draw(turn.len());
            match draw(7) {
                0 => turn.truncate(place),
                1 => turn.extend(other),
                2 => turn.insert(place, draw(256) as u8),
                3 => drop(turn.splice(place.., other)),
                4 if place < turn.len() => turn[place] ^= 1 << draw(8),
                5 if turn.len() > 4 => turn[4] = [0x00, 0x01, 0xfb, 0xfc, 0xfe, 0xff][draw(6)],
                _ if place < turn.len() => turn[place] = [0, 0x7f, 0x80, 0xfb, 0xfe, 0xff][draw(6)],
                _ => {}
            }
        }
        let tls = [Tls::Off, Tls::Prefer, Tls::Require][draw(3)];
        play(&turns, tls, 1 + draw(200));
    }
}

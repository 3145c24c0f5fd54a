//! The fuzzer's corpus of adverts, replayed and changed a little: what the fuzzer found once stays found.
//!
//! `BLESS=1` writes the seeds anew; findings of the fuzzer are added by hand.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use lb_userspace::vrrp::{
    Version,
    interval::Interval,
    packet::{Auth, ChecksumKind, Receiver, Sender, VirtualRouter, fuzz},
};
use proptest::prelude::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/vrrp")
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory()).expect("the corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

fn router(version: Version, auth: Auth, checksum: ChecksumKind, addresses: u8) -> VirtualRouter {
    let addresses = (0..addresses).map(|number| Ipv4Addr::new(10, 80, 1, 243 - number)).collect();
    VirtualRouter { version, vrid: 52, auth, interval: Interval::SECOND, addresses, checksum }
}

/// One for every way to write an advert, and the usual damage.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let pass = Auth::pass("1111").unwrap();
    let mut seeds = Vec::new();
    for (name, version, auth, checksum) in [
        ("v2-none", Version::V2, Auth::None, ChecksumKind::Message),
        ("v2-pass", Version::V2, pass, ChecksumKind::Message),
        ("v3-rfc9568", Version::V3, Auth::None, ChecksumKind::Message),
        ("v3-pseudo-header", Version::V3, Auth::None, ChecksumKind::PseudoHeader),
    ] {
        for (priority, addresses) in [(100, 1), (0, 1), (255, 1), (254, 3)] {
            let router = router(version, auth, checksum, addresses);
            let sender = Sender { router, source: Ipv4Addr::new(10, 80, 1, 241), peer: None };
            let packet = sender.encode(priority);
            seeds.push((format!("{name}-{priority}-{addresses}"), packet.clone()));
            if (priority, addresses) == (100, 1) {
                let cut = packet.len() - 3;
                seeds.push((format!("{name}-cut"), packet[..cut].to_vec()));
                let longer = [&packet[..], &[0; 26]].concat();
                seeds.push((format!("{name}-padded"), longer));
                let mut options = packet;
                options[0] = 0x4f;
                seeds.push((format!("{name}-options"), options));
            }
        }
    }
    seeds.push(("empty".to_owned(), Vec::new()));
    seeds
}

#[test]
fn the_corpus_holds_every_kind_of_advert() {
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in seeds() {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let corpus = corpus();
    for (name, bytes) in seeds() {
        assert!(corpus.iter().any(|(_, known)| *known == bytes), "{name} is not in the corpus");
    }
    // Were all refused, the fuzzer would look at the first checks only.
    let receiver = |version, auth| Receiver {
        router: router(version, auth, ChecksumKind::Message, 1),
        address: Ipv4Addr::new(10, 80, 1, 242),
        owner: false,
        accept_owner: true,
        peers: Vec::new(),
    };
    for (version, auth) in
        [(Version::V2, Auth::None), (Version::V2, Auth::pass("1111").unwrap()), (Version::V3, Auth::None)]
    {
        let receiver = receiver(version, auth);
        let accepted = corpus.iter().filter(|(_, bytes)| receiver.decode(bytes).is_ok()).count();
        assert!(accepted >= 3, "{version:?} {auth:?}: {accepted} accepted");
    }
}

#[test]
fn the_decoder_stands_the_whole_corpus() {
    for (name, bytes) in corpus() {
        println!("{name}");
        fuzz(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_stands_the_corpus_with_bytes_changed(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in 0usize..120,
        cut in any::<bool>(),
    ) {
        let corpus = corpus();
        let mut bytes = which.get(&corpus).1.clone();
        for (at, value) in edits {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if cut {
            bytes.resize(length, 0);
        }
        fuzz(&bytes);
    }

    #[test]
    fn the_decoder_stands_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&bytes);
    }
}

//! The lab's own disturbances do what they are called, and end. What is tested with them is worth no more than they are.

use std::time::Duration;

use lb_tests::lab::{Host, LabOptions, Loss, Segment, VipWatch, VrrpOptions, Way, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// Whether one of three echo requests comes back.
fn reaches(from: &Host, to: &str) -> bool {
    from.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "0.2", to]).unwrap().status.success()
}

fn up(host: &Host, interface: &str) -> bool {
    host.check(&["ip", "link", "show", "dev", interface]).unwrap().contains("LOWER_UP")
}

#[test]
fn links_go_down_frames_get_lost_one_way_and_segments_split() {
    let lab = LabOptions { clients: 2, directors: 2, mariadb: None, ..LabOptions::default() }.up().unwrap();
    let (d1, client, client2) = (lab.d1().host(), lab.client().host(), lab.clients()[1].host());
    assert!(reaches(client, "10.80.1.241") && reaches(d1, "10.99.0.2") && reaches(client, "10.80.1.2"));

    let cut = lab.cut(d1, &["ext0", "sync0"]).unwrap();
    assert!(!up(d1, "ext0") && !up(d1, "sync0") && up(d1, "int0"));
    cut.end().unwrap();
    wait_for("d1's link", LIMIT, || Ok(up(d1, "ext0").then_some(()))).unwrap();
    wait_for("d1 behind the link", LIMIT, || Ok(reaches(client, "10.80.1.241").then_some(()))).unwrap();

    let asked = d1.count_packets("asked", "input", "icmp type echo-request").unwrap();
    for (way, heard) in [(Way::From, true), (Way::To, false)] {
        let before = asked.read().unwrap().packets;
        let lost = lab.lose(d1, "ext0", way, Loss::All).unwrap();
        assert!(!reaches(client, "10.80.1.241"), "{way:?}");
        assert_eq!(asked.read().unwrap().packets > before, heard, "{way:?}");
        lost.end().unwrap();
        wait_for("the other way", LIMIT, || Ok(reaches(client, "10.80.1.241").then_some(()))).unwrap();
    }

    // Nobody on d2 has joined the group, so that they do not get further than this hook.
    let adverts = lab.d2().host().count_packets("adverts", "prerouting", "ip protocol 112").unwrap();
    let watch = VipWatch::start(&lab).unwrap();
    lab.d1().start_keepalived(&VrrpOptions::fast(), None).unwrap();
    watch.wait_for(0, LIMIT).unwrap();
    let more = |count: u64| Ok((adverts.read()?.packets > count).then_some(()));
    wait_for("adverts", LIMIT, || more(0)).unwrap();
    let segments = [Segment::Client, Segment::Server];
    let blocked = segments.map(|segment| lab.lose_between_directors(segment, Loss::Multicast).unwrap());
    let count = adverts.read().unwrap().packets;
    std::thread::sleep(VrrpOptions::fast().advert * 5);
    assert_eq!(adverts.read().unwrap().packets, count, "not one advert came through");
    assert!(reaches(d1, "10.80.1.242"), "but unicast does");
    drop(blocked);
    wait_for("adverts again", LIMIT, || more(count)).unwrap();

    let split = lab.split(Segment::Client, &[(d1, "ext0"), (client2, "eth0")]).unwrap();
    assert!(up(d1, "ext0"), "nobody's carrier tells of a split");
    assert!(!reaches(client, "10.80.1.241") && reaches(client2, "10.80.1.241") && !reaches(client, "10.80.1.2"));
    split.end().unwrap();
    wait_for("one segment", LIMIT, || Ok(reaches(client, "10.80.1.241").then_some(()))).unwrap();

    let share = lab.lose(client, "eth0", Way::From, Loss::Percent(50)).unwrap();
    let before = asked.read().unwrap().packets;
    client.run(&["ping", "-n", "-q", "-c", "100", "-i", "0.005", "-W", "0.2", "10.80.1.241"]).unwrap();
    share.end().unwrap();
    let through = asked.read().unwrap().packets - before;
    assert!((20..=80).contains(&through), "{through} of 100 came through");
}

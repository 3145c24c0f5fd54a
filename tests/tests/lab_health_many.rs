//! Two hundred backends, checked every second by the agents of a pair as they run in production, a quarter of them frozen:
//! what that costs, and that the others do not wait.

use std::{net::SocketAddrV4, thread, time::Duration};

use lb_tests::{
    checks::Pair,
    health,
    lab::{AgentOptions, BackendOptions, Director, LabOptions, Server, VrrpOptions, now, wait_for},
};
use lb_userspace::control::protocol::{CheckView, Status};

const ALL: u16 = 200;
const HUNG: u16 = 50;
const WATCHED: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(60);
/// The default interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// A server is as many backends as this many ports from here on lead to it.
const FIRST: u16 = 10_000;

/// The server's own kernel leads more ports to its MySQL.
fn ports(server: &Server, count: u16) -> Vec<BackendOptions> {
    let rules = format!(
        "table ip many {{\n chain pre {{\n type nat hook prerouting priority dstnat;\n tcp dport {FIRST}-{} redirect to \
         :3306\n }}\n}}\n",
        FIRST + count - 1
    );
    server.host().check_with_input(&["nft", "-f", "-"], &rules).unwrap();
    let at = |port| BackendOptions { address: SocketAddrV4::new(server.address(), port), weight: 1 };
    (FIRST..FIRST + count).map(at).collect()
}

fn checks(director: &Director) -> Vec<CheckView> {
    director.ctl::<Status>(&["status"]).unwrap().checks
}

fn up(director: &Director) -> usize {
    checks(director).iter().filter(|check| check.state == "up").count()
}

/// How late a thread wakes up that does nothing else: what the machine takes away from everybody.
fn machine(time: Duration) -> Duration {
    const NAP: Duration = Duration::from_millis(5);
    let (began, mut worst) = (now(), Duration::ZERO);
    while began.elapsed() < time {
        let asleep = now();
        thread::sleep(NAP);
        worst = worst.max(asleep.elapsed().saturating_sub(NAP));
    }
    worst
}

#[test]
fn two_hundred_backends_cost_little_and_those_that_hang_delay_nobody() {
    let lab = LabOptions { directors: 2, clients: 1, ..LabOptions::default() }.up().unwrap();
    let [rs1, rs2] = lab.servers() else { panic!("two servers") };
    for server in [rs1, rs2] {
        let (user, password) = (health::USER, health::PASSWORD);
        server.sql(&format!("CREATE USER {user}@'192.168.80.%' IDENTIFIED BY '{password}'")).unwrap();
    }
    let file = health::password_file(lab.d1().host(), health::PASSWORD).unwrap();
    let mut agent = AgentOptions {
        check: format!(
            "[service.check]\nlevel = \"auth\"\nuser = {:?}\npassword_file = {:?}\n",
            health::USER,
            file.display().to_string()
        ),
        ..lab.agent_options()
    };
    agent.services[0].backends = [ports(rs1, ALL - HUNG), ports(rs2, HUNG)].concat();
    let pair = Pair::of(lab, VrrpOptions::fast(), agent).unwrap().synced().unwrap();
    let both = [pair.director(0), pair.director(1)];
    pair.start(0).unwrap();
    pair.gets(0).unwrap();
    pair.start(1).unwrap();
    for director in both {
        wait_for("all to be up", LIMIT, || Ok((up(director) == usize::from(ALL)).then_some(()))).unwrap();
    }

    pair.lab.servers()[1].freeze().unwrap();
    for director in both {
        wait_for("the verdicts", LIMIT, || Ok((up(director) == usize::from(ALL - HUNG)).then_some(()))).unwrap();
    }
    let cpu = || both.map(|director| director.agent_cpu().unwrap());
    let threads = || both.map(|director| director.agent_cpu_by_thread().unwrap());
    let (before, before_threads, began) = (cpu(), threads(), now());
    let machine = machine(WATCHED);
    let (after, after_threads, time) = (cpu(), threads(), began.elapsed());
    for (number, director) in both.into_iter().enumerate() {
        let (hung, well): (Vec<_>, Vec<_>) = checks(director).into_iter().partition(|check| check.state == "down");
        assert_eq!((hung.len(), well.len()), (usize::from(HUNG), usize::from(ALL - HUNG)));
        // One verdict each, and no more since.
        assert!(well.iter().all(|check| check.history.len() == 1), "{well:#?}");
        let late = well.iter().map(|check| Duration::from_micros(check.late_us)).max().unwrap();
        let spent = (after[number] - before[number]).as_secs_f64() / time.as_secs_f64();
        println!(
            "d{}: {ALL} backends every second, {HUNG} of them hung: {:.1} % of a core for the whole agent (goal 3 %); the \
             latest check of a living one came {late:.1?} late, {:.1} % of its interval (goal 10 %)",
            number + 1,
            100.0 * spent,
            100.0 * late.as_secs_f64() / INTERVAL.as_secs_f64()
        );
        for (name, after) in &after_threads[number] {
            let spent = after.saturating_sub(before_threads[number].get(name).copied().unwrap_or_default());
            println!("    {name}: {:.2} %", 100.0 * spent.as_secs_f64() / time.as_secs_f64());
        }
        // Whoever waits for one that hangs waits for a second, and for fifty of them one after the other.
        assert!(late < INTERVAL / 4 + 4 * machine, "{late:?}; the machine itself was {machine:?} late");
        assert!(spent < 0.3, "{:.1} % of a core", 100.0 * spent);
    }
    println!("a thread that does nothing was {machine:.1?} late at most");
}

//! The figures, as text and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::LoginCpu;

/// How long conns took to the peer's packet path.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// Half of them took no longer, in milliseconds.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Delay {
    pub(super) fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort_unstable();
        let at = |share: f64| {
            let place = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
            delays.get(place).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    fn json(&self) -> Value {
        json!({ "p50": self.p50, "p99": self.p99, "max": self.max })
    }
}

/// A director without conns gets all there are.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// So many.
    pub conns: u32,
    /// From the open session to the last conn in the packet path's table.
    pub seconds: f64,
    /// Of both sync threads: who has them, who gets them.
    pub cpu_seconds: [f64; 2],
    /// From then until both say that they are equal.
    pub equal_after: f64,
    /// New conns meanwhile.
    pub live: Delay,
    /// Before that: from the start until the sender knows its own table.
    pub scan_seconds: f64,
    /// Bytes in the agent, for each conn.
    pub memory: f64,
}

/// All figures.
#[derive(Clone, Debug)]
pub struct Report {
    /// New conns a second, as it was.
    pub rate: f64,
    /// So many in all.
    pub conns: u32,
    /// Until the peer's packet path had them.
    pub delay: Delay,
    /// Of a core, for the sync threads: who has the conns, who gets them.
    pub cpu: [f64; 2],
    /// Bytes in the agent, for each replicated conn.
    pub memory: f64,
    /// Bytes on the wire for each conn, all headers included.
    pub wire: f64,
    /// The bulk, if it was measured.
    pub bulk: Option<Bulk>,
    /// The CPU of a login, if it was measured.
    pub logins: Option<LoginCpu>,
}

impl Report {
    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let bulk = self.bulk.map(|bulk| {
            json!({
                "conns": bulk.conns,
                "seconds": bulk.seconds,
                "cpu_seconds": { "sender": bulk.cpu_seconds[0], "receiver": bulk.cpu_seconds[1] },
                "equal_after_seconds": bulk.equal_after,
                "live_delay_ms": bulk.live.json(),
                "scan_seconds": bulk.scan_seconds,
                "bytes_per_conn": bulk.memory,
            })
        });
        let logins = self.logins.as_ref().map(|logins| {
            let parts = |[client, servers, agents, ksoftirqd]: [f64; 4]| json!({ "client": client, "servers": servers, "agents": agents, "ksoftirqd": ksoftirqd });
            json!({
                "routed_us": logins.routed,
                "routed_parts_us": parts(logins.parts[0]),
                "pair_us": logins.pair,
                "pair_parts_us": parts(logins.parts[1]),
                "ratio": logins.ratio[0],
                "ratio_quartiles": logins.ratio[1..],
                "rounds": logins.rounds,
                "idle_agents_of_a_core": logins.idle,
            })
        });
        json!({
            "conns": self.conns,
            "conns_per_second": self.rate,
            "delay_ms": self.delay.json(),
            "cpu_of_a_core": { "sender": self.cpu[0], "receiver": self.cpu[1] },
            "bytes_per_conn": self.memory,
            "wire_bytes_per_conn": self.wire,
            "bulk": bulk,
            "login_cpu": logins,
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} conns, {:.0} new a second\n\
             delay to the peer's packet path   p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms (goal 10, 50)\n\
             CPU of the sync thread            {:.1} % of a core for who has them, {:.1} % for who gets them (goal 10)\n\
             memory of the agent               {:.0} bytes a conn (goal 128)\n\
             on the wire                       {:.0} bytes a conn\n",
            self.conns,
            self.rate,
            self.delay.p50,
            self.delay.p99,
            self.delay.max,
            100.0 * self.cpu[0],
            100.0 * self.cpu[1],
            self.memory,
            self.wire,
        );
        if let Some(bulk) = &self.bulk {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "bulk                              {} conns in {:.2} s (goal 3 for a million), CPU {:.2} s and {:.2} s, equal {:.1} s later\n\
                 new conns meanwhile               p50 {:.1} ms, p99 {:.1} ms\n\
                 looking through the own table     {:.2} s\n\
                 memory of the agent               {:.0} bytes a conn",
                bulk.conns,
                bulk.seconds,
                bulk.cpu_seconds[0],
                bulk.cpu_seconds[1],
                bulk.equal_after,
                bulk.live.p50,
                bulk.live.p99,
                bulk.scan_seconds,
                bulk.memory,
            );
        }
        if let Some(logins) = &self.logins {
            let [ratio, lower, upper] = logins.ratio;
            let _ = writeln!(
                text,
                "CPU of a login, of the whole lab  {:.0} µs through the pair, {:.0} µs of it the agents; {:.0} µs routed: \
                 × {ratio:.2}, quartiles {lower:.2} to {upper:.2} (goal 1.10)\n\
                 both agents, while nobody logs in  {:.1} % of a core",
                logins.pair,
                logins.parts[1][2],
                logins.routed,
                100.0 * logins.idle,
            );
        }
        text
    }
}
